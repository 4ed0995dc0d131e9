package metrics

import "github.com/prometheus/client_golang/prometheus"

// descs are the metrics of a Collector. Names and labels are a contract: what
// people have built on them breaks when they change.
type descs struct {
	// by service, version and backend
	connections, established, active *prometheus.Desc
	errors, bytes, packets           *prometheus.Desc
	retransmits, up                  *prometheus.Desc
	requests, lost, tls              *prometheus.Desc

	// by service and version
	connect, response, weight, share *prometheus.Desc

	// of the host
	drops, passes, special            *prometheus.Desc
	entries, capacity, unproven       *prometheus.Desc
	insertFailures, agings, mapMemory *prometheus.Desc
	portTries                         *prometheus.Desc
}

func newDescs() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("siskin_"+name, help, labels, nil)
	}
	backend := func(name, help string, labels ...string) *prometheus.Desc {
		return desc(name, help, append([]string{"service", "version", "backend"}, labels...)...)
	}
	version := func(name, help string) *prometheus.Desc {
		return desc(name, help, "service", "version")
	}
	return descs{
		connections: backend("connections_total",
			"Connections (TCP and UDP) that were given to a backend."),
		established: backend("connections_established_total",
			"Connections whose handshake was completed by the client; of UDP, those that had a reply."),
		active: backend("connections_active",
			"Connections that are open now."),
		errors: backend("connection_errors_total",
			"Connections that failed on the server's side: refused (RST to the SYN), timeout (SYNs without an answer), reset (RST before a response), unreachable (ICMP error to the handshake), tls (a fatal alert in the TLS handshake).",
			"reason"),
		bytes: backend("bytes_total",
			"Payload steered, in from clients or out to them; each byte of a TCP stream counts once.", "direction"),
		packets: backend("packets_total",
			"Packets steered, in from clients or out to them.", "direction"),
		retransmits: backend("retransmits_total",
			"TCP segments seen again, in from clients or out to them.", "direction"),
		up: backend("backend_up",
			"Whether a backend answers its health check; 1 where there is none."),
		requests: backend("requests_total",
			"Requests by how they were answered: status class, gRPC status, or unparsed: on connections that do not speak HTTP, or lost (siskin_requests_lost_total). A service has the codes that any of its backends ever had.",
			"code"),
		lost: backend("requests_lost_total",
			"Requests on connections that speak HTTP, or shall (spec.observe: requests), which could not be followed, so they are missing from the known codes. They count as unparsed, too; what is unparsed beyond them is on connections that do not speak HTTP, where nothing is missing."),
		tls: backend("requests_tls_total",
			"Of the unparsed requests, answers on TLS connections; absent where a service has none."),

		connect: version("connect_duration_seconds",
			"Time from a connection's first SYN to the server's SYN-ACK, as this host saw them."),
		response: version("response_duration_seconds",
			"Time from the start of a request to the first byte of its response, as this host saw them."),
		weight: version("weight_ratio",
			"Share of new connections that a version should get."),
		share: version("share_ratio",
			"Share of new connections that a version was given since the weights last changed; absent while there were none."),

		drops: desc("drops_total",
			"Packets to a frontend or from a backend that were dropped.", "reason"),
		passes: desc("passes_total",
			"Packets to a frontend or from a backend that went on untouched.", "reason"),
		special: desc("special_cases_total",
			"Packets that were steered in an unusual way.", "kind"),

		entries: desc("flow_table_entries",
			"Connections that the flow table remembers; closed ones for a while, too."),
		capacity: desc("flow_table_capacity",
			"Connections that the flow table can remember."),
		unproven: desc("flow_table_unproven",
			"Connections that count against a quota: TCP handshakes that are not complete, and all of UDP.", "proto"),
		insertFailures: desc("flow_table_insert_failures_total",
			"New connections that found no room: the flow table or a quota of handshakes or UDP was full."),
		agings: desc("flow_table_aging_runs_total",
			"Runs of the kernel timer that clears the flow table; it stands still only when that is broken."),
		portTries: desc("source_port_tries",
			"Source ports that were looked at for a new connection until it had one; none where the client's own was kept. Connections that were refused for want of a port are above the last bound."),
		mapMemory: desc("map_memory_bytes",
			"Kernel memory of a BPF map.", "map"),
	}
}

func (d *descs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.connections, d.established, d.active, d.errors, d.bytes, d.packets,
		d.retransmits, d.up, d.requests, d.lost, d.tls, d.connect, d.response, d.weight, d.share, d.drops,
		d.passes, d.special, d.entries, d.capacity, d.unproven,
		d.insertFailures, d.agings, d.portTries, d.mapMemory,
	}
}
