// Package bpf holds the kernel programs and the Go view of their maps.
//
// The C in this folder defines every layout once; the Go types are generated
// from its BTF by bpf2go and are compared with the C in layout_test.go.
package bpf

//go:generate -command compile go tool bpf2go -target bpfel -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Wextra -Wno-unused-parameter -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -no-global-types
//go:generate compile -type addr -type tuple -type table -type frontend -type backend -type endpoint -type flow_key -type alias -type hop -type flow -type slot -type slot_use -type bucket -type clockwork -type shortage -type port_tries -type tally -type histogram -type latency -type service_name -type cutoff -type frontend_flag -type backend_flag -type flow_flag -type release -type outcome -type outcome_kind -type success -type errors -type breaker -type event -type event_kind -type reason -type answers -type answer -type talk -type reader -type talk_kind -type piece -type piece_flag -type heard -type heard_what obj siskin.bpf.c
//go:generate compile xdp xdp.bpf.c
