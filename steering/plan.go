package steering

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// ErrNoSlot says that all version slots of a weight word are taken.
var ErrNoSlot = errors.New("no version slot is free: services that change together have room for four versions beside stable in all; remove one")

// A servicePlan is what one service shall look like in the maps.
type servicePlan struct {
	desired   Service
	id        uint32
	record    bpf.ServiceName
	frontends map[bpf.Tuple]bpf.Frontend // their tables are not filled in yet
	backends  map[uint32]bpf.Backend
	slots     map[string]uint8 // version names to slots; without stable
	members   map[tableKey][]Member
	newWord   *Word // what the word must hold before anything refers to it
	freshIDs  []uint32
	freshVers []uint32
	waiting   error // versions that are left out until a slot is free
	err       error // something failed: go no further in this Update
}

// tableKey names a table of a service.
type tableKey struct {
	slot   uint8
	family Family
}

// A planner works out what all services shall look like. It reads the actual
// state and writes nothing, but ids that it gives out are gone.
type planner struct {
	actual  *state
	ids     *ids
	path    func(netip.Addr) (Path, error)
	lost    map[netip.Addr]error // backends without a route
	word    func(uint32) Word    // the live weights
	held    map[uint32]uint32    // words that a release has, and its salt
	live    map[uint32]bool      // version ids
	plans   map[string]*servicePlan
	byID    map[uint32]*servicePlan    // the plans without a fault
	byName  map[string]uint32          // ids of the actual services
	byWord  map[uint32]map[uint32]bool // ids of the services that share a word
	byGroup map[string]map[uint32]bool // ids of the services of a group
	records map[uint32]bpf.ServiceName // the actual ones, overlaid by the plans'
	byAddr  map[backendKey]uint32
	used    struct{ frontends, backends, versions, words map[uint32]bool }
}

// backendKey is what a backend id stands for.
type backendKey struct {
	version uint32
	addr    netip.AddrPort
}

func newPlanner(actual *state, ids *ids, path func(netip.Addr) (Path, error), word func(uint32) Word) *planner {
	p := &planner{
		actual: actual, ids: ids, path: path, word: word,
		live:    actual.liveVersions(),
		plans:   map[string]*servicePlan{},
		records: map[uint32]bpf.ServiceName{},
		byAddr:  map[backendKey]uint32{},
		byID:    map[uint32]*servicePlan{},
		byName:  map[string]uint32{},
		lost:    map[netip.Addr]error{},
		byWord:  map[uint32]map[uint32]bool{},
		byGroup: map[string]map[uint32]bool{},
	}
	p.used.frontends, p.used.backends = map[uint32]bool{}, map[uint32]bool{}
	p.used.versions, p.used.words = map[uint32]bool{}, map[uint32]bool{}
	for id, b := range actual.backends {
		p.byAddr[backendKey{b.Version, backendAddr(b)}] = id
		p.used.backends[id], p.used.backends[b.Endpoint] = true, true
		p.used.versions[b.Version] = true
	}
	for _, e := range actual.endpoints {
		p.used.backends[e.Id] = true
	}
	for id := range actual.vips {
		p.used.frontends[id] = true
	}
	for _, f := range actual.frontends {
		p.used.frontends[f.Id], p.used.words[f.Word] = true, true
	}
	for id, rec := range actual.services {
		p.byName[bpf.Text(rec.Name[:])] = id
		p.record(id, rec)
		p.used.words[rec.Word] = true
		for _, v := range rec.Latency {
			p.used.versions[v] = true
		}
	}
	return p
}

// service plans one service. A fault is in the plan's err.
func (p *planner) service(s Service) *servicePlan {
	plan := &servicePlan{
		desired:   s,
		frontends: map[bpf.Tuple]bpf.Frontend{},
		backends:  map[uint32]bpf.Backend{},
		slots:     map[string]uint8{},
		members:   map[tableKey][]Member{},
	}
	p.plans[s.Name] = plan
	for _, step := range []func(*servicePlan) error{p.planRecord, p.planBackends, p.planFrontends} {
		if plan.err = step(plan); plan.err != nil {
			return plan
		}
	}
	p.record(plan.id, plan.record)
	p.byID[plan.id] = plan
	return plan
}

