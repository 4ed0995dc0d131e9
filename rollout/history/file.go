package history

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"siskin.dev/siskin/rollout"
)

// The file's buckets: "meta" holds the format, "states" a state by release,
// "decisions" a bucket by release with numbered decisions. Each value begins
// with its checksum, for bbolt guards only its own pages' heads.
const format = "1"

func buckets() (meta, states, decisions []byte) {
	return []byte("meta"), []byte("states"), []byte("decisions")
}

// errDamaged means that the file cannot be read.
var errDamaged = errors.New("damaged")

// guarded runs what reads or writes the file. A file that is damaged, or cut
// short under the mapping, makes bbolt panic or the processor fault: both come
// back as errDamaged.
func guarded(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return do()
}

// write brings the file up to date, and opens it where it is not open. A
// damaged one is set aside, and all that memory holds goes into a new one.
func (s *Store) write() error {
	s.file.Lock()
	defer s.file.Unlock()
	n := s.take()
	err := s.put(n)
	if errors.Is(err, errDamaged) {
		if err = s.setAside(err); err == nil {
			s.putBack(n)
			s.mu.Lock()
			for name := range s.states {
				s.dirty[name] = true
			}
			s.mu.Unlock()
			n = s.take()
			err = s.put(n)
		}
	}
	if err != nil {
		s.putBack(n)
	}
	return err
}

func (s *Store) put(n noted) error {
	return guarded(func() error {
		if s.db == nil {
			if err := s.open(); err != nil {
				return err
			}
		}
		if len(n.states) == 0 && len(n.queue) == 0 {
			return nil
		}
		return s.db.Update(func(tx *bolt.Tx) error { return s.update(tx, n) })
	})
}

