package api

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"siskin.dev/siskin/steering"
)

func TestEveryShareSurvivesItsText(t *testing.T) {
	for s := range Share(steering.Whole) + 1 {
		if got, err := ParseShare(s.String()); err != nil || got != s {
			t.Fatalf("%d → %s → %d, %v", s, s, got, err)
		}
	}
}

func TestParseShare(t *testing.T) {
	for text, want := range map[string]Share{"5%": 500, "5.00%": 500, "0.1%": 10, "0.01%": 1, "0%": 0, "100%": 10000, "12.3400%": 1234, "5 %": 500} {
		if got, err := ParseShare(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, hint := range map[string]string{
		"5": "as in 5%", "0.05": "as in 0.05%", "500": "as in 5%", "five": "as in 5%", "": "as in 5%",
		"%": "as in 5%", "5.%": "as in 5%", ".5%": "as in 5%", "-1%": "as in 5%", "+5%": "as in 5%", "1e1%": "as in 5%", "5%%": "as in 5%",
		"0.001%": "steps of 0.01%", "100.01%": "more than 100%", "99999999999999999999%": "more than 100%",
	} {
		if got, err := ParseShare(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %d, %v, want a hint with %q", text, got, err, hint)
		}
	}
}

func TestFrontendsAndAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"198.18.0.10:80/tcp":             "198.18.0.10:80/tcp",
		"[2001:db8::10]:53/udp":          "[2001:db8::10]:53/udp",
		"[::ffff:198.18.0.10]:80/tcp":    "198.18.0.10:80/tcp",
		"[2001:0db8:0:0::0010]:8080/tcp": "[2001:db8::10]:8080/tcp",
	} {
		if f, err := ParseFrontend(text); err != nil || f.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, f, err, want)
		}
	}
	for text, hint := range map[string]string{
		"198.18.0.10:80":        "write 198.18.0.10:80/tcp or 198.18.0.10:80/udp",
		"198.18.0.10/tcp":       "write 198.18.0.10:8080",
		"[2001:db8::10]/tcp":    "write [2001:db8::10]:8080",
		"2001:db8::10:80/tcp":   "or [2001:db8::10]:80 where 80 is the port",
		"[fe80::1%eth0]:80/tcp": "zone",
		"shop.example:80/tcp":   "names are not looked up",
		"198.18.0.10:80/TCP":    "write tcp or udp",
		"198.18.0.10:-1/tcp":    "write a number from 1 to 65535",
		"198.18.0.10:80/tcp/x":  "write tcp or udp",
		"/tcp":                  "write ip:port",
	} {
		if f, err := ParseFrontend(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, %v, want a hint with %q", text, f, err, hint)
		}
	}
}

// The parsers take what anybody types.
func TestParsersSurviveAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\[\]0-9a-f.:/%]{0,24}(/tcp)?`)).Draw(t, "text")
		if f, err := ParseFrontend(text); err == nil {
			if again, err := ParseFrontend(f.String()); err != nil || again != f {
				t.Fatalf("%q → %v → %v, %v", text, f, again, err)
			}
		}
		if s, err := ParseShare(text); err == nil && s > Share(steering.Whole) {
			t.Fatalf("%q is %d", text, s)
		}
	})
}

func TestStatuses(t *testing.T) {
	for text, want := range map[string]bool{"200": true, "200-299": true, "200,204, 301-302": true, "": false, "20x": false,
		"299-200": false, "99": false, "600": false, "200-": false, ",": false} {
		if statuses(text) != want {
			t.Errorf("%q: %t, want %t", text, !want, want)
		}
	}
}
