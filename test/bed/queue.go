package bed

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// QueueByFlow lets the packets of a flow stay in their order on all links that
// there are. A veth hands them to the CPU of whoever sent them, so a flow whose
// sender moves to another CPU overtakes itself; a real card has a queue for all
// of a flow, as these have then.
func (b *Bed) QueueByFlow() {
	b.tb.Helper()
	for role, n := range b.spaces {
		dir := b.Path("sys-" + role)
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.tb.Fatal(err)
		}
		err := n.Do(func() error { return queueByFlow(dir) })
		if err != nil {
			b.tb.Fatalf("%s: queue packets by flow: %v", role, err)
		}
	}
}

// Windows bounds what may be under way on a connection, so that some of them do
// not fill the queue of a veth, which loses packets then.
func (r *Routed) Windows(bytes int) {
	r.tb.Helper()
	for _, n := range []*Namespace{r.Client, r.Near, r.Remote, r.Far} {
		n.Sysctl("net.ipv4.tcp_rmem", fmt.Sprintf("4096 %[1]d %[1]d", bytes))
	}
}

// Retransmitted is how many TCP segments the namespace has sent again.
func (n *Namespace) Retransmitted() int {
	n.tb.Helper()
	fields := strings.Fields(n.Run("", "nstat", "-asz", "TcpRetransSegs"))
	for i, f := range fields {
		if f == "TcpRetransSegs" && i+1 < len(fields) {
			if again, err := strconv.Atoi(fields[i+1]); err == nil {
				return again
			}
		}
	}
	n.tb.Fatalf("%s: nstat says %q", n.Role, fields)
	return 0
}

// queueByFlow sets it by a sysfs of the thread's own namespace.
func queueByFlow(dir string) error {
	if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	queues, err := filepath.Glob(dir + "/class/net/*/queues/rx-*/rps_cpus")
	if err != nil {
		return err
	}
	all := fmt.Sprintf("%x", 1<<min(runtime.NumCPU(), 32)-1)
	for _, queue := range queues {
		if err := os.WriteFile(queue, []byte(all), 0); err != nil {
			return err
		}
	}
	return nil
}
