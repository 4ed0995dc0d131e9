package bed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Programs lists the names of the programs on a tcx hook of an interface.
func (n *Namespace) Programs(dev string, hook ebpf.AttachType) []string {
	n.tb.Helper()
	index := n.Ifindex(dev)
	var names []string
	err := n.Do(func() error {
		result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook})
		if err != nil {
			return err
		}
		for _, p := range result.Programs {
			program, err := ebpf.NewProgramFromID(p.ID)
			if err != nil {
				return err
			}
			info, err := program.Info()
			program.Close()
			if err != nil {
				return err
			}
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		n.tb.Fatalf("%s: list the programs on %s: %v", n.Role, dev, err)
	}
	return names
}

// Filters lists the filters on the clsact hooks of an interface, one a line,
// as tc writes them.
func (n *Namespace) Filters(dev, hook string) []string {
	n.tb.Helper()
	var bpf []string
	for line := range strings.Lines(n.Run("", "tc", "filter", "show", "dev", dev, hook)) {
		if strings.Contains(line, "handle") {
			bpf = append(bpf, strings.TrimSpace(line))
		}
	}
	return bpf
}

// Held are the ids of the kernel objects that a daemon has pinned.
type Held struct {
	Maps     []ebpf.MapID
	Links    []link.ID
	Programs []ebpf.ProgramID // that the links hold
}

// Held reads what is pinned now.
func (s *Siskin) Held() Held {
	s.bed.tb.Helper()
	var h Held
	err := filepath.WalkDir(s.BPFFS(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return h.add(path)
	})
	if err != nil {
		s.bed.tb.Fatalf("read what is pinned: %v", err)
	}
	return h
}

// add opens a pin without knowing what it is: each kind refuses the others.
func (h *Held) add(path string) error {
	if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
		defer m.Close()
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		h.Maps = append(h.Maps, id)
		return nil
	}
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		defer l.Close()
		info, err := l.Info()
		if err != nil {
			return err
		}
		h.Links = append(h.Links, info.ID)
		h.Programs = append(h.Programs, info.Program)
		return nil
	}
	p, err := ebpf.LoadPinnedProgram(path, nil)
	if err != nil {
		return fmt.Errorf("%s is no map, link or program", path)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	h.Programs = append(h.Programs, id)
	return nil
}

// Left tells which of the objects still exist. The kernel frees them after a
// grace period.
func (h Held) Left() []string {
	var left []string
	for _, id := range h.Maps {
		if m, err := ebpf.NewMapFromID(id); !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("map %d (%v)", id, err))
			m.Close()
		}
	}
	for _, id := range h.Links {
		if l, err := link.NewFromID(id); err == nil {
			left = append(left, fmt.Sprintf("link %d", id))
			l.Close()
		} else if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EAGAIN) {
			left = append(left, fmt.Sprintf("link %d (%v)", id, err))
		}
	}
	for _, id := range h.Programs {
		if p, err := ebpf.NewProgramFromID(id); !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("program %d (%v)", id, err))
			p.Close()
		}
	}
	return left
}

// Detach detaches the pinned links of an interface behind the daemon's back,
// as another tool may do, and tells how many there were.
func (s *Siskin) Detach(dev string) int {
	s.bed.tb.Helper()
	index := s.host.Ifindex(dev)
	detached := 0
	err := filepath.WalkDir(s.BPFFS(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return nil // a map or a program
		}
		defer l.Close()
		info, err := l.Info()
		if err != nil {
			return err
		}
		if tcx := info.TCX(); tcx == nil || int(tcx.Ifindex) != index {
			return nil
		}
		detached++
		return l.Detach()
	})
	if err != nil {
		s.bed.tb.Fatalf("detach the links of %s: %v", dev, err)
	}
	return detached
}
