package steering

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"siskin.dev/siskin/bpf"
)

var (
	// ErrHeld says that a release has the weights of a service, so nobody else
	// sets them; rolling back is always possible.
	ErrHeld = errors.New("a release has these weights")
	// ErrNotHeld says that no release of a name has any weights.
	ErrNotHeld = errors.New("no such release runs")
	// ErrWeighted says that a release can neither begin nor end while a version
	// beside stable has a share.
	ErrWeighted = errors.New("a version beside stable has a share of new connections; roll back first")
	// ErrTakenBack says that a release has lost its weights: to the kernel,
	// whose lease tells why, or to a rollback. Stable has all connections.
	ErrTakenBack = errors.New("the release was taken back, stable has all connections")
)

// Leases are the leases of the weight words, shared with the kernel.
type Leases interface {
	Load(word uint32) bpf.Lease
	Set(word uint32, deadline int64)
	Renew(word uint32, old bpf.Lease, deadline int64) (bpf.Lease, error)
}

// Releases are what the kernel watches while releases run.
type Releases interface {
	Begin(word uint32, w bpf.Watch) (bpf.Watch, error)
	SetStep(word uint32, step uint8)
	End(word uint32) error
	Load(word uint32) (bpf.Watch, error)
	Running() []uint32
}

// A Release is what takes the weights of some services for itself.
type Release struct {
	Name string
	// Services are all that share one weight word.
	Services []string
	// Version is what the release is about, and the only one with a share.
	Version string
	// Seed decides which clients come first: with another one it is others. It
	// stays the same while the release runs.
	Seed string
	// Watch is what the kernel watches. Its slot is filled in.
	Watch bpf.Watch
	// Deadline is until when the weights count if nobody renews the lease, in
	// nanoseconds of boot time; 0: for ever.
	Deadline int64
}

// A hold is a release that has a weight word. It is guarded by mu.
type hold struct {
	release string
	word    uint32
	slot    uint8
	salt    uint32
	last    Word // what the release has put there
	lease   bpf.Lease
}

// BeginRelease takes the weights of the release's services, which must all be
// stable's, and lets the kernel watch. From then on they are the release's
// until EndRelease. Errors: ErrHeld, ErrWeighted, ErrNoService, ErrNoVersion,
// bpf.ErrNoRoom.
func (r *Reconciler) BeginRelease(rel Release) (_ bpf.Watch, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("begin release %s: %w", rel.Name, err)
		}
	}()
	r.work.Lock()
	defer r.work.Unlock()
	h, err := r.take(rel)
	if err != nil {
		return rel.Watch, err
	}
	defer func() {
		if err != nil {
			r.letGo(h)
		}
	}()
	if err := r.salt(h.word, h.salt); err != nil {
		return rel.Watch, err
	}
	rel.Watch.Version = h.slot
	r.maps.Leases.Set(h.word, rel.Deadline)
	return r.maps.Releases.Begin(h.word, rel.Watch)
}

// ResumeRelease takes the weights again, as they are, of a release that the
// kernel watches already: after a restart and Restore, before the first Update.
// Errors: bpf.ErrNoRelease, and those of BeginRelease.
func (r *Reconciler) ResumeRelease(rel Release) (bpf.Watch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.holdable(rel)
	if err != nil {
		return rel.Watch, fmt.Errorf("resume release %s: %w", rel.Name, err)
	}
	watch, err := r.maps.Releases.Load(h.word)
	if err == nil && watch.Version != h.slot {
		err = fmt.Errorf("%w: version %s was another one", bpf.ErrNoRelease, rel.Version)
	}
	if err != nil {
		return rel.Watch, fmt.Errorf("resume release %s: %w", rel.Name, err)
	}
	r.holds[h.word] = h
	return watch, nil
}

// free refuses a word that a release has, resumed already or not; mu is held.
func (r *Reconciler) free(word uint32) error {
	if h := r.holds[word]; h != nil {
		return fmt.Errorf("%w: %s", ErrHeld, h.release)
	}
	if r.maps.Releases == nil {
		return nil
	}
	if _, err := r.maps.Releases.Load(word); !errors.Is(err, bpf.ErrNoRelease) {
		return fmt.Errorf("%w: one from before the restart", ErrHeld)
	}
	return nil
}

