package bpf

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf"
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
	Flow        = objFlow
	Slot        = objSlot
	Clockwork   = objClockwork
	Tally       = objTally
	Histogram   = objHistogram
	Latency     = objLatency
	ServiceName = objServiceName
)

// Flags of a Frontend (enum frontend_flag).
const (
	FrontendByConnection = uint32(objFrontendFlagFRONTEND_BY_CONNECTION)
	FrontendSNATAlways   = uint32(objFrontendFlagFRONTEND_SNAT_ALWAYS)
	FrontendSNATNever    = uint32(objFrontendFlagFRONTEND_SNAT_NEVER)
	FrontendReal         = uint32(objFrontendFlagFRONTEND_REAL)
	FrontendRetired      = uint32(objFrontendFlagFRONTEND_RETIRED)
)

// Flags of a Backend (enum backend_flag).
const (
	BackendHost    = uint8(objBackendFlagBACKEND_HOST)
	BackendRemote  = uint8(objBackendFlagBACKEND_REMOTE)
	BackendShared  = uint8(objBackendFlagBACKEND_SHARED)
	BackendRetired = uint8(objBackendFlagBACKEND_RETIRED)
)

// Flags of a Flow (enum flow_flag).
const (
	FlowAnswered    = uint32(objFlowFlagFLOW_ANSWERED)
	FlowEstablished = uint32(objFlowFlagFLOW_ESTABLISHED)
	FlowFinClient   = uint32(objFlowFlagFLOW_FIN_CLIENT)
	FlowFinServer   = uint32(objFlowFlagFLOW_FIN_SERVER)
	FlowClosed      = uint32(objFlowFlagFLOW_CLOSED)
	FlowSNAT        = uint32(objFlowFlagFLOW_SNAT)
)

const (
	// Versions is the number of version slots of a service; slot 0 is stable.
	Versions = 5
	// Buckets is the number of selection buckets: one is 0.01 % of a service.
	Buckets = 10000
	// GateWords is the length of one of the four port bitmaps in the gate map,
	// in words of 64 ports: frontends' TCP, frontends' UDP, endpoints' TCP,
	// endpoints' UDP.
	GateWords = 1024
	// HistogramMin is the native-histogram index (schema 3) of bucket 0, whose
	// upper bound is 2^(HistogramMin/8) seconds.
	HistogramMin = -160
	// HistogramBuckets is the number of latency buckets; the last one also
	// holds everything above it.
	HistogramBuckets = 216
)

// Spec returns the compiled programs and maps, not loaded.
func Spec() (*ebpf.CollectionSpec, error) { return loadObj() }

// XDPSpec returns the programs for XDP, not loaded. Its maps are those of Spec:
// load it with their like from there as replacements, all but the compiler's
// own (.rodata), or it would work on maps that nobody fills.
func XDPSpec() (*ebpf.CollectionSpec, error) { return loadXdp() }

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
