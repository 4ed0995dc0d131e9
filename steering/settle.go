package steering

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// settle decides what to carry out of what is desired: a service with a fault
// keeps its last good state, or stays out if it has none. last holds the last
// good state of each service, which are free of conflicts between each other.
// The second result is what is wrong, by service.
func settle(last map[string]Service, desired []Service) ([]Service, map[string]error) {
	desired = slices.Clone(desired)
	slices.SortStableFunc(desired, func(a, b Service) int {
		// Of two services in conflict the later is named: let it be the new one.
		_, x := last[a.Name]
		_, y := last[b.Name]
		if x != y {
			return map[bool]int{true: -1, false: 1}[x]
		}
		return strings.Compare(a.Name, b.Name)
	})
	faults := map[string]error{}
	for _, f := range Faults(desired) {
		var fe *FieldError
		if errors.As(f, &fe) {
			faults[fe.Service] = errors.Join(faults[fe.Service], f)
		}
	}
	for {
		out, clash := choose(last, desired, faults)
		if clash == nil {
			return out, faults
		}
		faults[clash.Service] = errors.Join(faults[clash.Service], clash)
	}
}

// choose takes the last good state of the services with faults. Where a
// service without one then wants what another keeps, it is the clash.
func choose(last map[string]Service, desired []Service, faults map[string]error) ([]Service, *FieldError) {
	var out []Service
	seen := map[string]bool{}
	kept := map[Frontend]string{}
	for _, s := range desired {
		if seen[s.Name] {
			continue
		}
		seen[s.Name] = true
		if faults[s.Name] == nil {
			out = append(out, s)
			continue
		}
		if old, ok := last[s.Name]; ok {
			out = append(out, old)
			for _, f := range old.Frontends {
				kept[f.unmapped()] = s.Name
			}
		}
	}
	for _, s := range out {
		if faults[s.Name] != nil {
			continue
		}
		for i, f := range s.Frontends {
			if owner, ok := kept[f.unmapped()]; ok {
				return nil, &FieldError{s.Name, frontendField(i),
					fmt.Sprintf("%s is still used by service %s, whose new state has faults; mend those first", f, owner)}
			}
		}
	}
	return out, nil
}
