package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// stateFormat is the version of the state file's layout.
const stateFormat = 1

// saved is what the state file holds: the documents that were applied last,
// and what the kernel forgets when the machine restarts.
type saved struct {
	Format   int            `json:"format"`
	Services []*api.Service `json:"services"`
	// Documents are those of Services as they were applied, where a promotion has
	// changed them since.
	Documents []*api.Service       `json:"documents,omitempty"`
	Releases  []*api.Release       `json:"releases,omitempty"`
	Promoted  map[string]promotion `json:"promoted,omitempty"`
	// Applied are the documents' weights that were carried out, by service and
	// version.
	Applied map[string]map[string]steering.Share `json:"applied,omitempty"`
	// Live are the weights as they were. While the kernel has them it knows
	// better; after a restart of the machine a rollback must not come undone.
	Live map[string]map[string]steering.Share `json:"live,omitempty"`
	// Baselines are what the achieved shares are counted from.
	Baselines baselines `json:"baselines"`
}

// envelope guards the state against half-written and altered files.
type envelope struct {
	SHA256 string          `json:"sha256"` // of the bytes of State
	State  json.RawMessage `json:"state"`
}

// errCorrupt means that the state file cannot be used.
var errCorrupt = errors.New("the state file is damaged")

// readState reads the state file. There is none: fs.ErrNotExist. It cannot be
// used: errCorrupt.
func readState(path string) (saved, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return saved{}, fmt.Errorf("read the state file: %w", err)
	}
	return decodeState(raw)
}

func decodeState(raw []byte) (saved, error) {
	var env envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return saved{}, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if sum := checksum(env.State); sum != env.SHA256 {
		return saved{}, fmt.Errorf("%w: its checksum is %.12s…, not %.12s…", errCorrupt, sum, env.SHA256)
	}
	// The documents go through the parser that reads files, so that they get
	// the same checks and defaults.
	var state struct {
		Format    int                                  `json:"format"`
		Services  []json.RawMessage                    `json:"services"`
		Documents []json.RawMessage                    `json:"documents"`
		Releases  []json.RawMessage                    `json:"releases"`
		Promoted  map[string]promotion                 `json:"promoted"`
		Applied   map[string]map[string]steering.Share `json:"applied"`
		Live      map[string]map[string]steering.Share `json:"live"`
		Baselines baselines                            `json:"baselines"`
	}
	if err := json.Unmarshal(env.State, &state); err != nil {
		return saved{}, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if state.Format != stateFormat {
		return saved{}, fmt.Errorf("%w: it has format %d, this build reads %d", errCorrupt, state.Format, stateFormat)
	}
	out := saved{Format: state.Format, Applied: state.Applied, Live: state.Live, Baselines: state.Baselines, Promoted: state.Promoted}
	for _, list := range []struct {
		what string
		raw  []json.RawMessage
		take func(api.Document)
	}{
		{"service", state.Services, func(d api.Document) { out.Services = append(out.Services, d.Service) }},
		{"document", state.Documents, func(d api.Document) { out.Documents = append(out.Documents, d.Service) }},
		{"release", state.Releases, func(d api.Document) { out.Releases = append(out.Releases, d.Release) }},
	} {
		for i, doc := range list.raw {
			docs, err := api.Parse(fmt.Sprintf("state.json %s %d", list.what, i+1), doc)
			if err != nil {
				return saved{}, fmt.Errorf("%w: %w", errCorrupt, err)
			}
			for _, d := range docs {
				list.take(d)
			}
		}
	}
	return out, nil
}

// intent is what shall be by the state.
func (s saved) intent() intent {
	services := documents{}
	for _, doc := range s.Services {
		services[doc.Metadata.Name] = doc
	}
	out := services.alone()
	for _, doc := range s.Documents {
		out.applied[doc.Metadata.Name] = doc
	}
	for _, r := range s.Releases {
		out.releases[r.Metadata.Name] = r
	}
	maps.Copy(out.promoted, s.Promoted)
	return out
}

// encodeState is the opposite of decodeState.
func encodeState(s saved) ([]byte, error) {
	s.Format = stateFormat
	state, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	raw, err := json.Marshal(envelope{SHA256: checksum(state), State: state})
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	return append(raw, '\n'), nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// writeState replaces the state file: after a crash at any moment there is
// the old one or the new one.
func writeState(path string, s saved) error {
	raw, err := encodeState(s)
	if err != nil {
		return err
	}
	if err := replaceFile(path, raw); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	return nil
}

func replaceFile(path string, raw []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(raw); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	// The rename itself must reach the disk as well.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// setAside renames a state file that cannot be used, so that nothing is lost
// and the next start does not stumble over it.
func setAside(path string, now time.Time) (string, error) {
	to := path + ".corrupt-" + now.UTC().Format("20060102T150405Z")
	for i := 2; ; i++ {
		_, err := os.Lstat(to)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("set the state file aside: %w", err)
		}
		to = fmt.Sprintf("%s.corrupt-%s-%d", path, now.UTC().Format("20060102T150405Z"), i)
	}
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("set the state file aside: %w", err)
	}
	return to, nil
}
