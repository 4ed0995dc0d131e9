package bed

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is a link between two namespaces on which packets take a while. It is
// a pair of TUN devices with this process between them: it needs no netem.
type Wire struct {
	delay atomic.Int64 // nanoseconds, each way
	files [2]*os.File
	group sync.WaitGroup
}

// ConnectSlowly makes a wire, with addresses at its ends.
func (b *Bed) ConnectSlowly(near, far End) *Wire {
	b.tb.Helper()
	w := &Wire{}
	for i, end := range []End{near, far} {
		var err error
		if w.files[i], err = end.openTun(); err != nil {
			b.tb.Fatalf("wire: %s: %v", end.Space.Role, err)
		}
		end.Space.Up(end.Dev)
		end.Space.Address(end.Dev, end.Addrs...)
	}
	w.group.Go(func() { w.carry(w.files[0], w.files[1]) })
	w.group.Go(func() { w.carry(w.files[1], w.files[0]) })
	b.tb.Cleanup(func() {
		w.files[0].Close()
		w.files[1].Close()
		w.group.Wait()
	})
	return w
}

// SetDelay sets how long a packet takes each way from now on.
func (w *Wire) SetDelay(d time.Duration) { w.delay.Store(int64(d)) }

func (e End) openTun() (*os.File, error) {
	var file *os.File
	err := e.Space.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(e.Dev)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("make the TUN device %s: %w", e.Dev, err)
		}
		// Only now: the poller refuses a TUN file that has no device yet.
		file = os.NewFile(uintptr(fd), "tun")
		return nil
	})
	return file, err
}

// carry moves packets one way, in their order.
func (w *Wire) carry(from, to *os.File) {
	type packet struct {
		due  time.Time
		data []byte
	}
	queue := make(chan packet, 1024)
	w.group.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.due)) // the wire's length, not a wait for an event
			if _, err := to.Write(p.data); errors.Is(err, os.ErrClosed) {
				return
			}
		}
	})
	defer close(queue)
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return // closed: the bed goes
		}
		due := time.Now().Add(time.Duration(w.delay.Load()))
		select {
		case queue <- packet{due, append([]byte(nil), buf[:n]...)}:
		default: // a full queue drops, as any link does
		}
	}
}
