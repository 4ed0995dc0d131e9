package main

import (
	"fmt"
	"strings"

	"siskin.dev/siskin/scripts/bench/lab"
)

// The packet filters translate the destination only. Replies come back through
// the host in these networks, so they need no source NAT, which would only
// slow them down.

type iptables struct {
	*setup
	binary string
}

func startIptables(u *setup, canary int) (balancer, error) {
	// Not iptables-nft: its data path is that of nftables.
	i := iptables{u, "iptables-legacy"}
	frontend := []string{"-d", lab.Frontend.Addr().String(), "-p", "tcp", "--dport", fmt.Sprint(lab.Frontend.Port())}
	for _, rule := range [][]string{
		{"-N", "SPLIT"},
		append([]string{"-A", "PREROUTING", "-j", "SPLIT"}, frontend...),
		append([]string{"-A", "SPLIT"}, i.some(canary)...),
		{"-A", "SPLIT", "-p", "tcp", "-j", "DNAT", "--to-destination", u.StableAt.String()},
	} {
		if err := i.nat(rule...); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (i iptables) nat(args ...string) error {
	_, err := i.Host.Run("", i.binary, append([]string{"-w", "-t", "nat"}, args...)...)
	return err
}

// some is the rule that gives the canary its share.
func (i iptables) some(canary int) []string {
	return []string{"-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", fmt.Sprintf("%.2f", float64(canary)/100),
		"-j", "DNAT", "--to-destination", i.CanaryAt.String()}
}

func (i iptables) shift(canary int) error {
	return i.nat(append([]string{"-R", "SPLIT", "1"}, i.some(canary)...)...)
}

type nftables struct{ *setup }

func startNftables(u *setup, canary int) (balancer, error) {
	n := nftables{u}
	return n, n.load("table ip bench { chain split { type nat hook prerouting priority dstnat; }; }\n" + n.rule(canary))
}

func (n nftables) load(script string) error {
	_, err := n.Host.Run(script, "nft", "-f", "-")
	return err
}

func (n nftables) rule(canary int) string {
	var parts []string
	if canary > 0 {
		parts = append(parts, fmt.Sprintf("0-%d : %v . %d", canary-1, n.CanaryAt.Addr(), n.CanaryAt.Port()))
	}
	if canary < 100 {
		parts = append(parts, fmt.Sprintf("%d-99 : %v . %d", canary, n.StableAt.Addr(), n.StableAt.Port()))
	}
	return fmt.Sprintf("add rule ip bench split ip daddr %v tcp dport %d dnat ip to numgen random mod 100 map { %s }\n",
		lab.Frontend.Addr(), lab.Frontend.Port(), strings.Join(parts, ", "))
}

// shift is one transaction.
func (n nftables) shift(canary int) error {
	return n.load("flush chain ip bench split\n" + n.rule(canary))
}
