package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/api/apitest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"siskin": main})
}

// TestScripts runs testdata/script: the real command against a server whose
// Control is a fake. In a script,
//
//	serve         starts the server on $SOCKET
//	emit R O M    makes an event
//	stands FILE   makes a release stand as the JSON in a file says
//	exits N ARG…  runs siskin --socket $SOCKET ARG… and checks its exit code
func TestScripts(t *testing.T) {
	update := os.Getenv("UPDATE") != ""
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SOCKET", filepath.Join(e.WorkDir, "s.sock"))
			e.Setenv("TZ", "UTC")
			e.Values["control"] = fixture()
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"serve": serveCmd, "emit": emitCmd, "exits": exitsCmd, "stands": standsCmd},
	})
}

func fixture() *apitest.Control {
	c := apitest.New()
	c.Diagnosis = api.DoctorReport{Checks: []api.Check{{Name: "kernel", Status: "ok", Detail: "6.18, with tcx"},
		{Name: "bpffs", Status: "fail", Detail: "not mounted", Remedy: "mount -t bpf bpf /sys/fs/bpf"}}}
	flow := func(client, version, backend, state string, age, idle float64) api.FlowView {
		return api.FlowView{Client: client, Frontend: "198.18.0.10:80/tcp", Service: "checkout", Version: version, Backend: backend,
			State: state, AgeSeconds: age, IdleSeconds: idle, OpenedNs: 5, SourcePort: 40000}
	}
	c.FlowList = api.FlowList{Entries: 2, Capacity: 1024, Flows: []api.FlowView{
		flow("198.18.1.7:40000", "stable", "10.1.0.2:8080", api.FlowEstablished, 301.5, 0.25),
		flow("[2001:db8::7]:40000", "canary", "10.1.0.4:8080", api.FlowSyn, 0.0015, 0.0015),
	}}
	return c
}

func serveCmd(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := api.Listen(api.SocketOptions{Path: ts.Getenv("SOCKET")})
	ts.Check(err)
	s := api.NewServer(api.ServerOptions{Control: ts.Value("control").(*apitest.Control), Log: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	ts.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			ts.Logf("stop the server: %v", err)
		}
	})
}

func emitCmd(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value("control").(*apitest.Control).Emit(args[0], args[1], args[2])
}

func standsCmd(ts *testscript.TestScript, _ bool, args []string) {
	var v api.ReleaseView
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	ts.Value("control").(*apitest.Control).SetRelease(v)
}

func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var ended *exec.ExitError
	if err := ts.Exec("siskin", append([]string{"--socket", ts.Getenv("SOCKET")}, args[1:]...)...); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else if err != nil {
		ts.Fatalf("run siskin: %v", err)
	}
	if code != want {
		ts.Fatalf("siskin %q exits with %d, want %d", args[1:], code, want)
	}
}
