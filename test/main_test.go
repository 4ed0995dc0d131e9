// Package test holds the end-to-end tests: real namespaces, real servers and
// clients, and the siskin binary as a black box.
//
// They are run by root. SISKIN_BINARY names a binary to test; without it one
// is built. SISKIN_SEED repeats the random choices of a run.
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// Variables of the environment: which binary is tested, and where one is built
// if none is named.
const (
	binaryVariable = "SISKIN_BINARY"
	buildVariable  = "SISKIN_TEST_BUILD"
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := bed.TempDir()
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	os.Setenv(buildVariable, dir)
	return m.Run(), nil
}

// binary returns the path of the binary to test. The first test that asks
// builds it; the tests run one after the other.
func binary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(binaryVariable); path != "" {
		return path
	}
	path, err := build(os.Getenv(buildVariable), "end-to-end")
	if err != nil {
		t.Fatal(err)
	}
	os.Setenv(binaryVariable, path)
	return path
}

// build builds siskin with a version of its own.
func build(dir, version string) (string, error) {
	path := filepath.Join(dir, "siskin-"+version)
	cmd := exec.Command("go", "build", "-o", path, "-ldflags", "-X main.version="+version,
		"siskin.dev/siskin/cmd/siskin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build siskin: %w\n%s", err, out)
	}
	return path, nil
}

// steer starts the daemon that is tested in a host namespace.
func steer(t *testing.T, b *bed.Bed, host *bed.Namespace, interfaces []string, args ...string) *bed.Siskin {
	t.Helper()
	s := b.Siskin(host, bed.Options{Binary: binary(t), Interfaces: interfaces, Args: args})
	s.Start()
	return s
}
