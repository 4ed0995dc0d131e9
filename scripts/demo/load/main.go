// Command load is the demo's client: many addresses that ask a web server
// over new connections, and the report on what they saw.
//
//	load run -to URL -rate N -requests FILE   asks until it gets a signal
//	load report -dir DIR -metrics URL         judges; exit 1: it did not work
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: run or report")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "run":
		var o Options
		flags.StringVar(&o.URL, "to", "", "the URL to ask for")
		flags.IntVar(&o.Rate, "rate", 1000, "new connections a second")
		file := flags.String("requests", "", "the file that gets one line for each request")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		requests, err := Run(ctx, o)
		if err != nil {
			return err
		}
		return WriteRequests(*file, requests)
	case "report":
		dir := flags.String("dir", "", "the directory with what the demo wrote down")
		metrics := flags.String("metrics", "", "the URL of the daemon's metrics")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		now, err := monotonic()
		if err != nil {
			return err
		}
		return report(ctx, os.Stdout, *dir, *metrics, Clocks{time.Now(), now})
	}
	return fmt.Errorf("%q is not known: run or report", args[0])
}

// monotonic returns the clock that the kernel programs use, in nanoseconds.
func monotonic() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return ts.Nano(), nil
}
