package health

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func rules() Rules {
	return Rules{
		Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
		StartInterval: 200 * time.Millisecond, StartFailures: 4,
	}
}

func TestStanding(t *testing.T) {
	for _, tc := range []struct {
		name    string
		from    State
		results string // + success, - failure
		want    string // after each: s starting, u up, d down
	}{
		{"what is up falls by three failures in a row", Up, "---", "uud"},
		{"a success between them begins anew", Up, "--+--+---", "uuuuuuuud"},
		{"what is down rises by two successes in a row", Down, "++", "du"},
		{"a failure between them begins anew", Down, "+-+-++", "dddddu"},
		{"and stays down meanwhile", Down, "----+-", "dddddd"},
		{"the first success ends the start", Starting, "--+", "ssu"},
		{"from then on fall counts, and not what was before", Starting, "---+---", "sssuuud"},
		{"too many failures end it, too", Starting, "----", "sssd"},
		{"and then rise counts", Starting, "----++", "sssddu"},
		{"flapping by halves changes nothing", Up, "-+--+-+--+", "uuuuuuuuuu"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, got := Standing{State: tc.from}, ""
			for _, r := range tc.results {
				s = s.After(r == '+', rules())
				got += s.State.String()[:1]
			}
			if got != tc.want {
				t.Errorf("%s by %s gives %s, want %s", tc.from, tc.results, got, tc.want)
			}
		})
	}
}

// Whatever comes, a state changes only by a full row of the other kind, and
// never back to starting.
func TestStandingNeedsAFullRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{Rise: rapid.IntRange(1, 4).Draw(t, "rise"), Fall: rapid.IntRange(1, 4).Draw(t, "fall"), StartFailures: rapid.IntRange(1, 4).Draw(t, "start")}
		s := Standing{State: State(rapid.IntRange(0, 2).Draw(t, "from"))}
		row := 0
		for _, ok := range rapid.SliceOf(rapid.Bool()).Draw(t, "results") {
			switch {
			case ok:
				row = max(row, 0) + 1
			default:
				row = min(row, 0) - 1
			}
			next := s.After(ok, r)
			if next.Row != row {
				t.Fatalf("the row is %d, want %d", next.Row, row)
			}
			need := map[State]int{Starting: 1, Down: r.Rise}[s.State]
			if next.State == Up && s.State != Up && row < need {
				t.Fatalf("up by %d successes, want %d", row, need)
			}
			need = map[State]int{Starting: r.StartFailures, Up: r.Fall}[s.State]
			if next.State == Down && s.State != Down && -row < need {
				t.Fatalf("down by %d failures, want %d", -row, need)
			}
			if next.State == Starting && s.State != Starting {
				t.Fatal("it starts again")
			}
			s = next
		}
	})
}

// A rise is told as the board's other backends allow.
func TestBoard(t *testing.T) {
	type told []string // "1u" backend 1 is up, after each result
	for _, tc := range []struct {
		name    string
		from    []State
		results []string // "1+" backend 1 answers
		want    []told
	}{
		{"a fall is told at once", []State{Up, Up}, []string{"0-", "0-", "0-"}, []told{{}, {}, {"0d"}}},
		{"the last one's, too", []State{Up}, []string{"0-", "0-", "0-"}, []told{{}, {}, {"0d"}}},
		{"a rise beside one that is up is told at once", []State{Up, Starting, Starting}, []string{"1+"}, []told{{"1u"}}},
		{"new ones wait for each other's first answer", []State{Starting, Starting, Starting}, []string{"1+", "0+", "2+"}, []told{{}, {}, {"0u", "1u", "2u"}}},
		{"also when that is a failure", []State{Starting, Starting}, []string{"1+", "0-"}, []told{{}, {"1u"}}},
		{"but no longer than to their next probe", []State{Starting, Starting}, []string{"1+", "1+"}, []told{{}, {"1u"}}},
		{"who is down is waited for when it has begun to answer", []State{Down, Down}, []string{"0+", "1+", "0+", "1+"}, []told{{}, {}, {}, {"0u", "1u"}}},
		{"and not when it has not", []State{Down, Down}, []string{"0+", "1-", "0+"}, []told{{}, {}, {"0u"}}},
		{"nor when it stops again", []State{Down, Down}, []string{"0+", "1+", "0+", "1-"}, []told{{}, {}, {}, {"0u"}}},
		{"who falls while it waits was never up", []State{Starting, Starting}, []string{"0+", "0-", "0-", "0-"}, []told{{}, {"0u"}, {}, {"0d"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &board{}
			for i, s := range tc.from {
				b.entries = append(b.entries, &entry{
					backend:  Backend{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i))},
					standing: Standing{State: s}, report: Report{State: s},
				})
			}
			for i, result := range tc.results {
				errText := map[byte]string{'+': "", '-': "refused"}[result[1]]
				b.entries[result[0]-'0'].hear(errText, time.Unix(int64(i), 0), 0, rules())
				got := told{}
				for _, ch := range b.settle() {
					got = append(got, string(rune('0'+ch.Addr.Port()))+ch.To.String()[:1])
				}
				if d := cmp.Diff(tc.want[i], got); d != "" {
					t.Errorf("after %v: %s", tc.results[:i+1], d)
				}
			}
		})
	}
}
