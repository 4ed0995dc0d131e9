package steering

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"siskin.dev/siskin/bpf"
)

func genShares(t *rapid.T, label string) [4]Share {
	left, out := int(Whole), [4]Share{}
	for i := range out {
		s := rapid.IntRange(0, left).Draw(t, label)
		out[i], left = Share(s), left-s
	}
	return out
}

func TestWordPacksAndPicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shares, epoch := genShares(t, "share"), rapid.Uint8().Draw(t, "epoch")
		w, err := MakeWord(shares, epoch)
		if err != nil || w.Shares() != shares || w.Epoch() != epoch {
			t.Fatalf("%v %v %d became %v %d", err, shares, epoch, w.Shares(), w.Epoch())
		}
		var got [slots]Share
		for b := range uint16(Whole) {
			got[w.Pick(b)]++
		}
		for slot := range uint8(slots) {
			if got[slot] != w.Share(slot) {
				t.Fatalf("slot %d of %v has %d buckets", slot, shares, got[slot])
			}
		}
		next, err := w.Next(genShares(t, "next"))
		if err != nil || (next != w) != (next.Shares() != shares) || next != w && next.Epoch() != epoch+1 {
			t.Fatalf("%x follows %x: %v", next, w, err)
		}
		if z := w.Zeroed(); !z.IsZero() || z.Share(0) != Whole || w.IsZero() && z != w {
			t.Fatalf("zeroed %x", z)
		}
	})
}

// With two versions beside stable, a change of one only moves buckets between
// that version and stable.
func TestWeightsMoveOnlyToAndFromStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.IntRange(0, int(Whole)).Draw(t, "other")
		slot := rapid.IntRange(1, 2).Draw(t, "slot")
		var words [2]Word
		for i := range words {
			var s [4]Share
			s[2-slot] = Share(a)
			s[slot-1] = Share(rapid.IntRange(0, int(Whole)-a).Draw(t, "share"))
			words[i], _ = MakeWord(s, 0)
		}
		up := words[1].Share(uint8(slot)) >= words[0].Share(uint8(slot))
		for b := range uint16(Whole) {
			x, y := words[0].Pick(b), words[1].Pick(b)
			if !up {
				x, y = y, x
			}
			if x != y && (x != 0 || y != uint8(slot)) {
				t.Fatalf("bucket %d moved from %d to %d", b, x, y)
			}
		}
	})
}

func TestMakeWordRefusesMoreThanTheWhole(t *testing.T) {
	for _, s := range [][4]Share{{10001}, {5000, 5001}, {math.MaxUint16, math.MaxUint16, math.MaxUint16, math.MaxUint16}} {
		if _, err := MakeWord(s, 0); !errors.Is(err, ErrOverWhole) {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func genMembers(t *rapid.T, most int, weight *rapid.Generator[int]) []Member {
	hosts := rapid.SliceOfNDistinct(rapid.IntRange(1, 5000), 1, most, rapid.ID[int]).Draw(t, "hosts")
	out := make([]Member, len(hosts))
	for i, h := range hosts {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(h >> 8), byte(h)}), 8080)
		out[i] = Member{ID: uint32(h), Addr: addr, Weight: uint32(weight.Draw(t, "weight"))}
	}
	return out
}

func countIDs(table []uint32) map[uint32]int {
	out := map[uint32]int{}
	for _, id := range table {
		out[id]++
	}
	return out
}

func TestMaglevSharesAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t, 20, rapid.IntRange(0, 100))
		table, err := MaglevTable(members, 0)
		var total uint64
		for _, m := range members {
			total += uint64(m.Weight)
		}
		if total == 0 {
			if !errors.Is(err, ErrNoWeight) {
				t.Fatalf("all weights zero: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		counts := countIDs(table)
		for _, m := range members {
			exact := float64(m.Weight) * float64(len(table)) / float64(total)
			if got := float64(counts[m.ID]); math.Abs(got-exact) >= 1 || m.Weight > 0 && got == 0 {
				t.Fatalf("weight %d of %d has %v of %d entries", m.Weight, total, got, len(table))
			}
		}
		if counts[0] > 0 {
			t.Fatalf("%d entries are empty", counts[0])
		}
		again, err := MaglevTable(rapid.Permutation(members).Draw(t, "order"), 0)
		if err != nil || !slices.Equal(table, again) {
			t.Fatal("the table depends on the order of the members")
		}
	})
}

