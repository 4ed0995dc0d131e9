package bed

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"siskin.dev/siskin/bpf"
)

// TakeXDP lets an interface receive what an XDP program sends to it from the
// other end of its pair: a veth throws such frames away unless its receiver has
// a program too, if only one that passes everything (drivers/net/veth.c).
func (n *Namespace) TakeXDP(devs ...string) {
	n.tb.Helper()
	program, err := passingProgram()
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { program.Close() })
	for _, dev := range devs {
		index := n.Ifindex(dev)
		err := n.Do(func() error {
			l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPDriverMode})
			if err == nil {
				n.tb.Cleanup(func() { l.Close() })
			}
			return err
		})
		if err != nil {
			n.tb.Fatalf("%s: attach an XDP program to %s: %v", n.Role, dev, err)
		}
	}
}

func passingProgram() (*ebpf.Program, error) {
	const name = "siskin_xdp_empty"
	spec, err := bpf.XDPSpec()
	if err != nil {
		return nil, err
	}
	p, err := ebpf.NewProgram(spec.Programs[name])
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	return p, nil
}
