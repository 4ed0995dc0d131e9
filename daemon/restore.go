package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// readFiles reads the documents named on the command line.
func readFiles(names []string) ([]api.Document, error) {
	var sources []api.Source
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the documents: %w", err)
		}
		sources = append(sources, api.Source{Name: name, Data: data})
	}
	return api.Read(sources...)
}

// takeOver finds out what shall be: the documents of the state file, or what
// the kernel does where that file is of no use; then the files given. fileErr
// is what reading those came to.
func (d *daemon) takeOver(files []api.Document, fileErr error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	state, err := readState(d.opts.statePath())
	known := intent{}
	switch {
	case err == nil:
		known = state.intent()
		d.rec.Remember(state.Applied)
		d.restoreBaselines(state.Baselines)
	case errors.Is(err, errCorrupt):
		place, moveErr := setAside(d.opts.statePath(), time.Now())
		if moveErr != nil {
			place = fmt.Sprintf("about to be replaced, since it could not be kept (%v)", moveErr)
		}
		d.events.warn("daemon", "StateCorrupt", fmt.Sprintf(
			"%v; it is now %s, and steering goes on with what the kernel has. Apply your documents again", err, place))
		known = d.fromKernel().alone()
	case errors.Is(err, fs.ErrNotExist):
		known = d.fromKernel().alone()
	default:
		return err
	}
	next, refused, err := known.withFiles(files, fileErr)
	if err != nil {
		return err
	}
	if refused != nil {
		d.events.warn("daemon", "FilesRefused", fmt.Sprintf(
			"%v; steering goes on with what was applied before. Correct the files, then apply them or restart the daemon", refused))
		files = nil
	}
	for _, doc := range files {
		for _, w := range doc.Warnings() {
			d.events.warn(strings.ToLower(doc.Kind())+"/"+doc.Name(), "Applied", w)
		}
	}
	d.forgotten = state.forgottenBy(d.fromKernel(), next.services)
	// A full disk must not keep anyone from rolling back: the loop writes the
	// file when there is room again.
	if err := d.write(next); err != nil {
		d.saveFailed(err)
	}
	d.mu.Lock()
	d.intended = next
	d.mu.Unlock()
	return nil
}

// fromKernel writes documents for the services that the kernel steers.
func (d *daemon) fromKernel() documents {
	out := documents{}
	for _, s := range d.rec.Desired() {
		out[s.Name] = documentOf(s)
	}
	return out
}

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
