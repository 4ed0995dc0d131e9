package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/scripts/bench/lab"
)

// daemon is a siskin that runs in a namespace.
type daemon struct {
	*lab.Process
	bench *bench
	host  *lab.Space
	dir   string
	api   api.Client
}

// metricsAt is where daemons serve their metrics, inside their namespaces.
const metricsAt = "127.0.0.1:9464"

// startDaemon starts siskin and returns when it steers.
func (b *bench) startDaemon(host *lab.Space, dir string, args ...string) (*daemon, error) {
	d := &daemon{bench: b, host: host, dir: dir, api: api.Client{Socket: filepath.Join(dir, "siskin.sock")}}
	args = append([]string{"run", "--state-dir", filepath.Join(dir, "state"), "--bpffs", d.bpffs(),
		"--socket", d.api.Socket, "--listen", metricsAt, "--log-level", "warn"}, args...)
	var err error
	d.Process, err = host.Launch(lab.Any, true, b.Siskin, args...)
	return d, err
}

// bpffs is a directory of the box's own BPF file system.
func (d *daemon) bpffs() string { return filepath.Join("/sys/fs/bpf", filepath.Base(d.dir)) }

// uninstall takes everything of siskin out of the kernel.
func (d *daemon) uninstall() error {
	d.Stop()
	_, err := d.host.Run("", d.bench.Siskin, "uninstall", "--bpffs", d.bpffs())
	return err
}

// serviceName is what the one service of a triple is called.
const serviceName = "bench"

// steerer is siskin as one of the systems.
type steerer struct {
	*setup
	daemon *daemon
}

func startSiskin(args ...string) func(*setup, int) (balancer, error) {
	return startObserving("auto", args...)
}

// startObserving starts siskin with what it shall look for in connections.
func startObserving(what string, args ...string) func(*setup, int) (balancer, error) {
	return func(u *setup, canary int) (balancer, error) {
		d, err := u.bench.startDaemon(u.Host, u.dir, append([]string{"--interface", lab.ClientDev}, args...)...)
		if err != nil {
			return nil, err
		}
		doc := fmt.Sprintf(`apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: %s}
spec:
  frontends: ["%v/tcp"]
  affinity: connection
  observe: %s
  versions:
    stable: {backends: ["%v"]}
    canary: {backends: ["%v"]}
  weights: {canary: %d%%}
`, serviceName, lab.Frontend, what, u.StableAt, u.CanaryAt, canary)
		path, err := u.write("service.yaml", doc)
		if err != nil {
			return nil, err
		}
		s := steerer{u, d}
		return s, errors.Join(s.command("apply", "-f", path), s.check())
	}
}

// startWide gives siskin all source ports that the host can spare. The default
// range has 4,536, which the closed connections of a second fill.
func startWide(u *setup, canary int) (balancer, error) {
	if err := u.Host.Sysctl("net.ipv4.ip_local_port_range=1024 9999"); err != nil {
		return nil, err
	}
	return startSiskin("--source-ports", "10000-65535")(u, canary)
}

// startXDP attaches by XDP on all sides. The other ends have GRO on: else a veth
// takes nothing that XDP redirects to it.

// startXDP attaches by XDP on all sides. A veth takes what XDP redirects to it
// only while its other end has GRO on. And a frame that XDP redirects loses the
// note that its checksum is still to be written, so the ends write them.
func startXDP(u *setup, canary int) (balancer, error) {
	for _, far := range []*lab.Space{u.Client, u.Stable, u.Canary} {
		if _, err := far.Run("", "ethtool", "-K", "eth0", "gro", "on", "tx", "off"); err != nil {
			return nil, err
		}
	}
	return startSiskin("--xdp", lab.ClientDev+","+lab.StableDev+","+lab.CanaryDev)(u, canary)
}

// check makes sure that siskin sees the backends where they should be: by that
// it decides how packets go.
func (s steerer) check() error {
	backends, err := s.daemon.api.Backends(s.bench.ctx)
	if err != nil {
		return err
	}
	for _, b := range backends {
		if b.Path != string(s.Where) {
			return fmt.Errorf("siskin takes the %s backend %s for a %s one", s.Where, b.Address, b.Path)
		}
	}
	return nil
}

// command runs a command of siskin in the host's namespace.
func (s steerer) command(args ...string) error {
	_, err := s.Host.Run("", s.bench.Siskin, append(args, "--socket", s.daemon.api.Socket)...)
	return err
}

func (s steerer) shift(canary int) error {
	return s.command("weight", serviceName, fmt.Sprintf("canary=%d%%", canary))
}

// help is what `siskin run --help` says, by which a version tells what it can.
func (b *bench) help() (string, error) {
	out, err := exec.CommandContext(b.ctx, b.Siskin, "run", "--help").Output()
	if err != nil {
		return "", fmt.Errorf("ask siskin what it can: %w", err)
	}
	return string(out), nil
}

// flagLine finds the line that explains a flag; "" where there is none.
func flagLine(help, flag string) string {
	for line := range strings.Lines(help) {
		if first, _, _ := strings.Cut(strings.TrimSpace(line), " "); first == flag {
			return line
		}
	}
	return ""
}

func needsRedirect(b *bench) (string, error) {
	help, err := b.help()
	if flagLine(help, "--redirect") == "" {
		return "this siskin has no --redirect", err
	}
	return "", err
}

func needsXDP(b *bench) (string, error) {
	help, err := b.help()
	if line := flagLine(help, "--xdp"); line == "" || strings.Contains(line, "not in this version") {
		return "this siskin has no --xdp", err
	}
	return "", err
}
