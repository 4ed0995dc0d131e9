/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tls.h: TLS (RFC 8446, RFC 5246) as far as it is in the clear: the records of
 * a handshake, and an alert that ends it. From the first application data on
 * nothing is to be seen.
 */
#pragma once

#include "http2.h"

#define RECORD_HEAD		5
#define RECORD_CHANGE		20
#define RECORD_ALERT		21
#define RECORD_HANDSHAKE	22
#define ALERT			2 /* bytes */
#define ALERT_FATAL		2

#define ALERT_CLOSE_NOTIFY	0
#define ALERT_HANDSHAKE_FAILURE 40
#define ALERT_INTERNAL_ERROR	80

static __always_inline void tls_begins(struct talk *t)
{
	t->kind = TALK_TLS;
	t->of[0].state = READ_RECORD;
	t->of[1].state = READ_RECORD;
}

/* A record's head, or a piece of it, is next. */
static __always_inline void record_head(struct reading *g)
{
	const __u8 *head = g->desk->line;
	struct reader *r = g->r;

	if (!gather(g, RECORD_HEAD))
		return;
	server_heard(g);
	r->left = (__u32)head[3] << 8 | head[4];
	if (head[0] == RECORD_ALERT && r->left == ALERT)
		r->state = READ_ALERT;
	else if (head[1] != 3 ||
		 (head[0] != RECORD_CHANGE && head[0] != RECORD_HANDSHAKE))
		g->desk->came.stop = 1;
}

/* The client does not accept the certificate: bad, unsupported, revoked,
 * expired, unknown, or of an unknown CA. */
static __always_inline bool blames_certificate(__u8 alert)
{
	return (alert >= 42 && alert <= 46) || alert == 48;
}

/* Whether a fatal alert says something of the server: its own where it could
 * not agree with the client, or broke; the client's about a certificate that it
 * was shown. */
static __always_inline bool alert_blames(const struct reading *g, __u8 alert)
{
	if (!g->desk->asks)
		return alert == ALERT_HANDSHAKE_FAILURE ||
		       alert == ALERT_INTERNAL_ERROR;
	return g->f->flags & FLOW_RESPONDED && blames_certificate(alert);
}

/* An alert, or a piece of it, is next. What any client can bring about by its
 * hello is counted, and is no error for a release: it must not move a breaker.
 */
static __always_inline void alert_body(struct reading *g)
{
	const __u8 *alert = g->desk->line;
	struct tally *t;

	if (!gather(g, ALERT))
		return;
	g->r->left = 0;
	g->r->state = READ_RECORD;
	if (alert[0] != ALERT_FATAL && alert[1] != ALERT_CLOSE_NOTIFY)
		return; /* a warning: the handshake goes on */
	g->desk->came.stop = 1;
	g->desk->came.upgraded = 1; /* no answer is waited for */
	if (alert[0] != ALERT_FATAL || !alert_blames(g, alert[1]) ||
	    !flow_set(g->f, FLOW_FAILED))
		return;
	t = tally_of(g->f->backend);
	if (t)
		t->tls++;
	if (alert[1] != ALERT_HANDSHAKE_FAILURE)
		g->desk->came.failed++;
}
