package daemon

import (
	"maps"

	"siskin.dev/siskin/steering"
)

// live returns the live weights of all services.
func (d *daemon) live() map[string]map[string]steering.Share {
	out := make(map[string]map[string]steering.Share)
	for _, s := range d.rec.Status() {
		if !s.Retired {
			out[s.Name] = liveShares(s)
		}
	}
	maps.Copy(out, d.forgotten)
	return out
}

// restoreWeights sets the weights that the kernel has forgotten. Hooks come
// after it, so no packet meets the documents' weights first.
func (d *daemon) restoreWeights() {
	for name, shares := range d.forgotten {
		change, err := d.rec.SetWeights(name, shares)
		if err != nil {
			// Its versions are others by now, or it could not be made at all.
			d.events.warn("service/"+name, "WeightsLost", "the weights from before the restart cannot be set again: "+err.Error())
		} else if change.Old != change.New {
			d.events.normal("service/"+name, "WeightsRestored", "as before the restart: "+sharesText(change.Shares))
		}
	}
	d.forgotten = nil
}

// forgottenBy picks the weights that the kernel, which steers the services in
// known, has forgotten. Those that a document changes meanwhile are not missed.
func (s saved) forgottenBy(known, next documents) map[string]map[string]steering.Share {
	out := make(map[string]map[string]steering.Share)
	for _, old := range s.Services {
		name := old.Metadata.Name
		now := next[name]
		if known[name] != nil || now == nil {
			continue
		}
		shares := make(map[string]steering.Share)
		for v, share := range s.Live[name] {
			if _, still := now.Spec.Versions[v]; still && v != steering.Stable && now.Spec.Weights[v] == old.Spec.Weights[v] {
				shares[v] = share
			}
		}
		if len(shares) > 0 {
			out[name] = shares
		}
	}
	return out
}
