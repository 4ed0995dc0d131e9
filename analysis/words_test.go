package analysis

import (
	"math"
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		thousands(0): "0", thousands(999): "999", thousands(1204): "1,204", thousands(1_000_000): "1,000,000",
		percent(0): "0 %", percent(1): "100 %", percent(.033443): "3.3 %", percent(.05): "5 %", percent(.5): "50 %",
		percent(.002257): "0.23 %", percent(.0005): "0.05 %", percent(.00001): "0.001 %", percent(.0995): "10 %",
		percent(.00953): "1 %", percent(.0101): "1 %", percent(.25): "25 %",
		evidence(math.Log(214)): "214", evidence(math.Log(99.9)): "99", evidence(math.Log(100)): "100", evidence(math.Log(9.999)): "9.99", evidence(math.Log(12.4)): "12",
		evidence(math.Log(1.5)): "1.5", evidence(0): "1", evidence(-20): "below 0.01", evidence(1e6): "above 1,000,000",
		evidence(math.Log(447_423)): "447,423",
		took(52 * time.Millisecond): "52 ms", took(62_400 * time.Microsecond): "62.4 ms", took(1200 * time.Millisecond): "1.2 s",
		took(953): "1 µs", took(1250 * time.Microsecond): "1.25 ms", took(250 * time.Microsecond): "250 µs",
		counted(1, "client"): "1 client", counted(1500, "connection"): "1,500 connections",
		worst(Rate{}, "client"): "", worst(Rate{Clients: 6}, "client"): " (6 clients)",
		worst(Rate{Clients: 6, Backends: []Backend{{"10.1.0.4:8080", 7}}}, "client"):                              " (6 clients; 10.1.0.4:8080 7)",
		worst(Rate{Backends: []Backend{{"a", 1}, {"b", 5000}, {"c", 0}, {"d", 2}, {"e", 1}, {"f", 1}}}, "client"): " (b 5,000, d 2, a 1, 2 more)",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