// Beside the entries of the one that goes away, few change hands: the bound on
// one set is for unlucky permutations, that on all is what to expect. The sets
// are always the same.
func TestMaglevRemovalMovesFew(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{2, 3, 4, 7, 11, 20, 41, 100} {
		const sets = 40
		var sum float64
		for range sets {
			members := make([]Member, n)
			for i, h := range random.Perm(1 << 16)[:n] {
				addr := netip.AddrFrom4([4]byte{10, 1, byte(h >> 8), byte(h)})
				members[i] = Member{ID: uint32(i + 1), Addr: netip.AddrPortFrom(addr, 8080), Weight: 1}
			}
			before, err := MaglevTable(members, 0)
			must(t, err)
			after, err := MaglevTable(members[1:], uint32(len(before)))
			must(t, err)
			if len(before) != len(after) {
				t.Fatalf("%d and %d members have tables of %d and %d", n, n-1, len(before), len(after))
			}
			moved := 0
			for i := range before {
				if before[i] != 1 && before[i] != after[i] {
					moved++
				}
			}
			part := float64(moved) / float64(len(before))
			if part > 0.05 {
				t.Errorf("%d members: %.1f%% of the entries moved between those that stay", n, 100*part)
			}
			sum += part
		}
		if sum/sets > 0.02 {
			t.Errorf("%d members: %.1f%% of the entries move on average", n, 100*sum/sets)
		}
	}
}

// Who rests and who comes back moves only its own entries, however many rest,
// and the others stand in by their weights.
func TestMaglevStandIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t, 20, rapid.IntRange(1, 10))
		rest := func(label string) (out []Member, resting map[uint32]bool) {
			out, resting = slices.Clone(members), map[uint32]bool{}
			awake := rapid.IntRange(0, len(out)-1).Draw(t, "awake")
			for i := range out {
				out[i].Rests = i != awake && rapid.Bool().Draw(t, label)
				resting[out[i].ID] = out[i].Rests
			}
			return out, resting
		}
		table := func(members []Member) []uint32 {
			out, err := MaglevTable(members, 0)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		full := table(members)
		before, asleep := rest("before")
		was := table(before)
		after := slices.Clone(before)
		i := rapid.IntRange(0, len(after)-1).Draw(t, "who")
		after[i].Rests = !after[i].Rests
		if !slices.ContainsFunc(after, func(m Member) bool { return !m.Rests }) {
			return
		}
		is, who := table(after), after[i].ID
		for entry := range full {
			switch {
			case asleep[was[entry]]:
				t.Fatalf("entry %d leads to %d, which rests", entry, was[entry])
			case !asleep[full[entry]] && was[entry] != full[entry]:
				t.Fatalf("entry %d moved from %d, which does not rest", entry, full[entry])
			case was[entry] != is[entry] && was[entry] != who && is[entry] != who:
				t.Fatalf("%d changed, and entry %d moved from %d to %d", who, entry, was[entry], is[entry])
			}
		}
	})
}

// Of ten members of different weights three rest: the others have their parts.
func TestMaglevStandInByWeight(t *testing.T) {
	var members []Member
	var total float64
	for i := range 10 {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		m := Member{ID: uint32(i + 1), Addr: netip.AddrPortFrom(addr, 8080), Weight: uint32(i%3 + 1), Rests: i < 3}
		members = append(members, m)
		if !m.Rests {
			total += float64(m.Weight)
		}
	}
	table, err := MaglevTable(members, 16381)
	must(t, err)
	counts := countIDs(table)
	for _, m := range members {
		want := float64(m.Weight) / total
		if m.Rests {
			want = 0
		}
		if got := float64(counts[m.ID]) / float64(len(table)); math.Abs(got-want) > 0.01 {
			t.Errorf("member %d of weight %d has %.3f of the entries, want %.3f", m.ID, m.Weight, got, want)
		}
	}
}

