package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"siskin.dev/siskin/bpf"
)

const (
	// starter is the program that arms the timer.
	starter = "siskin_start"
	// hearer is the program that is told of answers.
	hearer = "siskin_heard"
	// xdpProgram is the one that takes packets at the driver. It is of another
	// object, and works on the same maps.
	xdpProgram = "siskin_xdp"
)

// spec returns built-in programs and maps with the options set in them.
func (l *Loader) spec(read func() (*ebpf.CollectionSpec, error)) (*ebpf.CollectionSpec, error) {
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read the built-in programs: %w", err)
	}
	for name, value := range map[string]any{
		"port_min": l.opts.PortMin, "port_max": l.opts.PortMax, "flow_seed": l.seed,
	} {
		if err := setConstant(spec, name, value); err != nil {
			return nil, err
		}
	}
	l.opts.Sizes.apply(spec)
	return spec, nil
}

// loadProgram loads one of the programs, and the maps that are not given. The
// maps are in the collection that it returns. The verifier takes up to seconds
// for a program, so only what is used is loaded.
func loadProgram(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, name string) (*ebpf.Collection, error) {
	program := spec.Programs[name]
	if program == nil {
		return nil, fmt.Errorf("this build has no program %s", name)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{name: program}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		if _, refused := errors.AsType[*ebpf.VerifierError](err); refused {
			return nil, fmt.Errorf("the kernel's verifier refused a program; siskin needs Linux 6.1 or newer, "+
				"please report this with the output of `siskin doctor`: %w", err)
		}
		return nil, fmt.Errorf("load programs and maps: %w", err)
	}
	return coll, nil
}

// onMaps loads a program that works on the loaded maps.
func (l *Loader) onMaps(name string) (*ebpf.Program, error) {
	read := bpf.Spec
	if name == xdpProgram {
		read = bpf.XDPSpec
	}
	spec, err := l.spec(read)
	if err != nil {
		return nil, err
	}
	// The constants are each object's own, and go with the program.
	shared := make(map[string]*ebpf.Map)
	for name, ms := range spec.Maps {
		if m := l.maps[name]; m != nil && lasting(name) {
			ms.MaxEntries = m.MaxEntries()
			shared[name] = m
		}
	}
	coll, err := loadProgram(spec, shared, name)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
}

// addPrograms loads programs side by side: the kernel verifies each on a
// processor of its own.
func (l *Loader) addPrograms(names ...string) error {
	loaded := make([]*ebpf.Program, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			loaded[i], err = l.onMaps(name)
			return err
		})
	}
	err := group.Wait()
	for i, name := range names {
		if loaded[i] != nil {
			l.programs[name] = loaded[i]
		}
	}
	return err
}

// program returns a loaded program, and loads it first where need be.
func (l *Loader) program(name string) (*ebpf.Program, error) {
	if l.programs[name] == nil {
		if err := l.addPrograms(name); err != nil {
			return nil, err
		}
	}
	return l.programs[name], nil
}

// setConstant sets one of the programs' constants; one that the compiler found
// no use for is absent.
func setConstant(spec *ebpf.CollectionSpec, name string, value any) error {
	v, ok := spec.Variables[name]
	if !ok {
		return nil
	}
	if err := v.Set(value); err != nil {
		return fmt.Errorf("set the programs' constant %s: %w", name, err)
	}
	return nil
}

// Start arms the kernel timer that ages flows. After an upgrade it makes the
// timer run this build's code; the flows stay.
func (l *Loader) Start() error {
	// The program reads no packet, but a tc program is not run without one.
	ret, err := l.programs[starter].Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		return fmt.Errorf("start the aging of flows: %w", err)
	}
	if int32(ret) != 0 {
		return fmt.Errorf("start the aging of flows: the kernel said %d", int32(ret))
	}
	return nil
}

// Hearer returns the program that bpf.Tell runs. It is valid until Close.
func (l *Loader) Hearer() *ebpf.Program { return l.programs[hearer] }
