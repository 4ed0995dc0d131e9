package steering

import "cmp"

// Health counts how the backends of a version fare that have a weight: those of
// one family, since each has a table of its own.
type Health struct {
	Version  string
	Family   Family
	Up       int // they answer, or nobody asks
	Starting int // nobody knows yet
	Total    int
}

// None tells that no backend answers and none may be about to: the version's
// share goes to stable. Of stable it means that health is ignored.
func (h Health) None() bool { return h.Up == 0 && h.Starting == 0 && h.Total > 0 }

// Worst returns the health of a version in the family that fares worst; all is
// zero where there is no such version.
func (s ServiceStatus) Worst(version string) Health {
	var worst Health
	for _, h := range s.Health() {
		if h.Version == version && (worst.Total == 0 || h.worse(worst)) {
			worst = h
		}
	}
	return worst
}

func (h Health) worse(than Health) bool {
	return cmp.Or(cmp.Compare(h.Up, than.Up), cmp.Compare(h.Starting, than.Starting)) < 0
}

// Health returns the health of the versions, in each family that the service has
// a frontend of.
func (s ServiceStatus) Health() []Health {
	var frontends []Frontend
	for _, f := range s.Frontends {
		if !f.Retired {
			frontends = append(frontends, f.Frontend)
		}
	}
	used := familiesOf(frontends)
	var out []Health
	for _, v := range s.Versions {
		if v.Retired {
			continue
		}
		for _, family := range []Family{IPv4, IPv6} {
			if h := v.health(family); used[family] && h.Total > 0 {
				out = append(out, h)
			}
		}
	}
	return out
}

func (v VersionStatus) health(family Family) Health {
	h := Health{Version: v.Name, Family: family}
	for _, b := range v.Backends {
		if b.Retired || b.Weight == 0 || FamilyOf(b.Addr.Addr()) != family {
			continue
		}
		h.Total++
		switch b.State {
		case Active:
			h.Up++
		case Starting:
			h.Starting++
		}
	}
	return h
}

// StatesOf returns how the backends fare that are not retired.
func StatesOf(status []ServiceStatus) map[BackendName]BackendState {
	out := map[BackendName]BackendState{}
	for _, s := range status {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				if !s.Retired && !v.Retired && !b.Retired {
					out[BackendName{s.Name, v.Name, b.Addr}] = b.State
				}
			}
		}
	}
	return out
}
