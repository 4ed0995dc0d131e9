package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// WriteRequests writes one line for each request.
func WriteRequests(path string, requests []Request) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the requests: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := csv.NewWriter(f)
	for _, r := range requests {
		line := []string{strconv.FormatInt(r.Start, 10), strconv.Itoa(r.Client), r.Server, r.Err}
		if err := w.Write(line); err != nil {
			return fmt.Errorf("write the requests: %w", err)
		}
	}
	w.Flush()
	return w.Error()
}

// ReadRequests reads what WriteRequests wrote.
func ReadRequests(path string) ([]Request, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the requests: %w", err)
	}
	defer f.Close()
	lines := csv.NewReader(f)
	lines.FieldsPerRecord = 4
	var out []Request
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the requests: %w", err)
		}
		r := Request{Server: line[2], Err: line[3]}
		if r.Start, err = strconv.ParseInt(line[0], 10, 64); err != nil {
			return nil, fmt.Errorf("read the requests: %w", err)
		}
		if r.Client, err = strconv.Atoi(line[1]); err != nil {
			return nil, fmt.Errorf("read the requests: %w", err)
		}
		out = append(out, r)
	}
}