// EndStrayReleases ends what the kernel watches and no release holds, once all
// that are known were resumed; stable gets what they had. It returns how many.
func (r *Reconciler) EndStrayReleases() (n int, err error) {
	var errs []error
	for _, word := range r.maps.Releases.Running() {
		r.mu.Lock()
		held := r.holds[word] != nil
		if !held {
			r.zeroWord(word)
		}
		r.mu.Unlock()
		if held {
			continue
		}
		n++
		errs = append(errs, r.maps.Releases.End(word))
		r.maps.Leases.Set(word, 0)
	}
	return n, errors.Join(errs...)
}

// take makes a release the holder of its word.
func (r *Reconciler) take(rel Release) (*hold, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.holdable(rel)
	if err != nil {
		return nil, err
	}
	if !h.last.IsZero() {
		return nil, ErrWeighted
	}
	h.lease = bpf.Lease(rel.Deadline)
	r.holds[h.word] = h
	return h, nil
}

// holdable finds the word of a release that may hold it; mu is held.
func (r *Reconciler) holdable(rel Release) (*hold, error) {
	if len(rel.Services) == 0 {
		return nil, fmt.Errorf("%w: it names none", ErrNoService)
	}
	h := &hold{release: rel.Name, salt: seedSalt(rel.Seed)}
	for i, name := range rel.Services {
		t := r.routes.byName[name]
		if t == nil {
			return nil, fmt.Errorf("service %s: %w", name, ErrNoService)
		}
		slot, ok := t.slots[rel.Version]
		if !ok {
			return nil, fmt.Errorf("service %s: %w: %s", name, ErrNoVersion, rel.Version)
		}
		if i > 0 && (t.word != h.word || slot != h.slot) {
			return nil, fmt.Errorf("services %s and %s do not change together", rel.Services[0], name)
		}
		h.word, h.slot = t.word, slot
	}
	for name := range r.routes.byWord[h.word] {
		if !slices.Contains(rel.Services, name) {
			return nil, fmt.Errorf("service %s changes together with %s; name it too", name, strings.Join(rel.Services, ", "))
		}
	}
	if other := r.holds[h.word]; other != nil {
		return nil, fmt.Errorf("%w: %s", ErrHeld, other.release)
	}
	for _, other := range r.holds {
		if other.release == rel.Name {
			return nil, fmt.Errorf("%w: it runs already", ErrHeld)
		}
	}
	h.last, h.lease = r.maps.Words.Load(h.word), r.maps.Leases.Load(h.word)
	return h, nil
}

func (r *Reconciler) letGo(h *hold) {
	r.maps.Leases.Set(h.word, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.holds, h.word)
}

// salt gives the frontends of a word the salt, and waits until no program uses
// another one: the word is zero, so meanwhile it decides nothing. work is held.
func (r *Reconciler) salt(word uint32, salt uint32) error {
	for _, key := range slices.SortedFunc(maps.Keys(r.state.frontends), compareTuples) {
		f := r.state.frontends[key]
		if f.Word != word || f.Salt == salt {
			continue
		}
		f.Salt = salt
		r.ungraced = true
		if err := put(r.maps.Frontends, r.state.frontends, "frontend "+frontendOf(key).String(), key, f); err != nil {
			return err
		}
	}
	return r.grace()
}

// seedSalt is the salt of a release. All its services have the same one, so a
// client meets the same version in all of them.
func seedSalt(seed string) uint32 {
	h := fnv.New32a()
	h.Write([]byte("release\x00" + seed)) // a hash.Hash never fails
	return h.Sum32()
}

// held returns the words that releases have, and the salts.
func (r *Reconciler) held() map[uint32]uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[uint32]uint32, len(r.holds))
	for word, h := range r.holds {
		out[word] = h.salt
	}
	return out
}

// heldBy finds a release by its name; mu is held.
func (r *Reconciler) heldBy(release string) (*hold, error) {
	for _, h := range r.holds {
		if h.release == release {
			return h, nil
		}
	}
	return nil, fmt.Errorf("release %s: %w", release, ErrNotHeld)
}

