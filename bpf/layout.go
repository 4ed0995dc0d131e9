package bpf

import (
	"encoding/binary"
	"net/netip"
)

// The layouts of types.h, by their Go names. Addresses and ports in them are
// in network byte order; AddrFrom, TupleFrom and Port convert.
type (
	Addr        = objAddr
	Tuple       = objTuple
	Table       = objTable
	Frontend    = objFrontend
	Backend     = objBackend
	Endpoint    = objEndpoint
	FlowKey     = objFlowKey
	Alias       = objAlias
	Hop         = objHop
	Flow        = objFlow
	Slot        = objSlot
	Bucket      = objBucket
	Clockwork   = objClockwork
	Shortage    = objShortage
	PortTries   = objPortTries
	Tally       = objTally
	Histogram   = objHistogram
	Latency     = objLatency
	ServiceName = objServiceName
	Cutoff      = objCutoff
	Answers     = objAnswers
	Talk        = objTalk
)

// Flags of a Frontend (enum frontend_flag).
const (
	FrontendByConnection = uint32(objFrontendFlagFRONTEND_BY_CONNECTION)
	FrontendSNATAlways   = uint32(objFrontendFlagFRONTEND_SNAT_ALWAYS)
	FrontendSNATNever    = uint32(objFrontendFlagFRONTEND_SNAT_NEVER)
	FrontendReal         = uint32(objFrontendFlagFRONTEND_REAL)
	FrontendRetired      = uint32(objFrontendFlagFRONTEND_RETIRED)
	// FrontendRead: requests are looked for in its connections, and with
	// FrontendRequests nothing else is expected there.
	FrontendRead     = uint32(objFrontendFlagFRONTEND_READ)
	FrontendRequests = uint32(objFrontendFlagFRONTEND_REQUESTS)
)

// Flags of a Backend (enum backend_flag).
const (
	BackendHost    = uint8(objBackendFlagBACKEND_HOST)
	BackendRemote  = uint8(objBackendFlagBACKEND_REMOTE)
	BackendShared  = uint8(objBackendFlagBACKEND_SHARED)
	BackendRetired = uint8(objBackendFlagBACKEND_RETIRED)
	// BackendRedirect: packets may go past the stack to it, since its
	// interface has our tc hook and carries Ethernet.
	BackendRedirect = uint8(objBackendFlagBACKEND_REDIRECT)
	// BackendPeer: its interface is a veth whose peer is in another namespace.
	BackendPeer = uint8(objBackendFlagBACKEND_PEER)
	// BackendXDP: an XDP program may send by its interface.
	BackendXDP = uint8(objBackendFlagBACKEND_XDP)
)

// Flags of a Flow (enum flow_flag).
const (
	FlowAnswered    = uint32(objFlowFlagFLOW_ANSWERED)
	FlowEstablished = uint32(objFlowFlagFLOW_ESTABLISHED)
	FlowFinClient   = uint32(objFlowFlagFLOW_FIN_CLIENT)
	FlowFinServer   = uint32(objFlowFlagFLOW_FIN_SERVER)
	FlowClosed      = uint32(objFlowFlagFLOW_CLOSED)
	FlowServerFirst = uint32(objFlowFlagFLOW_SERVER_FIRST)
	FlowSNAT        = uint32(objFlowFlagFLOW_SNAT)
	FlowRedirect    = uint32(objFlowFlagFLOW_REDIRECT)
	FlowCut         = uint32(objFlowFlagFLOW_CUT)
	FlowRead        = uint32(objFlowFlagFLOW_READ)
	FlowUnread      = uint32(objFlowFlagFLOW_UNREAD)
)

// An Answer is how a request ended: the index of Answers.Of (enum answer).
type Answer = objAnswer

// What requests come to. Unparsed are answers on connections that speak
// something else than HTTP, TLS those on encrypted ones; lost are those on
// connections that speak HTTP, or should, whose status could not be read. Failed
// are no answers more: those that count as errors of a release.
const (
	Answer1xx       = objAnswerANSWER_1XX
	Answer2xx       = objAnswerANSWER_2XX
	Answer3xx       = objAnswerANSWER_3XX
	Answer4xx       = objAnswerANSWER_4XX
	Answer5xx       = objAnswerANSWER_5XX
	AnswerGRPCOK    = objAnswerANSWER_GRPC_OK
	AnswerGRPCError = objAnswerANSWER_GRPC_ERROR
	AnswerUnparsed  = objAnswerANSWER_UNPARSED
	AnswerTLS       = objAnswerANSWER_TLS
	AnswerLost      = objAnswerANSWER_LOST
	AnswerFailed    = objAnswerANSWER_FAILED
	AnswerKinds     = objAnswerANSWERS
)

const (
	// Versions is the number of version slots of a service; slot 0 is stable.
	Versions = 5
	// Buckets is the number of selection buckets: one is 0.01 % of a service.
	Buckets = 10000
	// HistogramMin is the native-histogram index (schema 3) of bucket 0, whose
	// upper bound is 2^(HistogramMin/8) seconds.
	HistogramMin = -160
	// HistogramBuckets is the number of latency buckets; the last one also
	// holds everything above it.
	HistogramBuckets = 216
)

// A GateSide is one of the two bitmaps in the gate map.
type GateSide uint32

// The sides of the gate map.
const (
	GateFrontends GateSide = iota
	GateEndpoints
)

// GateBit returns the index of a tuple's word in a gate map of so many words,
// and its bit. Other tuples may have the same one (bpf/gate.h).
func GateBit(side GateSide, t Tuple, words uint32) (word uint32, bit uint64) {
	w := t.Addr.W
	h := (uint64(w[1])<<32 | uint64(w[0])) * 0x9e3779b97f4a7c15
	h ^= (uint64(w[3])<<32 | uint64(w[2])) + (uint64(t.Port)<<8 | uint64(t.Proto))
	h *= 0xd6e8feb86659fd93
	words /= 2 // of one side
	at := (h >> 32) * uint64(words) >> 26
	return uint32(side)*words + uint32(at/64), 1 << (at % 64)
}

// AddrFrom returns a in the kernel's shape: IPv6, or IPv4 as v4-mapped IPv6.
func AddrFrom(a netip.Addr) Addr {
	b := a.As16()
	var out Addr
	for i := range out.W {
		out.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

// Netip returns the address; a v4-mapped one as IPv4.
func (a objAddr) Netip() netip.Addr {
	var b [16]byte
	for i, w := range a.W {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// Port converts a port between network and host byte order.
func Port(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

// TupleFrom returns the key of ap and proto (unix.IPPROTO_TCP or _UDP).
func TupleFrom(ap netip.AddrPort, proto uint8) Tuple {
	return Tuple{Addr: AddrFrom(ap.Addr()), Port: Port(ap.Port()), Proto: proto}
}

// AddrPort returns the tuple's address and port.
func (t objTuple) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(t.Addr.Netip(), Port(t.Port))
}

// Text returns the NUL-terminated string in a fixed-size C array.
func Text(b []int8) string {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}

// SetText writes s into a fixed-size C array and pads it with NULs. What does
// not fit is cut, and the last byte is always NUL.
func SetText(dst []int8, s string) {
	clear(dst)
	for i := 0; i < len(s) && i < len(dst)-1; i++ {
		dst[i] = int8(s[i])
	}
}
