package api

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzRead looks for input that panics, that is refused without a reason, or
// that changes when its documents are written and read again.
func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds in %s: %v", pattern, err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		docs, err := Read(Source{Name: "input", Data: src})
		var problems Problems
		if err != nil {
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("refused without a problem: %v", err)
			}
			return
		}
		first := write(t, docs)
		again, err := Read(Source{Name: "again", Data: first})
		if err != nil {
			t.Fatalf("what was written is not read again: %v\n%s", err, first)
		}
		if diff := cmp.Diff(string(first), string(write(t, again))); diff != "" {
			t.Fatalf("changed on the way:\n%s", diff)
		}
	})
}

// write puts the documents into one JSON stream.
func write(t *testing.T, docs []Document) []byte {
	t.Helper()
	var out []byte
	for _, d := range docs {
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, "---\n"...), append(b, '\n')...)
	}
	return out
}
