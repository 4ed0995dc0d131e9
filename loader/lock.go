package loader

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Lock is an exclusive lock on a file or directory. The kernel frees it when
// the process ends, however it ends.
type Lock struct{ f *os.File }

// AcquireLock takes the lock on path without waiting. A path that does not
// exist is made as an empty file. When another process holds the lock the
// error wraps ErrLocked.
func AcquireLock(path string) (*Lock, error) {
	flags := os.O_RDWR | os.O_CREATE
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w: %s is locked; stop that one first", ErrLocked, path), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

// Release frees the lock. The file stays: removing it would let two processes
// lock two different files of the same name.
func (l *Lock) Release() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
