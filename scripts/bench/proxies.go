package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"siskin.dev/siskin/scripts/bench/lab"
)

// The proxies take the connections at the frontend's address, so the host must
// have it. They run on as many threads as they choose, on every CPU.

type haproxy struct{ *setup }

func startHAProxy(u *setup, canary int) (balancer, error) {
	h := haproxy{u}
	config := fmt.Sprintf(`global
	maxconn 4096
	stats socket %s level admin
defaults
	mode tcp
	timeout connect 5s
	timeout client 60s
	timeout server 60s
listen split
	bind %v
	balance roundrobin
	server stable %v weight %d
	server canary %v weight %d
`, h.socket(), lab.Frontend, u.StableAt, 100-canary, u.CanaryAt, canary)
	path, err := u.write("haproxy.cfg", config)
	if err != nil {
		return nil, err
	}
	return h, u.proxy("haproxy", "-db", "-f", path)
}

func (h haproxy) socket() string { return filepath.Join(h.dir, "haproxy.sock") }

// shift speaks with HAProxy as its operators' tools do.
func (h haproxy) shift(canary int) error {
	return h.tell(fmt.Sprintf("set weight split/stable %d; set weight split/canary %d\n", 100-canary, canary))
}

func (h haproxy) tell(order string) error {
	c, err := net.Dial("unix", h.socket())
	if err != nil {
		return fmt.Errorf("ask haproxy: %w", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, order); err != nil {
		return fmt.Errorf("ask haproxy: %w", err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("ask haproxy: %w", err)
	}
	if text := strings.TrimSpace(string(answer)); text != "" {
		return fmt.Errorf("ask haproxy: %s", text)
	}
	return nil
}

type nginx struct{ *setup }

func startNginx(u *setup, canary int) (balancer, error) {
	n := nginx{u}
	path, err := n.config(canary)
	if err != nil {
		return nil, err
	}
	return n, u.proxy("nginx", "-p", u.dir, "-c", path)
}

func (n nginx) config(canary int) (string, error) {
	server := func(at any, weight int) string {
		if weight == 0 {
			return "" // it knows no weight of 0
		}
		return fmt.Sprintf("server %v weight=%d;", at, weight)
	}
	return n.write("nginx.conf", fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
daemon off;
worker_processes auto;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
stream {
	upstream split { %s %s }
	server { listen %v backlog=65535; proxy_pass split; }
}
`, n.dir, server(n.StableAt, 100-canary), server(n.CanaryAt, canary), lab.Frontend))
}

// shift writes the configuration anew, and the command tells the master.
func (n nginx) shift(canary int) error {
	path, err := n.config(canary)
	if err != nil {
		return err
	}
	_, err = n.Host.Run("", "nginx", "-p", n.dir, "-c", path, "-s", "reload")
	return err
}

// proxy starts a program and waits until it accepts.
func (u *setup) proxy(name string, args ...string) error {
	if err := u.Host.Own(lab.Frontend.Addr()); err != nil {
		return err
	}
	p, err := u.Host.Launch(lab.Any, false, name, args...)
	if err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := p.Running(); err != nil {
			return err
		}
		var c net.Conn
		err := u.Client.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", lab.Frontend.String(), time.Second)
			return err
		})
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s accepts nothing: %w", name, err)
		}
	}
}
