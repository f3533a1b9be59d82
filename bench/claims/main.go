// Command claims measures every performance claim of the README, ours and a
// peer's in turn in the same process, and prints a line for each:
//
//	NAME ours=… peer=… ratio=… goal=… ok|SHORT
//
// The values are medians; ratio is ours by the peer's. A claim without a peer
// says peer=none and states its goal in the unit of ours. It exits with 1 if any
// claim is SHORT of its goal.
//
//	go run ./bench/claims                  all claims
//	go run ./bench/claims -only encrypt.   those whose names start so
//	go run ./bench/claims -list            names and goals
//
// A claim that needs PostgreSQL uses the server of CRMGUARD_TEST_POSTGRES, or a
// throwaway one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	short, err := run(ctx, os.Stdout, allClaims(), os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "claims:", err)
		os.Exit(1)
	case short > 0:
		os.Exit(1)
	}
}

// allClaims lists the claims of all packages, each from a file of its own.
func allClaims() []claim {
	return slices.Concat(auditClaims(), auditSQLClaims(), crmClaims(), encryptClaims(), encryptKeysClaims(), encryptRowsClaims(), ipfilterClaims(), maskingClaims(), mfaClaims(), quotaClaims(), rbacClaims(), rbacFilterClaims())
}

// run measures the chosen claims and returns how many fell short.
func run(ctx context.Context, out io.Writer, claims []claim, args []string) (short int, err error) {
	flags := flag.NewFlagSet("claims", flag.ContinueOnError)
	only := flags.String("only", "", "measure only claims whose names start with `PREFIX`")
	list := flags.Bool("list", false, "print names and goals, measure nothing")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	chosen := slices.DeleteFunc(claims, func(c claim) bool { return !strings.HasPrefix(c.name, *only) })
	if flags.NArg() > 0 || len(chosen) == 0 {
		return 0, fmt.Errorf("no such claim: %q %q", *only, flags.Args())
	}
	if *list {
		for _, c := range chosen {
			if _, err := fmt.Fprintln(out, c.name, "goal="+c.goal()); err != nil {
				return 0, err
			}
		}
		return 0, nil
	}
	var s servers
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, c := range chosen {
		r, err := c.measure(ctx, &s)
		if err != nil {
			return short, fmt.Errorf("%s: %w", c.name, err)
		}
		if !c.met(r) {
			short++
		}
		if _, err := fmt.Fprintln(out, c.line(r)); err != nil {
			return short, err
		}
	}
	return short, nil
}
