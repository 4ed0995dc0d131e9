package api

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrForbidden says that the caller may not do this.
var ErrForbidden = errors.New("forbidden")

// peer is who is at the other end of a connection, by the kernel's word.
type peer struct {
	uid    uint32
	name   string // "" where no user who may write has this uid
	pid    int32
	groups []uint32 // the primary one and the others, when it connected
	err    error    // why it is not known; then it may do nothing
}

type peerKey struct{}

// withPeer is the server's ConnContext.
func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	p := peerOf(c)
	p.name = s.names[p.uid]
	return context.WithValue(ctx, peerKey{}, p)
}

// namesOf are the names of users. They are asked for once, so that no request,
// which may be a rollback, waits for who knows them.
func namesOf(uids ...uint32) map[uint32]string {
	out := map[uint32]string{}
	for _, uid := range uids {
		if u, err := user.LookupId(fmt.Sprint(uid)); err == nil {
			out[uid] = u.Username
		}
	}
	return out
}

// Caller is who sent the request of a context, by the kernel's word: a user's
// name, or "uid 1000" where that has none. It is "" outside of requests.
func Caller(ctx context.Context) string {
	p, ok := ctx.Value(peerKey{}).(peer)
	switch {
	case !ok || p.err != nil:
		return ""
	case p.name != "":
		return p.name
	}
	return fmt.Sprintf("uid %d", p.uid)
}

// peerOf asks the kernel (unix(7), SO_PEERCRED and SO_PEERGROUPS).
func peerOf(c net.Conn) peer {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: fmt.Errorf("%T has no peer credentials", c)}
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var p peer
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, p.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); p.err != nil {
			return
		}
		p.uid, p.pid = cred.Uid, cred.Pid
		more, err := peerGroups(int(fd))
		p.groups, p.err = append([]uint32{cred.Gid}, more...), err
	})
	return peer{uid: p.uid, pid: p.pid, groups: p.groups, err: errors.Join(p.err, err)}
}

// peerGroups reads the supplementary groups; x/sys has no function for it.
func peerGroups(fd int) ([]uint32, error) {
	buf := make([]byte, 64*4)
	for {
		size := uint32(len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == syscall.ERANGE && int(size) > len(buf):
			buf = make([]byte, size)
		case errno != 0:
			return nil, fmt.Errorf("read the peer's groups: %w", errno)
		default:
			var groups []uint32
			for i := uint32(0); i+4 <= size; i += 4 {
				groups = append(groups, binary.NativeEndian.Uint32(buf[i:]))
			}
			return groups, nil
		}
	}
}

// access says who may do what.
type access struct {
	group   uint32   // of the socket's file: may read
	writers []uint32 // users beside root who may write
}

// mayWrite: root, the user that the daemon runs as, and the listed ones.
func (a access) mayWrite(p peer) bool {
	return p.err == nil && (p.uid == 0 || int(p.uid) == os.Geteuid() || slices.Contains(a.writers, p.uid))
}

func (a access) mayRead(p peer) bool {
	return a.mayWrite(p) || p.err == nil && slices.Contains(p.groups, a.group)
}

// check returns an ErrForbidden that says who may.
func (a access) check(p peer, write bool) error {
	switch {
	case p.err != nil:
		return fmt.Errorf("%w: the kernel does not say who you are: %w", ErrForbidden, p.err)
	case write && !a.mayWrite(p):
		return fmt.Errorf("%w: uid %d may not change anything: only root%s may, so use sudo", ErrForbidden, p.uid, a.others())
	case !write && !a.mayRead(p):
		return fmt.Errorf("%w: uid %d may not read: only root%s and members of group %d may", ErrForbidden, p.uid, a.others(), a.group)
	}
	return nil
}

// mayRun refuses documents with commands from who could not run them as the
// daemon's user anyway.
func (a access) mayRun(p peer, docs []Document) error {
	if p.err == nil && (p.uid == 0 || int(p.uid) == os.Geteuid()) {
		return nil
	}
	for _, d := range docs {
		if d.commands() {
			return fmt.Errorf("%w: the commands in %s would run as the daemon's user: only root may apply it, so use sudo", ErrForbidden, d.Object())
		}
	}
	return nil
}

// commands tells whether there are any in the document.
func (d Document) commands() bool {
	if d.Release != nil {
		return slices.ContainsFunc(d.Release.Spec.Hooks, func(h ReleaseHook) bool { return len(h.Command) > 0 })
	}
	return d.Service.Spec.HealthCheck != nil && d.Service.Spec.HealthCheck.Exec != nil
}

func (a access) others() string {
	if len(a.writers) == 0 {
		return ""
	}
	return fmt.Sprintf(" and the users %v", a.writers)
}

// peerIn returns who sent a request.
func peerIn(r *http.Request) peer {
	p, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		return peer{err: errors.New("the connection was not looked at")}
	}
	return p
}
