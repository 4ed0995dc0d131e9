package api_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// TestChild is no test: it is what TestRootPeerCredentials runs as another
// user. It reads, then writes, and prints what became of it.
func TestChild(t *testing.T) {
	path := os.Getenv("SISKIN_TEST_SOCKET")
	if path == "" {
		t.Skip("runs as the child of TestRootPeerCredentials only")
	}
	c := api.Client{Socket: path}
	say := func(what string, err error) {
		switch {
		case err == nil:
			what += ":ok"
		case errors.Is(err, api.ErrForbidden):
			what += ":forbidden:" + err.Error()
		default:
			what += ":failed:" + err.Error()
		}
		if _, err := os.Stdout.WriteString("CHILD " + what + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Services(context.Background())
	say("read", err)
	_, err = c.SetWeights(context.Background(), "checkout", map[string]steering.Share{"canary": 0})
	say("write", err)
	docs, err := api.Read(api.Source{Name: "exec.yaml", Data: []byte(checkout + "  healthCheck: {exec: {command: [/bin/true]}}\n")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Apply(context.Background(), docs, true)
	say("run", err)
}

func TestRootPeerCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become other users")
	}
	const group, writer = 42420, 42429
	dir, err := os.MkdirTemp("", "siskin-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "run", "siskin.sock")
	c, log := serve(t, api.SocketOptions{Path: path, Group: "42420"}, api.ServerOptions{Writers: []uint32{writer}})
	if _, err := c.Apply(t.Context(), read(t, checkout), false); err != nil {
		t.Fatal(err)
	}
	const (
		ok        = ":ok"
		nobody    = ":forbidden:forbidden: you may not use" // the directory's mode
		notMember = ":forbidden:forbidden: uid 42421 may not read: only root and the users [42429] and members of group 42420 may"
		notRoot   = ":forbidden:forbidden: uid 42421 may not change anything: only root and the users [42429] may"
		asRoot    = ":forbidden:forbidden: the commands in service/checkout would run as the daemon's user: only root may apply it"
	)
	for _, tc := range []struct {
		name             string
		cred             syscall.Credential
		loose            bool // the modes let everybody connect
		read, write, run string
	}{
		{"root", syscall.Credential{}, false, ok, ok, ok},
		{"member by primary group", syscall.Credential{Uid: 42421, Gid: group}, false, ok, notRoot, notRoot},
		{"member by another group", syscall.Credential{Uid: 42421, Gid: 42421, Groups: []uint32{7, group}}, false, ok, notRoot, notRoot},
		{"stranger", syscall.Credential{Uid: 42421, Gid: 42421}, false, nobody, nobody, nobody},
		{"stranger, loose modes", syscall.Credential{Uid: 42421, Gid: 42421, Groups: []uint32{0}}, true, notMember, notRoot, notRoot},
		{"listed writer, loose modes", syscall.Credential{Uid: writer, Gid: 42421}, true, ok, ok, asRoot},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.loose {
				if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil {
					t.Fatal(err)
				}
			}
			out := child(t, tc.cred, path)
			for what, want := range map[string]string{"read": tc.read, "write": tc.write, "run": tc.run} {
				if !strings.Contains(out, "CHILD "+what+want) {
					t.Errorf("want %s%s, got:\n%s", what, want, out)
				}
			}
		})
	}
	if n := strings.Count(log.String(), "uid=42421"); n != 7 {
		t.Errorf("%d lines about the seven refusals that reached the server:\n%s", n, log)
	}
}

// child runs TestChild as another user. /proc/self/exe leads to the binary
// past directories that the user may not enter.
func child(t *testing.T, cred syscall.Credential, socket string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{"SISKIN_TEST_SOCKET=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return string(out)
}