func TestTableSize(t *testing.T) {
	of := func(weights ...uint32) (out []Member) {
		for i, w := range weights {
			out = append(out, Member{ID: uint32(i + 1), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1), Weight: w})
		}
		return out
	}
	many := make([]uint32, 65522)
	for i := range many {
		many[i] = 1
	}
	for _, tc := range []struct {
		members []Member
		want    uint32
		err     error
	}{
		{of(1), 1, nil}, {of(1, 1), 1021, nil}, {of(1, 1, 1), 1021, nil}, {of(1, 0, 1), 1021, nil}, {of(0, 7), 1, nil},
		{of(many[:40]...), 4093, nil}, {of(many[:163]...), 16381, nil}, {of(many[:700]...), 65521, nil},
		{of(1, 999), 1021, nil}, {of(1, 1_000_000), 65521, nil}, {of(many[:60000]...), 65521, nil},
		{of(0, 0), 0, ErrNoWeight}, {nil, 0, ErrNoWeight}, {of(many...), 0, ErrTooManyBackends},
	} {
		got, err := TableSize(tc.members)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%d members: %d, %v; want %d, %v", len(tc.members), got, err, tc.want, tc.err)
		}
	}
}

// The numbers come from the definition written in C. They must never change, or
// a new build moves every client.
func TestHashesAreTheKernels(t *testing.T) {
	front := Frontend{netip.MustParseAddrPort("198.18.0.10:443"), UDP}
	for _, tc := range []struct {
		key    Key
		bucket uint16 // salt 7
		index  uint32 // of 1021
	}{
		{ClientKey(netip.MustParseAddr("198.18.0.99")), 5110, 566},
		{ClientKey(netip.MustParseAddr("::ffff:198.18.0.99")), 5110, 566},
		{ConnectionKey(netip.MustParseAddrPort("198.18.0.99:50123"), front, 9), 563, 291},
		{ClientKey(netip.MustParseAddr("2001:db8::77")), 4265, 815},
		{ConnectionKey(netip.MustParseAddrPort("[2001:db8::77]:50123"), front, 9), 9900, 547},
	} {
		if b, i := tc.key.Bucket(7), tc.key.Index(1021); b != tc.bucket || i != tc.index {
			t.Errorf("%+v: bucket %d, index %d; want %d, %d", tc.key, b, i, tc.bucket, tc.index)
		}
	}
}

func TestBucketsAreEven(t *testing.T) {
	seen := map[uint16]int{}
	const clients = 50000
	for i := range clients {
		a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		seen[ClientKey(a).Bucket(7)/1000]++
	}
	for tenth, n := range seen {
		// Five standard deviations of a binomial of 50,000 at 0.1.
		if math.Abs(float64(n)-clients/10) > 5*math.Sqrt(clients*0.1*0.9) {
			t.Errorf("tenth %d has %d of %d clients", tenth, n, clients)
		}
	}
}

func TestIDsRestBeforeTheyComeAgain(t *testing.T) {
	src := idSource{what: "things", limit: 5}
	used := map[uint32]bool{}
	take := func() uint32 {
		id, err := src.take(func(id uint32) bool { return used[id] })
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var got []uint32
	for range 6 {
		got = append(got, take())
	}
	if !slices.Equal(got, []uint32{1, 2, 3, 4, 1, 2}) {
		t.Errorf("ids %v", got)
	}
	used = map[uint32]bool{1: true, 2: true, 3: true, 4: true}
	if _, err := src.take(func(id uint32) bool { return used[id] }); !errors.Is(err, ErrFull) {
		t.Errorf("a full map: %v", err)
	}
}

func TestFindRun(t *testing.T) {
	run := func(offset, length uint32) bpf.Table { return bpf.Table{Offset: offset, Length: length} }
	for _, tc := range []struct {
		busy   []bpf.Table
		length uint32
		want   uint32
		full   bool
	}{
		{nil, 100, 0, false},
		{nil, 101, 0, true},
		{[]bpf.Table{run(50, 50), run(0, 20)}, 30, 20, false},
		{[]bpf.Table{run(50, 50), run(0, 20)}, 31, 0, true},
		{[]bpf.Table{run(0, 20), run(30, 10)}, 60, 40, false},
	} {
		sortRuns(tc.busy)
		got, err := findRun(tc.busy, 100, tc.length)
		if errors.Is(err, ErrFull) != tc.full || err == nil && got != run(tc.want, tc.length) {
			t.Errorf("%v: %+v, %v", tc, got, err)
		}
	}
}

func ExampleShare_String() {
	fmt.Println(Share(1), Share(500), Share(1250))
	// Output: 0.01% 5% 12.5%
}
