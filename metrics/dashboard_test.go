package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The dashboard asks for metrics and labels that there are, by the variables
// that it has, and its panels lie beside each other.
func TestDashboardKnowsTheMetrics(t *testing.T) {
	raw, err := os.ReadFile("../deploy/grafana/siskin.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("testdata/page.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(siskin_\w+)[{ ]`).FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
		known[strings.TrimSuffix(m[1], "_bucket")] = true // the native form
	}
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, "$"+v.Name)
	}
	if want := []string{"$datasource", "$service", "$interval"}; !slices.Equal(variables, want) {
		t.Errorf("variables %v, want %v", variables, want)
	}
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("panels %q and %q have the id %d", other, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x > 23 {
					t.Fatalf("panel %q lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`siskin_\w+`).FindAllString(target.Expr, -1) {
				if !known[name] {
					t.Errorf("panel %q asks for %s, which nobody exports", p.Title, name)
				}
			}
			for _, name := range regexp.MustCompile(`\$\w+`).FindAllString(target.Expr, -1) {
				if !slices.Contains(variables, name) {
					t.Errorf("panel %q asks by %s, which is no variable", p.Title, name)
				}
			}
		}
	}
}