// record notes what a service's entry is or will be.
func (p *planner) record(id uint32, rec bpf.ServiceName) {
	if old, ok := p.records[id]; ok {
		delete(p.byWord[old.Word], id)
		delete(p.byGroup[bpf.Text(old.Group[:])], id)
	}
	p.records[id] = rec
	note(p.byWord, rec.Word, id)
	note(p.byGroup, bpf.Text(rec.Group[:]), id)
}

// note adds member to the set at key.
func note[K, V comparable](sets map[K]map[V]bool, key K, member V) {
	if sets[key] == nil {
		sets[key] = map[V]bool{}
	}
	sets[key][member] = true
}

// planRecord gives the service its id, word, version slots and version ids.
func (p *planner) planRecord(plan *servicePlan) (err error) {
	s := plan.desired
	id, known := p.byName[s.Name]
	old := p.actual.services[id]
	if !known {
		id, err = p.ids.services.take(func(id uint32) bool { _, taken := p.records[id]; return taken })
		if err != nil {
			return err
		}
	}
	plan.id = id
	rec := bpf.ServiceName{Used: 1, Word: old.Word}
	bpf.SetText(rec.Name[:], s.Name)
	bpf.SetText(rec.Group[:], s.Group)
	moved := !known
	if !known || bpf.Text(old.Group[:]) != s.Group || !p.agrees(id, s.Group, old.Word) {
		var fresh bool
		if rec.Word, fresh, err = p.chooseWord(s.Group, id, old, known); err != nil {
			return err
		}
		moved = rec.Word != old.Word
		if fresh {
			plan.newWord = new(Word)
		}
	}
	if !moved { // leftovers of removed versions keep their slots
		rec.Versions, rec.Latency = old.Versions, old.Latency
	}
	if err := p.planVersions(plan, &rec, old); err != nil {
		return err
	}
	plan.record = rec
	if plan.newWord != nil {
		*plan.newWord, err = p.carryShares(plan, old, known)
	}
	return err
}

// others returns the services of a set without id, in order.
func (p *planner) others(set map[uint32]bool, id uint32) []uint32 {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(set)), func(other uint32) bool { return other == id })
}

// agrees reports whether the word is shared by the service's group and by
// nobody else. Where the entries of a group were written only in part, it may
// not be.
func (p *planner) agrees(id uint32, group string, word uint32) bool {
	for _, other := range p.others(p.byWord[word], id) {
		rec := p.records[other]
		if group == "" || bpf.Text(rec.Group[:]) != group {
			return false
		}
	}
	if group == "" {
		return true
	}
	return !slices.ContainsFunc(p.others(p.byGroup[group], id), func(other uint32) bool {
		return p.records[other].Word != word
	})
}

// chooseWord finds the weight word of a service that is new or changes its
// group: that of the group, else the service's own if nobody shares it, else
// a fresh one.
func (p *planner) chooseWord(group string, id uint32, old bpf.ServiceName, known bool) (word uint32, fresh bool, err error) {
	if group != "" {
		if members := p.others(p.byGroup[group], id); len(members) > 0 {
			return p.records[members[0]].Word, false, nil
		}
	}
	alone := len(p.byWord[old.Word]) == 1 // itself
	if known && alone {
		return old.Word, false, nil
	}
	word, err = p.ids.words.take(func(w uint32) bool { return p.used.words[w] })
	if err != nil {
		return 0, false, err
	}
	p.used.words[word] = true
	return word, true, nil
}

// carryShares is the first content of a fresh word: what the service's
// versions have now, if it has been there before.
func (p *planner) carryShares(plan *servicePlan, old bpf.ServiceName, known bool) (Word, error) {
	var shares [4]Share
	// Without its release a version has no share: nobody would judge it.
	if _, held := p.held[old.Word]; known && !held {
		for name, slot := range plan.slots {
			if was, ok := slotNamed(old, name); ok {
				shares[slot-1] = p.word(old.Word).Share(was)
			}
		}
	}
	// The epoch goes on from what the word held for somebody else.
	return MakeWord(shares, p.word(plan.record.Word).Epoch()+1)
}

// slotNamed returns the slot of a version other than stable.
func slotNamed(rec bpf.ServiceName, name string) (uint8, bool) {
	for slot := 1; slot < slots; slot++ {
		if bpf.Text(rec.Versions[slot][:]) == name {
			return uint8(slot), true
		}
	}
	return 0, false
}

