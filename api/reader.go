package api

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// reader turns the nodes of one document into values. It goes on after a
// mistake, so that all of them are reported, and remembers where each field
// stands, so that later checks can name the line.
type reader struct {
	source
	subject  string // "service/checkout" as soon as the name is known
	places   map[string]Place
	problems Problems
}

// A field of a mapping: what reads its value.
type field struct {
	name     string
	required bool
	read     func(n ast.Node, path string)
}

// fail notes a problem at a node.
func (r *reader) fail(n ast.Node, path, format string, args ...any) {
	line, column := position(n)
	p := r.problem(line, column, fmt.Sprintf(format, args...))
	p.Object, p.Field = r.subject, path
	r.problems = append(r.problems, p)
}

// mark remembers where the field stands.
func (r *reader) mark(n ast.Node, path string) {
	line, column := position(n)
	r.places[path] = Place{File: r.file, Line: r.first + line - 1, Column: column}
}

// position is where a node begins. A block mapping's own token is the colon
// of its first entry, so its first key stands for it.
func position(n ast.Node) (line, column int) {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	var t *token.Token
	if n != nil {
		t = n.GetToken()
	}
	if t == nil || t.Position == nil {
		return 1, 1
	}
	return max(1, t.Position.Line), max(1, t.Position.Column)
}

// entries returns the keys and values of a mapping.
func (r *reader) entries(n ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		r.fail(n, path, "anchors, aliases and tags are not understood: write the value itself")
	default:
		r.fail(n, path, "must be a mapping, not %s", kindOf(n))
	}
	return nil, false
}

// each goes over a mapping. A key that comes twice is an error.
func (r *reader) each(n ast.Node, path string, read func(name string, e *ast.MappingValueNode, path string)) (ok bool) {
	entries, ok := r.entries(n, path)
	first := map[string]ast.Node{}
	for _, e := range entries {
		k, isText := e.Key.(*ast.StringNode)
		switch {
		case e.Key.IsMergeKey():
			r.fail(e.Key, path, "merge keys are not understood: write the fields themselves")
			continue
		case !isText:
			r.fail(e.Key, path, "%s cannot be the name of a field: write a text", e.Key.GetToken().Value)
			continue
		}
		at := join(path, k.Value)
		if before := first[k.Value]; before != nil {
			line, _ := position(before)
			r.fail(e.Key, at, "stands in line %d already: remove one of them", r.first+line-1)
			continue
		}
		first[k.Value] = e.Key
		read(k.Value, e, at)
	}
	return ok
}

// fields reads a mapping whose fields are known; any other is an error.
func (r *reader) fields(n ast.Node, path string, fields ...field) {
	seen := map[string]bool{}
	ok := r.each(n, path, func(name string, e *ast.MappingValueNode, at string) {
		seen[name] = true
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			meant, advice := suggest(name, fields)
			r.fail(e.Key, at, "unknown field: %s", advice)
			seen[meant] = true // one complaint is enough
			return
		}
		r.mark(e.Key, at)
		fields[i].read(e.Value, at)
	})
	for _, f := range fields {
		if ok && f.required && !seen[f.name] {
			r.fail(n, join(path, f.name), "is missing: add it")
		}
	}
}

// names reads a mapping whose keys are names that the user chose.
func (r *reader) names(n ast.Node, path string, read func(name string, v ast.Node, path string)) {
	r.each(n, path, func(name string, e *ast.MappingValueNode, at string) {
		r.mark(e.Key, at)
		read(name, e.Value, at)
	})
}

// list reads a sequence.
func (r *reader) list(n ast.Node, path string, read func(v ast.Node, path string)) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n, path, "must be a list, not %s", kindOf(n))
		return
	}
	for i, v := range s.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		r.mark(v, at)
		read(v, at)
	}
}

// text reads a string. A number or a truth value is refused: YAML may have
// read it as something else than what was written.
func (r *reader) text(n ast.Node, path string) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(s.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		r.fail(n, path, "must be a text, not %s: put %s in quotes", kindOf(n), n.GetToken().Value)
	default:
		r.fail(n, path, "must be a text, not %s", kindOf(n))
	}
	return "", false
}

// oneOf reads a string that is one of a few.
func (r *reader) oneOf(n ast.Node, path string, to *string, choices ...string) {
	s, ok := r.text(n, path)
	if !ok {
		return
	}
	if !slices.Contains(choices, s) {
		r.fail(n, path, "%q is not known: write %s", s, either(choices))
		return
	}
	*to = s
}

// integer reads a whole number within bounds.
func (r *reader) integer(n ast.Node, path string, least, most uint64) (uint64, bool) {
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		r.fail(n, path, "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	v, err := strconv.ParseUint(i.GetToken().Value, 10, 64)
	if err != nil || v < least || v > most {
		r.fail(n, path, "%s is out of range: write a number from %d to %d", i.GetToken().Value, least, most)
		return 0, false
	}
	return v, true
}

// duration reads a time above zero, as Go writes it.
func (r *reader) duration(n ast.Node, path string, to *Duration) {
	if _, ok := n.(*ast.IntegerNode); ok {
		r.fail(n, path, "has no unit: write %ss or %sms", n.GetToken().Value, n.GetToken().Value)
		return
	}
	s, ok := r.text(n, path)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.fail(n, path, "%q is not a duration: write it as in 500ms, 30s or 2m", s)
	case d <= 0:
		r.fail(n, path, "%s is not above zero", s)
	default:
		*to = Duration(d)
	}
}

// kindOf names a node's kind for people.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a fraction"
	case *ast.BoolNode:
		return "true or false"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "an anchor, alias or tag (write the value itself)"
	}
	return "this"
}

// suggest names the field that was probably meant, or all there are.
func suggest(name string, fields []field) (meant, advice string) {
	if len(fields) == 0 {
		return "", "there are none here, write {}"
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	best := slices.MinFunc(names, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	if d := distance(name, best); d <= 2 && d < len(best) {
		return best, "did you mean " + best + "?"
	}
	return "", "there are " + strings.Join(names, ", ")
}

// distance is how many letters must be changed, added or left out to make one
// word of the other; upper and lower case count as the same.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			same := diagonal
			if a[i] != b[j] {
				same++
			}
			row[j+1] = min(same, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}

func either(choices []string) string {
	if len(choices) == 1 {
		return choices[0]
	}
	return strings.Join(choices[:len(choices)-1], ", ") + " or " + choices[len(choices)-1]
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
