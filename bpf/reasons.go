package bpf

// A Reason is an index into the reasons map (enum reason).
type Reason = objReason

// ReasonKind says what a reason counts.
type ReasonKind uint8

const (
	// Drop counts packets that were dropped.
	Drop ReasonKind = iota + 1
	// Pass counts packets that went on untouched although they concern a
	// frontend or a backend of ours.
	Pass
	// Note counts packets that were steered in an unusual way.
	Note
)

// ReasonInfo names one counter of the reasons map.
type ReasonInfo struct {
	Index Reason
	Kind  ReasonKind
	Name  string // the value of the metric's label
}

// Reasons lists every counter of the reasons map in its order.
func Reasons() []ReasonInfo {
	return []ReasonInfo{
		{objReasonDROP_NO_FLOW, Drop, "no_flow"},
		{objReasonPASS_NO_FLOW, Pass, "no_flow"},
		{objReasonDROP_NO_BACKEND, Drop, "no_backend"},
		{objReasonPASS_NO_BACKEND, Pass, "no_backend"},
		{objReasonDROP_TABLE_FULL, Drop, "table_full"},
		{objReasonPASS_TABLE_FULL, Pass, "table_full"},
		{objReasonDROP_QUOTA, Drop, "quota"},
		{objReasonPASS_QUOTA, Pass, "quota"},
		{objReasonDROP_PORTS, Drop, "ports_exhausted"},
		{objReasonPASS_PORTS, Pass, "ports_exhausted"},
		{objReasonDROP_BUSY, Drop, "busy"},
		{objReasonDROP_PORT_HELD, Drop, "host_port"},
		{objReasonDROP_REWRITE, Drop, "rewrite_failed"},
		{objReasonPASS_RETIRED, Pass, "frontend_deleted"},
		{objReasonPASS_IP_OPTIONS, Pass, "ip_options"},
		{objReasonPASS_EXTENSION, Pass, "extension_header"},
		{objReasonPASS_FRAGMENT, Pass, "fragment"},
		{objReasonPASS_TRUNCATED, Pass, "truncated"},
		{objReasonPASS_MALFORMED, Pass, "malformed"},
		{objReasonPASS_PROTOCOL, Pass, "protocol"},
		{objReasonPASS_ICMP, Pass, "icmp_no_flow"},
		{objReasonNOTE_RECHOSEN, Note, "rechosen"},
		{objReasonNOTE_REOPENED, Note, "reopened"},
		{objReasonNOTE_PORT_MOVED, Note, "port_moved"},
		{objReasonNOTE_PORT_OVER, Note, "port_taken_over"},
		{objReasonNOTE_FALLBACK, Note, "version_empty"},
		{objReasonNOTE_ICMP, Note, "icmp_translated"},
		{objReasonNOTE_ECHO, Note, "echo_answered"},
		{objReasonNOTE_LAST_HOP, Note, "last_hop"},
		{objReasonNOTE_CUT, Note, "cut_off"},
		{objReasonNOTE_CUT_AGAIN, Note, "cut_off_again"},
		{objReasonNOTE_RESTEERED, Note, "resteered"},
		{objReasonNOTE_UNHEARD, Note, "http2_unheard"},
	}
}
