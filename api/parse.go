package api

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	yaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

const (
	// maxSource bounds a file and a request: 100,000 backends fit.
	maxSource = 8 << 20
	// maxNesting bounds brackets inside brackets, lists that begin on one line,
	// and maxIndent the blanks before a line: the YAML parser recurses, and
	// needs gigabytes for a line of a million dashes.
	maxNesting = 64
	maxIndent  = 256
)

// Parse reads the documents of one file, YAML or JSON, and fills in their
// defaults. Each document is checked in itself; Check looks at them together.
//
// The error is Problems with everything that is wrong in the file. The
// documents are then the readable ones, for Check to find yet more; they must
// not be applied.
func Parse(file string, src []byte) ([]Document, error) {
	if p := unreadable(file, src); p != nil {
		return nil, Problems{*p}
	}
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	var docs []Document
	var problems Problems
	for _, part := range split(file, string(src)) {
		body, p := part.syntax()
		if p != nil {
			problems = append(problems, *p)
			continue
		}
		if body == nil {
			continue // only comments
		}
		r := &reader{source: part, places: map[string]Place{}}
		if doc := r.document(body); doc != nil {
			docs = append(docs, *doc)
		}
		problems = append(problems, r.problems...)
	}
	if len(docs) == 0 && len(problems) == 0 {
		problems = Problems{{Place: Place{File: file}, Problem: "holds no document: write one that begins with apiVersion: " + APIVersion}}
	}
	return docs, problems.orNil()
}

// unreadable finds what must not reach the YAML parser.
func unreadable(file string, src []byte) *Problem {
	fail := func(offset int, format string, args ...any) *Problem {
		line := 1 + bytes.Count(src[:offset], []byte("\n"))
		column := 1 + offset - (bytes.LastIndexByte(src[:offset], '\n') + 1)
		return &Problem{Place: Place{File: file, Line: line, Column: column}, Problem: fmt.Sprintf(format, args...)}
	}
	if len(src) > maxSource {
		return &Problem{Place: Place{File: file}, Problem: fmt.Sprintf("is larger than %d MiB: split it into several files", maxSource>>20)}
	}
	depth, blanks, marks := 0, 0, 0
	for i := 0; i < len(src); {
		c, size := utf8.DecodeRune(src[i:])
		switch c {
		case ' ':
			blanks++
		case '-', '?', ':', '!', '&':
			blanks = 0
			marks++
		default:
			blanks, marks = 0, 0
		}
		switch {
		case c == utf8.RuneError && size == 1:
			return fail(i, "is not UTF-8: save the file as UTF-8")
		case c < ' ' && c != '\n' && c != '\t' && c != '\r', c == 0x7f:
			return fail(i, "holds the control character %U: remove it", c)
		case blanks > maxIndent:
			return fail(i, "has more than %d blanks in a row: indent less", maxIndent)
		case marks > maxNesting:
			return fail(i, "lists are nested more than %d deep: no document needs that", maxNesting)
		case c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return fail(i, "brackets are nested more than %d deep: no document needs that", maxNesting)
			}
		case c == ']' || c == '}':
			depth = max(0, depth-1)
		}
		i += size
	}
	return nil
}

// source is one document's part of a file.
type source struct {
	file  string
	first int      // line number of lines[0] in the file
	lines []string // without the --- that begins it
}

// split cuts a file at its document markers. It does so before the YAML
// parser sees it, which stops at an empty document and would lose the rest.
// A marker at the beginning of a line is one in every context (YAML 1.2.2,
// 9.1.2).
func split(file, text string) []source {
	var out []source
	lines := strings.Split(text, "\n")
	part := source{file: file, first: 1}
	for i, line := range lines {
		rest, start := marker(line, "---")
		_, end := marker(line, "...")
		if !start && !end {
			part.lines = append(part.lines, line)
			continue
		}
		out = append(out, part)
		part = source{file: file, first: i + 1, lines: []string{""}}
		if start {
			part.lines[0] = rest // keep the columns
		}
	}
	return append(out, part)
}

// marker tells whether line is the marker m, and what follows it, with the
// marker blanked.
func marker(line, m string) (rest string, ok bool) {
	after, ok := strings.CutPrefix(line, m)
	if !ok || after != "" && after[0] != ' ' && after[0] != '\t' {
		return "", false
	}
	return strings.Repeat(" ", len(m)) + after, true
}

// syntax parses the part; nil without a problem means that it is empty.
func (s source) syntax() (ast.Node, *Problem) {
	text := strings.Join(s.lines, "\n")
	if blank(s.lines) {
		return nil, nil
	}
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey()) // the reader finds them, in linear time
	var wrong *yaml.SyntaxError
	switch {
	case errors.As(err, &wrong):
		line, column := 1, 1
		if wrong.Token != nil && wrong.Token.Position != nil {
			line, column = wrong.Token.Position.Line, wrong.Token.Position.Column
		}
		p := s.problem(line, column, "is not YAML: "+reword(wrong.Message)+hint(s.line(line)))
		return nil, &p
	case err != nil:
		p := s.problem(1, 1, "is not YAML: "+reword(err.Error()))
		return nil, &p
	}
	if len(file.Docs) == 1 && file.Docs[0].Body != nil {
		return file.Docs[0].Body, nil
	}
	p := s.problem(1, 1, "is not YAML that can be read: write one mapping that begins with apiVersion: "+APIVersion)
	return nil, &p
}

// blank tells whether the lines hold nothing but comments.
func blank(lines []string) bool {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			return false
		}
	}
	return true
}

// hint explains the two mistakes that the YAML parser words worst.
func hint(line string) string {
	switch {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		return "; indent with spaces"
	case strings.Contains(line, "]:") && strings.Contains(line, "::"):
		return "; write IPv6 addresses in quotes, as in \"[2001:db8::10]:80/tcp\""
	}
	return ""
}

func (s source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// problem makes a Problem at a line and column of the part.
func (s source) problem(line, column int, text string) Problem {
	return Problem{
		Place:   Place{File: s.file, Line: s.first + line - 1, Column: column},
		Problem: text,
		Excerpt: excerpt(s.line(line), column),
	}
}

// excerpt shortens a long line to what stands around the column.
func excerpt(line string, column int) string {
	const most = 72
	runes := []rune(line)
	if len(runes) <= most {
		return strings.TrimSpace(line)
	}
	from := min(max(0, column-1-most/2), len(runes)-most)
	out := strings.TrimSpace(string(runes[from : from+most]))
	if from > 0 {
		out = "…" + out
	}
	if from+most < len(runes) {
		out += "…"
	}
	return out
}

// reword puts a message of the YAML parser into one line.
func reword(message string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(message, "\t", `\t`)), " ")
}
