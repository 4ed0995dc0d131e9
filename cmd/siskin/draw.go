package main

import (
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// draw prints lines, on a terminal in the place of the over ones that were
// drawn before.
func (a *app) draw(lines []string, over int) error {
	var b strings.Builder
	if over > 0 && a.terminal() {
		b.WriteString("\x1b[" + count(uint64(over)) + "A\r\x1b[J")
	}
	for _, line := range lines {
		b.WriteString(a.tinted(line) + "\n")
	}
	_, err := a.out.Write([]byte(b.String()))
	return err
}

// fit cuts lines to what a terminal shows, so that none takes two rows and all
// of them can be drawn over.
func (a *app) fit(lines []string) []string {
	rows, columns := a.size()
	if columns == 0 {
		return lines
	}
	if len(lines) >= rows && rows > 2 {
		lines = append(lines[:rows-2:rows-2], "└ …")
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		if out[i] = line; utf8.RuneCountInString(line) > columns {
			out[i] = string([]rune(line)[:columns-1]) + "…"
		}
	}
	return out
}

// size is that of the terminal; 0 where the output is none.
func (a *app) size() (rows, columns int) {
	f, ok := a.out.(*os.File)
	if !ok {
		return 0, 0
	}
	w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(w.Row), int(w.Col)
}

// tinted colours the signs in a line, and the phase.
func (a *app) tinted(line string) string {
	if !a.colors() {
		return line
	}
	for what, color := range map[string]string{
		"✔": green, "✖": red, "॥": yellow,
		"  Succeeded  ": green, "  RollingBack  ": red, "  RolledBack  ": red, "  Aborted  ": red, "  Paused  ": yellow,
	} {
		line = strings.ReplaceAll(line, what, "\x1b["+color+"m"+what+"\x1b[0m")
	}
	return line
}
