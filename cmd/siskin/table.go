package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// table is rows of cells under a head, aligned by the letters that are seen;
// text/tabwriter would count the colours, too.
type table struct {
	head []string
	rows [][]string
	tint func(column int, cell string) string // returns an ANSI colour or ""
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) error {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			color := ""
			if t.tint != nil && n > 0 {
				color = t.tint(i, cell)
			}
			if color != "" {
				b.WriteString("\x1b[" + color + "m" + cell + "\x1b[0m")
			} else {
				b.WriteString(cell)
			}
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ANSI colours.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// human writes a duration with two or three digits: 210µs, 1.2ms, 3.4s, 5m3s.
func human(d time.Duration) string {
	switch {
	case d <= 0:
		return "0s"
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return digits(float64(d)/float64(time.Microsecond), "µs")
	case d < time.Second:
		return digits(float64(d)/float64(time.Millisecond), "ms")
	case d < time.Minute:
		return digits(d.Seconds(), "s")
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func digits(v float64, unit string) string {
	if v < 9.95 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + unit
	}
	return fmt.Sprintf("%.0f%s", v, unit)
}

// seconds is a duration of a view, "-" where there is no data.
func seconds(s *float64) string {
	if s == nil {
		return "-"
	}
	return human(time.Duration(*s * float64(time.Second)))
}

// ratio is a share that was achieved, in percent.
func ratio(r *float64) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", *r*100)
}

// size is a number of bytes.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	v, units := float64(n), "KMGTPE"
	for i := range units {
		if v /= 1024; v < 1024 || i == len(units)-1 {
			return digits(v, units[i:i+1]+"iB")
		}
	}
	return ""
}
