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
	__u32 at = 0;

	if (!zero)
		return 8;
	if (!(__u32)zero) {
		zero >>= 32;
		at = 4;
	}
	if (!(__u16)zero) {
		zero >>= 16;
		at += 2;
	}
	return at + !(__u8)zero;
}

/* Where the line on the desk ends, at the latest at the desk's end. */
static __always_inline __u32 line_end(const struct desk *k)
{
	__u32 at;

#pragma unroll
	for (int i = 0; i < LINE + WINDOW; i += 8) {
		at = newline_in(word_of(k->line + i));
		if (at < 8)
			return i + at;
	}
	return LINE + WINDOW;
}

enum line { LINE_WHOLE, LINE_EMPTY, LINE_SHORT, LINE_BAD };

/* Bring the next line, or the next piece of one, onto the desk. Only
 * LINE_WHOLE and LINE_EMPTY are lines with an end. */
static __always_inline enum line line_next(struct reading *g)
{
	struct reader *r = g->r;
	__u32 held = r->held, n = g->desk->end - g->desk->at, end;

	if (n > WINDOW)
		n = WINDOW;
	if (held > LINE || !length_within(&n, WINDOW))
		return LINE_BAD;
	if (page_load(g, g->desk->line + held, n))
		return LINE_BAD;
	end = line_end(g->desk);
	if (end >= held + n) {
		g->desk->at += n;
		held += n;
		if (held > LINE) {
			held = LINE;
			r->flags |= READER_LONG;
		}
		r->held = held;
		return LINE_SHORT;
	}
	g->desk->at += end + 1 - held;
	r->held = 0;
	if (r->flags & READER_LONG) {
		r->flags &= ~READER_LONG;
		return LINE_WHOLE;
	}
	return !end || (end == 1 && g->desk->line[0] == '\r') ? LINE_EMPTY :
								LINE_WHOLE;
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
