package bed

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Nginx is a real nginx with one server for each name.
type Nginx struct {
	bed *Bed
	dir string
}

// ServeNginx starts nginx with a server at each address, which answers with its
// name, and at /healthz as Sicken and Heal say. It ends with the test.
func (b *Bed) ServeNginx(at *Namespace, servers map[string]netip.AddrPort) *Nginx {
	b.tb.Helper()
	n := &Nginx{bed: b, dir: b.Path("nginx")}
	var blocks strings.Builder
	for name, addr := range servers {
		fmt.Fprintf(&blocks, `
  server {
    listen %s;
    location / { return 200 "%s"; }
    location = /healthz { alias %s/%s; }
  }`, addr, name, n.dir, name)
	}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		b.tb.Fatalf("make a place for nginx: %v", err)
	}
	for name := range servers {
		n.Heal(name)
	}
	conf := fmt.Sprintf(`daemon off; master_process off; user root; pid %[1]s/pid; error_log %[1]s/errors notice;
events {}
http {
  access_log %[1]s/access;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
%[2]s
}
`, n.dir, blocks.String())
	cmd := exec.Command("nginx", "-p", n.dir, "-c", b.Write("nginx.conf", conf))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := at.Start(cmd); err != nil {
		b.tb.Fatalf("start nginx (apt-get install nginx-light): %v", err)
	}
	b.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b.tb.Failed() {
			b.tb.Logf("nginx: %s%s", out.String(), n.Log("errors"))
		}
	})
	for _, addr := range servers {
		for end := time.Now().Add(Patience); ; time.Sleep(time.Millisecond) {
			c, err := at.Dial("tcp", netip.AddrPort{}, addr)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(end) {
				b.tb.Fatalf("nginx does not listen on %s: %v\n%s", addr, err, out.String())
			}
		}
	}
	return n
}

// Sicken makes a server's /healthz a 404.
func (n *Nginx) Sicken(name string) {
	n.bed.tb.Helper()
	if err := os.Remove(filepath.Join(n.dir, name)); err != nil {
		n.bed.tb.Fatalf("sicken %s: %v", name, err)
	}
}

// Heal makes it a 200.
func (n *Nginx) Heal(name string) {
	n.bed.tb.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte("fine\n"), 0o600); err != nil {
		n.bed.tb.Fatalf("heal %s: %v", name, err)
	}
}

// Log returns one of its logs: errors, access.
func (n *Nginx) Log(name string) string {
	raw, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