// planVersions gives each version a slot of the word and a version id.
func (p *planner) planVersions(plan *servicePlan, rec *bpf.ServiceName, old bpf.ServiceName) error {
	versions := slices.Clone(plan.desired.Versions)
	slices.SortStableFunc(versions, func(a, b Version) int { // those with a slot first
		_, x := slotNamed(old, a.Name)
		_, y := slotNamed(old, b.Name)
		return map[bool]int{true: -1, false: 1}[x] - map[bool]int{true: -1, false: 1}[y]
	})
	for _, v := range versions {
		slot := uint8(0)
		if v.Name != Stable {
			var err error
			if slot, err = p.chooseSlot(plan, rec.Word, v.Name, old); err != nil {
				// The versions that go away must not wait for it: they may be
				// those that have the slots.
				plan.waiting = errors.Join(plan.waiting, fmt.Errorf("version %s: %w", v.Name, err))
				continue
			}
			plan.slots[v.Name] = slot
		}
		id, err := p.versionID(plan, v.Name, old)
		if err != nil {
			return err
		}
		clearName(rec, v.Name)
		bpf.SetText(rec.Versions[slot][:], v.Name)
		rec.Latency[slot] = id
	}
	return nil
}

func clearName(rec *bpf.ServiceName, name string) {
	for slot := range rec.Versions {
		if bpf.Text(rec.Versions[slot][:]) == name {
			clear(rec.Versions[slot][:])
			rec.Latency[slot] = 0
		}
	}
}

// versionID returns the version's index into latencies.
func (p *planner) versionID(plan *servicePlan, name string, old bpf.ServiceName) (uint32, error) {
	for slot := range old.Versions {
		if old.Used != 0 && bpf.Text(old.Versions[slot][:]) == name {
			return old.Latency[slot], nil
		}
	}
	id, err := p.ids.versions.take(func(id uint32) bool { return p.used.versions[id] })
	if err != nil {
		return 0, err
	}
	p.used.versions[id] = true
	plan.freshVers = append(plan.freshVers, id)
	return id, nil
}

// chooseSlot finds the slot of a version in a word. All services that share
// the word agree on it, since one share in the word is that slot's for all.
func (p *planner) chooseSlot(plan *servicePlan, word uint32, name string, old bpf.ServiceName) (uint8, error) {
	type holder struct{ live, leftover, same bool }
	var held [slots]holder
	for id := range p.byWord[word] {
		rec := p.records[id]
		for slot := 1; slot < slots; slot++ {
			switch n := bpf.Text(rec.Versions[slot][:]); {
			case n == "":
			case n == name:
				held[slot].same = true
			case p.live[rec.Latency[slot]] || p.planned(id, n):
				held[slot].live = true
			default:
				held[slot].leftover = true
			}
		}
	}
	for n, slot := range plan.slots {
		held[slot].live = held[slot].live || n != name
	}
	was, _ := slotNamed(old, name)
	for _, fits := range []func(uint8, holder) bool{
		func(_ uint8, h holder) bool { return h.same && !h.live },
		func(s uint8, h holder) bool { return s == was && h == holder{} },
		func(_ uint8, h holder) bool { return h == holder{} },
		func(s uint8, h holder) bool { return !h.live && p.idle(word, s) },
	} {
		for slot := uint8(1); slot < slots; slot++ {
			if fits(slot, held[slot]) {
				return slot, nil
			}
		}
	}
	return 0, ErrNoSlot
}

// planned reports whether a service was planned with this version.
func (p *planner) planned(id uint32, version string) bool {
	plan := p.byID[id]
	if plan == nil {
		return false
	}
	_, ok := plan.slots[version]
	return ok
}

// idle reports whether no new connection can get to a slot: its share is zero
// and no frontend's table leads there.
func (p *planner) idle(word uint32, slot uint8) bool {
	for _, f := range p.actual.frontends {
		if f.Word == word && !retiredFrontend(f) && f.Tables[slot].Length > 0 {
			return false
		}
	}
	return p.word(word).Share(slot) == 0
}

// saltOf is the salt of a service's bucket hash. It depends on the names only,
// so every host gives a client the same version.
func saltOf(group, name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(group + "\x00" + name)) // a hash.Hash never fails
	return h.Sum32()
}
