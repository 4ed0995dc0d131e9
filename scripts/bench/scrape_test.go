package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGauges(t *testing.T) {
	const page = `# HELP siskin_map_memory_bytes Kernel memory of a BPF map.
# TYPE siskin_map_memory_bytes gauge
siskin_map_memory_bytes{map="flows"} 3.145728e+07
siskin_map_memory_bytes{map="gate"} 4096
# TYPE siskin_flow_table_entries gauge
siskin_flow_table_entries 3
`
	by, sum, err := gauges(strings.NewReader(page), "siskin_map_memory_bytes", "map")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"flows": 31457280, "gate": 4096}, by); diff != "" {
		t.Error(diff)
	}
	if sum != 31461376 {
		t.Errorf("together %v", sum)
	}
	// 0 would look like a measurement.
	if _, _, err := gauges(strings.NewReader(page), "siskin_map_bytes", "map"); err == nil {
		t.Error("a gauge that is not there was read")
	}
}

func TestResidentSet(t *testing.T) {
	got, err := residentSet(strings.NewReader("Name:\tsiskin\nVmPeak:\t  999 kB\nVmRSS:\t   12 kB\n"))
	if err != nil || got != 12288 {
		t.Errorf("%v, %v; want 12288", got, err)
	}
	if _, err := residentSet(strings.NewReader("Name:\tsiskin\n")); err == nil {
		t.Error("no VmRSS, and no error")
	}
}

func TestFlagLine(t *testing.T) {
	const help = `Flags:
      --redirect string   how packets go on (default "auto")
      --xdp strings       attach by XDP (not in this version)
`
	if got := flagLine(help, "--redirect"); !strings.Contains(got, "how packets go on") {
		t.Errorf("--redirect is explained by %q", got)
	}
	if got := flagLine(help, "--red"); got != "" {
		t.Errorf("--red is explained by %q", got)
	}
}

func TestDocuments(t *testing.T) {
	// No two services may share an address.
	seen := map[string]int{}
	for n := range 10_000 {
		for _, field := range strings.FieldsFunc(document(n, 10), func(r rune) bool { return r == '"' }) {
			if !strings.HasPrefix(field, "198.") {
				continue
			}
			if other, ok := seen[field]; ok {
				t.Fatalf("services %d and %d share %s", other, n, field)
			}
			seen[field] = n
		}
	}
	if len(seen) != 110_000 {
		t.Errorf("%d addresses, want 110,000", len(seen))
	}
}