// open opens the file and reads all of it, so that damage shows now and not in
// the middle of a release.
func (s *Store) open() error {
	db, err := bolt.Open(s.path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	switch {
	case err != nil && unusable(err):
		s.peek()
		return fmt.Errorf("open %s: %w", s.path, err)
	case err != nil:
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	found := map[string]rollout.State{}
	if err := db.View(func(tx *bolt.Tx) error { return readAll(tx, found) }); err != nil {
		// bbolt hands nothing back from a damaged file for sure, not even its
		// locks; what is set aside stays open until the process ends.
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	s.db = db
	s.adopt(found)
	return nil
}

// peek reads a file that cannot be written, once.
func (s *Store) peek() {
	if s.peeked {
		return
	}
	s.peeked = true
	found := map[string]rollout.State{}
	err := guarded(func() error {
		db, err := bolt.Open(s.path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			return err
		}
		return errors.Join(db.View(func(tx *bolt.Tx) error { return readAll(tx, found) }), db.Close())
	})
	if _, missing := os.Lstat(s.path); err != nil && missing == nil {
		s.mu.Lock()
		s.lost = true
		s.mu.Unlock()
		return
	}
	s.adopt(found)
}

// adopt takes over the states on file that memory has no newer ones of.
func (s *Store) adopt(found map[string]rollout.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, state := range found {
		if _, newer := s.states[name]; !newer && !s.dirty[name] {
			s.states[name] = state
		}
	}
}

// unusable tells errors of the system, which may pass, from damage.
func unusable(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) || errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, fs.ErrPermission)
}

// readAll collects the states and looks at every decision.
func readAll(tx *bolt.Tx, states map[string]rollout.State) error {
	metaName, stateName, decisionName := buckets()
	if meta := tx.Bucket(metaName); meta != nil {
		if f := string(meta.Get([]byte("format"))); f != format {
			return fmt.Errorf("it has format %q, this build reads %s", f, format)
		}
	}
	if b := tx.Bucket(stateName); b != nil {
		err := b.ForEach(func(k, v []byte) error {
			var state rollout.State
			if err := decode(v, &state); err != nil {
				return fmt.Errorf("the state of %s: %w", k, err)
			}
			states[string(k)] = state
			return nil
		})
		if err != nil {
			return err
		}
	}
	b := tx.Bucket(decisionName)
	if b == nil {
		return nil
	}
	return b.ForEachBucket(func(name []byte) error {
		return b.Bucket(name).ForEach(func(_, v []byte) error {
			var d rollout.Decision
			if err := decode(v, &d); err != nil {
				return fmt.Errorf("a decision on %s: %w", name, err)
			}
			return nil
		})
	})
}

func (s *Store) update(tx *bolt.Tx, n noted) error {
	metaName, stateName, decisionName := buckets()
	var made [3]*bolt.Bucket
	for i, name := range [][]byte{metaName, stateName, decisionName} {
		b, err := tx.CreateBucketIfNotExists(name)
		if err != nil {
			return fmt.Errorf("make the bucket %s: %w", name, err)
		}
		made[i] = b
	}
	if err := made[0].Put([]byte("format"), []byte(format)); err != nil {
		return err
	}
	for name, state := range n.states {
		if state == nil {
			if err := made[1].Delete([]byte(name)); err != nil {
				return fmt.Errorf("forget %s: %w", name, err)
			}
			continue
		}
		if err := put(made[1], []byte(name), *state); err != nil {
			return fmt.Errorf("save %s: %w", name, err)
		}
	}
	for name, decisions := range n.queue {
		if err := s.add(made[2], name, decisions); err != nil {
			return fmt.Errorf("add to the history of %s: %w", name, err)
		}
	}
	return s.prune(made[2])
}

// add appends decisions and drops the oldest beyond the bound.
func (s *Store) add(all *bolt.Bucket, release string, decisions []rollout.Decision) error {
	b, err := all.CreateBucketIfNotExists([]byte(release))
	if err != nil {
		return err
	}
	for _, d := range decisions {
		seq, err := b.NextSequence()
		if err != nil {
			return err
		}
		if err := put(b, number(seq), d); err != nil {
			return err
		}
		if seq > uint64(s.o.Decisions) {
			if err := b.Delete(number(seq - uint64(s.o.Decisions))); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune drops the decisions of the releases that ended longest ago.
func (s *Store) prune(all *bolt.Bucket) error {
	type ended struct {
		name string
		last time.Time
	}
	active := s.active()
	var over []ended
	err := all.ForEachBucket(func(name []byte) error {
		if active[string(name)] {
			return nil
		}
		over = append(over, ended{name: string(name)})
		return nil
	})
	if err != nil || len(over) <= s.o.Finished {
		return err
	}
	for i, e := range over {
		var d rollout.Decision
		if _, v := all.Bucket([]byte(e.name)).Cursor().Last(); v != nil && decode(v, &d) == nil {
			over[i].last = d.Time
		}
	}
	slices.SortFunc(over, func(a, b ended) int { return a.last.Compare(b.last) })
	for _, e := range over[:len(over)-s.o.Finished] {
		if err := all.DeleteBucket([]byte(e.name)); err != nil {
			return fmt.Errorf("drop the history of %s: %w", e.name, err)
		}
	}
	return nil
}

// read returns the last decisions on file; file is held.
func (s *Store) read(release string, limit int) (out []rollout.Decision, err error) {
	_, _, decisionName := buckets()
	err = guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			all := tx.Bucket(decisionName)
			if all == nil || all.Bucket([]byte(release)) == nil {
				return nil
			}
			c := all.Bucket([]byte(release)).Cursor()
			for k, v := c.Last(); k != nil && (limit <= 0 || len(out) < limit); k, v = c.Prev() {
				var d rollout.Decision
				if err := decode(v, &d); err != nil {
					return err
				}
				out = append(out, d)
			}
			slices.Reverse(out)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", release, err)
	}
	return out, nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func put(b *bolt.Bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, append(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(raw)), raw...))
}

func decode(v []byte, into any) error {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != crc32.ChecksumIEEE(v[4:]) {
		return errors.New("its checksum is wrong")
	}
	return json.Unmarshal(v[4:], into)
}

// setAside renames the damaged file, so that nothing is lost and the next
// start does not stumble over it. file is held.
func (s *Store) setAside(why error) error {
	s.db = nil // see open
	base := s.path + ".corrupt-" + s.o.Now().UTC().Format("20060102T150405Z")
	to := base
	for i := 2; ; i++ {
		_, err := os.Lstat(to)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("set the history aside: %w", err)
		}
		to = fmt.Sprintf("%s-%d", base, i)
	}
	if err := os.Rename(s.path, to); err != nil {
		return fmt.Errorf("set the history aside: %w", err)
	}
	s.mu.Lock()
	s.lost = true
	s.mu.Unlock()
	s.o.Loud(true, Damaged, fmt.Sprintf("the history of releases cannot be read (%v); it was set aside as %s and a new one begun: "+
		"releases that ran are at stable, start them again", why, to))
	return nil
}
