package metrics

import "siskin.dev/siskin/steering"

// FromStatus returns the services of a Reconciler's status, without baselines.
func FromStatus(status []steering.ServiceStatus) []Service {
	out := make([]Service, 0, len(status))
	for _, s := range status {
		service := Service{Name: s.Name}
		for _, v := range s.Versions {
			version := Version{
				Name:    v.Name,
				Latency: v.Latency,
				Asked:   float64(v.Share) / float64(steering.Whole),
				Retired: s.Retired || v.Retired,
			}
			for _, b := range v.Backends {
				version.Backends = append(version.Backends, Backend{
					ID:      b.ID,
					Address: b.Addr.String(),
					Up:      b.State == steering.Active,
					Retired: version.Retired || b.Retired,
				})
			}
			service.Versions = append(service.Versions, version)
		}
		out = append(out, service)
	}
	return out
}
