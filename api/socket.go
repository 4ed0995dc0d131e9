package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// DefaultSocket is where the daemon listens.
const DefaultSocket = "/run/siskin/siskin.sock"

// maxPath leaves room for a process id in the 107 bytes of unix(7).
const maxPath = 96

// ErrSocketInUse says that another daemon answers on the socket.
var ErrSocketInUse = errors.New("another daemon answers on it")

// SocketOptions say where and for whom the daemon listens.
type SocketOptions struct {
	Path  string // default DefaultSocket
	Group string // name or number of the group that may read; "": root's
}

// Listen makes the socket: its directory with mode 0750 where it is missing,
// the file with 0660. It replaces the file of a daemon that is gone, but not
// one that answers (ErrSocketInUse). Close removes the file, if it is still
// this one.
func Listen(o SocketOptions) (net.Listener, error) {
	if o.Path == "" {
		o.Path = DefaultSocket
	}
	if len(o.Path) > maxPath {
		return nil, fmt.Errorf("the socket's path %s is longer than %d bytes: choose a shorter one with --socket", o.Path, maxPath)
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}
	if err := makeDirectory(filepath.Dir(o.Path), gid); err != nil {
		return nil, err
	}
	if err := checkStale(o.Path); err != nil {
		return nil, err
	}
	// Bound under another name and renamed when the mode is right, so that
	// nobody connects before, and the stale file is replaced at once.
	temporary := fmt.Sprintf("%s.%d", o.Path, os.Getpid())
	_ = os.Remove(temporary)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Path, err)
	}
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: o.Path}
	if err := s.publish(temporary, gid); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(temporary))
	}
	return s, nil
}

// socket is a listener that removes its own file only.
type socket struct {
	*net.UnixListener
	path   string
	file   fs.FileInfo
	remove sync.Once // an inode number may come back, with another's socket
}

func (s *socket) publish(temporary string, gid int) error {
	if err := os.Chmod(temporary, 0o660); err != nil {
		return fmt.Errorf("set the mode of the socket: %w", err)
	}
	if gid >= 0 {
		if err := os.Chown(temporary, -1, gid); err != nil {
			return fmt.Errorf("give the socket to group %d: %w", gid, err)
		}
	}
	var err error
	if s.file, err = os.Lstat(temporary); err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if err := os.Rename(temporary, s.path); err != nil {
		return fmt.Errorf("put the socket in its place: %w", err)
	}
	return nil
}

// Close stops listening and removes the file, unless another took its place.
func (s *socket) Close() error {
	var err error
	s.remove.Do(func() {
		if now, lookErr := os.Lstat(s.path); lookErr == nil && os.SameFile(now, s.file) {
			err = os.Remove(s.path)
		}
	})
	return errors.Join(err, s.UnixListener.Close())
}

// groupID finds a group by name or number; -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return -1, fmt.Errorf("the socket's group: %w; add it with: groupadd --system %s", err, group)
	}
	return strconv.Atoi(g.Gid)
}

// makeDirectory leaves a directory that exists as it is.
func makeDirectory(dir string, gid int) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	if gid >= 0 {
		if err := os.Chown(dir, -1, gid); err != nil {
			return fmt.Errorf("give the socket's directory to group %d: %w", gid, err)
		}
	}
	return nil
}

// checkStale returns nil when nobody answers at path.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is not a socket: move it away or choose another path with --socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("%s: %w; stop it, or choose another path with --socket", path, ErrSocketInUse), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil // its daemon is gone
	}
	return fmt.Errorf("%s: %w (%w)", path, ErrSocketInUse, err)
}
