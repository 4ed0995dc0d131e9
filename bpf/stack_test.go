package bpf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"siskin.dev/siskin/bpf"
)

// A frame is what one function needs of the stack, and what it calls.
type frame struct {
	bytes int32
	calls map[string]bool
}

// TestStack adds up the stack of every chain of calls as Linux 6.1 does: each
// frame is rounded up to 32 bytes, and all together may have 512. Newer kernels
// round to less, so what they load may not load there.
func TestStack(t *testing.T) {
	for _, read := range []func() (*ebpf.CollectionSpec, error){bpf.Spec, bpf.XDPSpec} {
		spec, err := read()
		if err != nil {
			t.Fatal(err)
		}
		for name, program := range spec.Programs {
			frames, first := framesOf(program.Instructions)
			bytes, chain := deepest(frames, first)
			if bytes > 512 {
				t.Errorf("%s needs %d bytes of stack: %s", name, bytes, strings.Join(chain, ", "))
			}
		}
	}
}

// framesOf returns the functions of a program by their names, and the first.
func framesOf(all asm.Instructions) (frames map[string]*frame, first string) {
	frames = map[string]*frame{}
	var f *frame
	var copied asm.Register // has the frame pointer
	for _, ins := range all {
		if btf.FuncMetadata(&ins) != nil {
			f = &frame{calls: map[string]bool{}}
			frames[ins.Symbol()] = f
			if first == "" {
				first = ins.Symbol()
			}
		}
		if ins.IsFunctionCall() || ins.IsLoadOfFunctionPointer() {
			f.calls[ins.Reference()] = true
		}
		if ins.Dst == asm.RFP || ins.Src == asm.RFP {
			f.bytes = max(f.bytes, -int32(ins.Offset))
		}
		if ins.Dst == copied && ins.OpCode == asm.Add.Op(asm.ImmSource) {
			f.bytes = max(f.bytes, -int32(ins.Constant))
		}
		copied = asm.RFP
		if ins.OpCode == asm.Mov.Op(asm.RegSource) && ins.Src == asm.RFP {
			copied = ins.Dst
		}
	}
	return frames, first
}

// deepest returns the chain of calls that needs the most, and how much.
func deepest(frames map[string]*frame, name string) (bytes int32, chain []string) {
	f := frames[name]
	for called := range f.calls {
		if b, c := deepest(frames, called); b > bytes {
			bytes, chain = b, c
		}
	}
	own := max(32, (f.bytes+31)/32*32)
	return bytes + own, append([]string{fmt.Sprintf("%s %d", name, f.bytes)}, chain...)
}
