package bpf_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"siskin.dev/siskin/bpf"
)

// objects are what a rig is made of: the programs and maps that the tests use,
// and all maps by their names. Loading the programs for interfaces without a
// link layer too would double the time.
type objects struct {
	set  map[string]any // constants and sizes that differ from the programs' own
	all  *ebpf.Collection
	onto map[string]*ebpf.Collection // the programs on XDP

	SiskinIngress *ebpf.Program `ebpf:"siskin_ingress"`
	SiskinEgress  *ebpf.Program `ebpf:"siskin_egress"`
	SiskinStart   *ebpf.Program `ebpf:"siskin_start"`
	SiskinEmpty   *ebpf.Program `ebpf:"siskin_empty"`
	SiskinHeard   *ebpf.Program `ebpf:"siskin_heard"`

	Gate      *ebpf.Map `ebpf:"gate"`
	Frontends *ebpf.Map `ebpf:"frontends"`
	Vips      *ebpf.Map `ebpf:"vips"`
	Echoes    *ebpf.Map `ebpf:"echoes"`
	Words     *ebpf.Map `ebpf:"words"`
	Leases    *ebpf.Map `ebpf:"leases"`
	Rooms     *ebpf.Map `ebpf:"rooms"`
	Events    *ebpf.Map `ebpf:"events"`
	Releases  *ebpf.Map `ebpf:"releases"`
	Cells     *ebpf.Map `ebpf:"cells"`
	Outcomes  *ebpf.Map `ebpf:"outcomes"`
	Successes *ebpf.Map `ebpf:"successes"`
	Breakers  *ebpf.Map `ebpf:"breakers"`
	Maglev    *ebpf.Map `ebpf:"maglev"`
	Backends  *ebpf.Map `ebpf:"backends"`
	Endpoints *ebpf.Map `ebpf:"endpoints"`
	Flows     *ebpf.Map `ebpf:"flows"`
	Aliases   *ebpf.Map `ebpf:"aliases"`
	Aging     *ebpf.Map `ebpf:"aging"`
	Counters  *ebpf.Map `ebpf:"counters"`
	Latencies *ebpf.Map `ebpf:"latencies"`
	Reasons   *ebpf.Map `ebpf:"reasons"`
	Tries     *ebpf.Map `ebpf:"tries"`
	Cutoffs   *ebpf.Map `ebpf:"cutoffs"`
	Cutting   *ebpf.Map `ebpf:"cutting"`

	Changes   *ebpf.Map `ebpf:"changes"`
	Pieces    *ebpf.Map `ebpf:"pieces"`
	Requests  *ebpf.Map `ebpf:"requests"`
	FlowIndex *ebpf.Map `ebpf:"flow_index"`
	Hops      *ebpf.Map `ebpf:"hops"`
}

// parked is what was loaded and is used by nobody now, the latest last. To load
// is to verify, which takes a second; to wipe takes a hundredth.
var parked []*objects

// parkedMost is how many of them are kept: each has some 40 MiB of maps.
const parkedMost = 6

// borrow returns objects as new. When the test ends they are wiped, and are the
// next test's that wants the same.
func borrow(t testing.TB, set map[string]any) *objects {
	t.Helper()
	at := slices.IndexFunc(parked, func(o *objects) bool { return maps.Equal(o.set, set) })
	var o *objects
	if at >= 0 {
		o = parked[at]
		parked = slices.Delete(parked, at, at+1)
	} else {
		var err error
		if o, err = loadObjects(set); err != nil {
			t.Fatal(explained(err))
		}
	}
	t.Cleanup(func() {
		if err := o.wipe(); err != nil {
			t.Error(err)
			o.close()
			return
		}
		if parked = append(parked, o); len(parked) > parkedMost {
			parked[0].close()
			parked = parked[1:]
		}
	})
	return o
}

// loadObjects loads the programs, with small maps.
func loadObjects(set map[string]any) (*objects, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	spec, err := bpf.Spec()
	if err != nil {
		return nil, err
	}
	o := &objects{set: maps.Clone(set), onto: map[string]*ebpf.Collection{}}
	if err := o.size(spec); err != nil {
		return nil, err
	}
	fields := o.fields()
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !fields[name].IsValid() })
	if o.all, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	for name, f := range fields {
		if p := o.all.Programs[name]; p != nil {
			f.Set(reflect.ValueOf(p))
		} else {
			f.Set(reflect.ValueOf(o.all.Maps[name]))
		}
	}
	return o, nil
}

// fields are those of o that have a name in the kernel's objects.
func (o *objects) fields() map[string]reflect.Value {
	all := map[string]reflect.Value{}
	v := reflect.ValueOf(o).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("ebpf"); name != "" {
			all[name] = v.Field(i)
		}
	}
	return all
}

// maps returns the maps by their names.
func (o *objects) maps() map[string]*ebpf.Map { return o.all.Maps }

// size sets sizes and constants.
func (o *objects) size(spec *ebpf.CollectionSpec) error {
	size := func(n uint32, names ...string) {
		for _, name := range names {
			spec.Maps[name].MaxEntries = n
		}
	}
	sizeFlows := func(n uint32) {
		size(n, "talks", "flows", "aliases", "vacant")
		size((n+2)/3, "flow_index")
	}
	sizeFlows(64)
	size(32, "frontends", "vips", "backends", "endpoints", "counters", "hops", "latencies", "services", "requests")
	size(64, "shortages")
	size(4096, "maglev")
	for name, value := range o.set {
		switch name {
		case "frontends":
			size(value.(uint32), "frontends", "vips")
		case "outcomes", "rooms":
			size(value.(uint32), name)
		case "flows":
			sizeFlows(value.(uint32))
		default:
			if err := spec.Variables[name].Set(value); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	return nil
}

// onXDP returns a program on XDP, which shares all maps.
func (o *objects) onXDP(name string) (*ebpf.Program, error) {
	if c := o.onto[name]; c != nil {
		return c.Programs[name], nil
	}
	spec, err := bpf.XDPSpec()
	if err != nil {
		return nil, err
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range o.maps() {
		if s := spec.Maps[name]; s != nil && name[0] != '.' { // constants are its own
			s.MaxEntries = m.MaxEntries()
			shared[name] = m
		}
	}
	for name, value := range o.set {
		if v := spec.Variables[name]; v != nil {
			if err := v.Set(value); err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	maps.DeleteFunc(spec.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	o.onto[name] = c
	return c.Programs[name], nil
}

func (o *objects) close() {
	o.all.Close()
	for _, c := range o.onto {
		c.Close()
	}
}

// explained is an error with all that the verifier says.
func explained(err error) string {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Sprintf("%+v", ve)
	}
	return err.Error()
}
