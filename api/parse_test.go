package api

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/steering"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file beside the input.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestBadDocumentsSayAllThatIsWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := Read(Source{Name: filepath.Base(file), Data: src})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v does not wrap ErrInvalid", err)
			}
			if docs != nil {
				t.Errorf("a bad file gave %d documents", len(docs))
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func TestGoodDocumentsGetTheirDefaults(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := Read(Source{Name: file, Data: src})
			if err != nil {
				t.Fatal(err)
			}
			out, err := json.MarshalIndent(docs, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			base := strings.TrimSuffix(file, ".yaml")
			golden(t, base+".json", string(out)+"\n")
			var warnings []string
			for _, w := range Warnings(docs) {
				warnings = append(warnings, w.String())
			}
			golden(t, base+".warnings.txt", strings.Join(warnings, "\n")+"\n")
		})
	}
}

func TestConflictsBetweenFilesNameBoth(t *testing.T) {
	one := Source{Name: "one.yaml", Data: []byte(minimal("checkout", "198.18.0.10:80/tcp"))}
	two := Source{Name: "two.yaml", Data: []byte(minimal("cart", "198.18.0.10:80/tcp"))}
	again := Source{Name: "again.yaml", Data: []byte(minimal("checkout", "198.18.0.12:80/tcp"))}
	_, err := Read(one, two, again)
	if err == nil {
		t.Fatal("accepted")
	}
	golden(t, "testdata/conflicts.txt", err.Error()+"\n")
}

func TestCarriageReturnsAndMarkers(t *testing.T) {
	text := "--- # first\n" + minimal("a", "198.18.0.1:80/tcp") + "\n...\n\n---\n---\n# empty\n--- {}\n"
	_, err := Read(Source{Name: "f", Data: []byte(strings.ReplaceAll(text, "\n", "\r\n"))})
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 1 {
		t.Fatalf("want exactly the complaint about {}, got %v", err)
	}
	if want := 1 + strings.Count(text[:strings.Index(text, "{}\n")], "\n"); strings.Contains(text, "{}") && ps[0].Line != want && want > 0 {
		t.Errorf("complaint in line %d, want %d: %v", ps[0].Line, want, ps[0])
	}
}

func TestSteeringShape(t *testing.T) {
	doc := minimal("a", "198.18.0.1:80/tcp")
	docs, err := Read(Source{Name: "f", Data: []byte(doc)})
	if err != nil {
		t.Fatal(err)
	}
	s := docs[0].Service.Steering()
	if s.Versions[0].Name != steering.Stable || s.Versions[1].Name != "another" {
		t.Errorf("stable is not first: %+v", s.Versions)
	}
	if s.Weights["another"] != 500 {
		t.Errorf("weight %d, want 500", s.Weights["another"])
	}
	if s.Frontends[0].String() != "198.18.0.1:80/tcp" {
		t.Errorf("frontend %v", s.Frontends[0])
	}
}

// minimal is a small service with a version whose name sorts before stable.
func minimal(name, frontend string) string {
	return `apiVersion: siskin.dev/v1alpha1
kind: Service
metadata:
  name: ` + name + `
spec:
  frontends:
  - ` + frontend + `
  versions:
    stable: {backends: ["10.1.0.2:8080"]}
    another: {backends: ["10.1.0.3:8080"]}
  weights: {another: 5%}`
}

func TestDeepNestingIsRefused(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 1<<20), strings.Repeat("{a: ", 1<<18), strings.Repeat("- ", 1<<19), strings.Repeat("? ", 1<<19)} {
		if _, err := Read(Source{Name: "deep", Data: []byte(text)}); err == nil {
			t.Errorf("%.10q… was accepted", text)
		}
	}
}