// WordOf returns the index of the word that a release holds. Errors: ErrNotHeld.
func (r *Reconciler) WordOf(release string) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.heldBy(release)
	if err != nil {
		return 0, err
	}
	return h.word, nil
}

// SetShare gives the version of a release its share in a step, from 1 on, if
// nothing has changed the weights since the release set them last. Errors:
// ErrNotHeld, ErrTakenBack, ErrOverWhole.
func (r *Reconciler) SetShare(release string, step uint8, share Share) (Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.heldBy(release)
	if err != nil {
		return Change{}, err
	}
	if now := r.maps.Words.Load(h.word); now.Shares() == h.last.Shares() {
		h.last = now // the breaker may have given back what it had taken
	}
	shares := h.last.Shares()
	shares[h.slot-1] = share
	next, err := h.last.Next(shares)
	if err != nil {
		return Change{}, fmt.Errorf("release %s: %w", release, err)
	}
	if r.maps.Leases.Load(h.word).Over() {
		return Change{}, fmt.Errorf("release %s: set the share: %w", release, ErrTakenBack)
	}
	r.maps.Releases.SetStep(h.word, step)
	c := Change{Service: r.anyOf(h.word), Old: h.last, New: next, Before: bpf.Now()}
	if !r.maps.Words.Swap(h.word, h.last, next) {
		return Change{}, fmt.Errorf("release %s: set the share: %w", release, ErrTakenBack)
	}
	c.After = bpf.Now()
	h.last = next
	c.Shares = r.sharesOf(c)
	return c, nil
}

// RollbackRelease gives stable all connections of a release's services. The
// release keeps the weights until EndRelease. Errors: ErrNotHeld.
func (r *Reconciler) RollbackRelease(release string) (Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.heldBy(release)
	if err != nil {
		return Change{}, err
	}
	c := Change{Service: r.anyOf(h.word), Before: bpf.Now()}
	c.Old, c.New = r.zeroWord(h.word)
	c.After = bpf.Now()
	h.last = c.New
	c.Shares = r.sharesOf(c)
	return c, nil
}

// RenewLease moves the deadline of a release's lease on, in nanoseconds of boot
// time. It waits for nothing. Errors: ErrNotHeld, and those of bpf.Leases.Renew;
// after bpf.ErrLeaseOver stable has all connections, and it stays so.
func (r *Reconciler) RenewLease(release string, deadline int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.heldBy(release)
	if err != nil {
		return err
	}
	lease, err := r.maps.Leases.Renew(h.word, h.lease, deadline)
	if err != nil {
		return fmt.Errorf("release %s: renew the lease: %w", release, err)
	}
	h.lease = lease
	return nil
}

// EndRelease gives the weights of a release back; its version must have no
// share. It waits some milliseconds. Errors: ErrNotHeld, ErrWeighted.
func (r *Reconciler) EndRelease(release string) error {
	r.mu.Lock()
	h, err := r.heldBy(release)
	if err == nil && !r.maps.Words.Load(h.word).IsZero() {
		err = fmt.Errorf("release %s: end: %w", release, ErrWeighted)
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	// Nobody else changes the word meanwhile: it is held until letGo.
	if err := r.maps.Releases.End(h.word); err != nil {
		return fmt.Errorf("end release %s: %w", release, err)
	}
	r.mu.Lock()
	r.zeroWord(h.word) // but for a breaker that has just begun to try again
	r.mu.Unlock()
	r.letGo(h)
	return nil
}

// zeroWord gives stable everything, whoever else changes the word; mu is held.
func (r *Reconciler) zeroWord(word uint32) (old, now Word) {
	for {
		old = r.maps.Words.Load(word)
		if old.IsZero() || r.maps.Words.Swap(word, old, old.Zeroed()) {
			return old, old.Zeroed()
		}
	}
}

// anyOf returns the first service of a word; mu is held.
func (r *Reconciler) anyOf(word uint32) string {
	names := slices.Sorted(maps.Keys(r.routes.byWord[word]))
	if len(names) == 0 {
		return "" // deleted since
	}
	return names[0]
}

func (r *Reconciler) sharesOf(c Change) map[string]Share {
	if t := r.routes.byName[c.Service]; t != nil {
		return t.shares(c.New)
	}
	return nil
}
