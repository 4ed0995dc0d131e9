/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * line.h: the lines of a segment. A segment ends where it likes; of a line that
 * it does not end the first LINE bytes are kept for the next one, which is more
 * than what is understood of any. Bytes are looked at eight at a time.
 */
#pragma once

#include "page.h"

#define ONES  0x0101010101010101ULL
#define LOWER 0x2020202020202020ULL /* makes ASCII letters small */

static __always_inline __u64 word_of(const __u8 *at)
{
	return *(const __u64 *)at;
}

/* Of eight bytes, which is the first '\n'; 8: none. */
static __always_inline __u32 newline_in(__u64 word)
{
	__u64 x = word ^ ('\n' * ONES), zero = (x - ONES) & ~x & (0x80 * ONES);

	if (!zero)
		return 8;
	/* As many bytes begin below the lowest bit as it has before it, and
	 * one. */
	zero = (zero & -zero) - 1;
	return ((zero & ONES) * ONES >> 56) - 1;
}

/* Where the line that begins at a place in the text ends, if it does within
 * SCAN bytes. It goes by way of the desk: what is read from there is any number
 * to the verifier, which else goes each way on once more. */
static __always_inline __u32 line_end(struct desk *k, const __u8 *text)
{
	__u32 at = SCAN;

#pragma unroll
	for (int i = 0; i < SCAN; i += 8) {
		at = newline_in(word_of(text + i));
		if (at < 8) {
			at += i;
			break;
		}
		at = SCAN;
	}
	*(volatile __u32 *)&k->line_end = at;
	return *(volatile __u32 *)&k->line_end;
}

/* What is read next, in the text on the desk: its place there, or TEXT where
 * there is nothing. Much is copied at a time, since a packet's bytes may lie in
 * many places. */
static __always_inline __u32 text_at(struct reading *g)
{
	struct desk *k = g->desk;
	__u32 at = k->at - k->base, n;

	if (at < k->have)
		return at;
	n = k->end - k->at;
	if (n > TEXT)
		n = TEXT;
	k->have = 0;
	if (!length_within(&n, TEXT) || page_load(g, k->text, n))
		return TEXT;
	k->base = k->at;
	k->have = n;
	return 0;
}

static __always_inline void copy_line(__u8 *to, const __u8 *from)
{
	for (int i = 0; i < LINE; i += 8)
		*(__u64 *)(to + i) = *(const __u64 *)(from + i);
}

enum line {
	LINE_WHOLE, /* LINE bytes of it are on the desk */
	LINE_EMPTY,
	LINE_SHORT, /* its end is not here yet */
	LINE_AGAIN, /* ask again */
	LINE_BAD,
};

/* Bring the next line, or the next piece of one, onto the desk. */
static __always_inline enum line line_next(struct reading *g)
{
	struct desk *k = g->desk;
	struct reader *r = g->r;
	__u32 held = r->held, at = text_at(g), end, n;

	if (at >= TEXT || held > LINE)
		return LINE_BAD;
	n = k->have - at;
	if (n > SCAN)
		n = SCAN;
	end = line_end(k, k->text + at);
	if (end >= n && n < SCAN && k->base + k->have < k->end) {
		k->have = 0; /* the text ends within the line, the page does
			      * not */
		return LINE_AGAIN;
	}
	copy_line(k->line + held, k->text + at);
	if (end >= n) {
		k->at += n;
		held += n;
		if (held > LINE) {
			held = LINE;
			r->flags |= READER_LONG;
		}
		r->held = held;
		return LINE_SHORT;
	}
	k->at += end + 1;
	end += held;
	k->length = r->flags & READER_LONG ? ~0U : end;
	r->held = 0;
	r->flags &= ~READER_LONG;
	return !end || (end == 1 && k->line[0] == '\r') ? LINE_EMPTY :
							  LINE_WHOLE;
}

#define FIELDS 4 /* that are stepped over at a time */

/* Step over fields that do not say how long a body is: those that do begin
 * like "Content-L" and "Transfer-". False: the next line must be looked at. */
static __always_inline bool field_skip(struct reading *g)
{
	struct desk *k = g->desk;
	__u32 at = k->at - k->base, n = k->have - at, end;
	const __u8 *text;
	__u8 first;

	if (at >= k->have || at >= TEXT || g->r->held ||
	    g->r->flags & READER_UPGRADE)
		return false;
	text = k->text + at;
	first = text[0] | 0x20;
	if (first == 't' || (first == 'c' && (text[8] | 0x20) == 'l') ||
	    text[0] == '\r' || text[0] == '\n')
		return false;
	end = line_end(k, text);
	if (end >= n || end >= SCAN)
		return false;
	k->at += end + 1;
	g->r->steps++;
	return true;
}

/* The number that begins at `at`, in a base of 10 or 16; ~0: there is none, or
 * one of more digits than a line has room for. */
static __always_inline __u64 line_number(const struct desk *k, __u32 at,
					 __u32 base)
{
	__u64 n = 0;
	__u32 digits = 0;

#pragma unroll
	for (int i = 0; i < 16; i++) {
		__u8 c = k->line[at + i], digit = c - '0';

		if (base == 16 && digit > 9)
			digit = (c | 0x20) - 'a' + 10;
		if (base == 16 && digit > 9 && (c | 0x20) < 'a')
			digit = 255;
		if (digit >= base) {
			if (digits || base == 16 || (c != ' ' && c != '\t'))
				break;
			continue;
		}
		n = n * base + digit;
		digits++;
	}
	return digits && digits < 14 ? n : ~0ULL;
}

#define TAIL 16 /* so much of a line's end is looked at */

/* The eight bytes before `end`, without space behind them. */
static __always_inline __u64 tail_of(const __u8 *end)
{
	__u64 last = word_of(end - 8), before = word_of(end - TAIL);

#pragma unroll
	for (int i = 0; i < TAIL - 8; i++) {
		__u8 c = last >> 56;

		if (c != '\r' && c != ' ' && c != '\t')
			break;
		last = last << 8 | before >> 56;
		before <<= 8;
	}
	return last;
}

/* The last bytes of the line that was brought last; 0: they are not known. A
 * line that its segment ends is whole on the desk if it is short. */
static __always_inline __u64 line_tail(const struct desk *k)
{
	__u32 text = k->at - k->base - 1 - TAIL, line = k->length - TAIL;

	/* Linux 6.1 knows of what was compared, not of what it comes from. */
	asm volatile("" : "+r"(text), "+r"(line));
	if (text < TEXT - TAIL)
		return tail_of(k->text + TAIL + text);
	if (line < LINE)
		return tail_of(k->line + TAIL + line);
	return 0;
}

/* Gather so many bytes on the desk. False: there are not all of them yet. */
static __always_inline bool gather(struct reading *g, __u32 want)
{
	struct desk *k = g->desk;
	__u32 held = g->r->held, n = want - held;

	if (n > k->end - k->at)
		n = k->end - k->at;
	if (held >= want || !length_within(&n, want) ||
	    page_load(g, k->line + held, n)) {
		k->came.stop = 1;
		return false;
	}
	k->at += n;
	g->r->held = held + n;
	if (g->r->held < want)
		return false;
	g->r->held = 0;
	return true;
}
