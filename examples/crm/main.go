// Command crm is a small CRM on crmguard, for trying out and copying from.
//
//	go run ./examples/crm                       start, on http://127.0.0.1:8080
//	go run ./examples/crm -db postgres://…      the same, on PostgreSQL; see README.md
//	go run ./examples/crm import contacts.csv   add contacts to the running CRM
//	go run ./examples/crm code seller1          a code of a demo account's app
//	go run ./examples/crm account add anna head add an account of your own
//	go run ./examples/crm reopen                end a lockdown
//	go run ./examples/crm addresses reset       let people in from anywhere again
//
// See package app for how it is made.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/data"
	"github.com/crmguard/crmguard/ipfilter"
)

const usage = `crm, an example CRM on crmguard

  crm [flags]                            start
  crm import [flags] FILE                add the contacts of a CSV file to the running CRM
  crm code [flags] LOGIN                 print a code with which a demo account can sign in now
  crm account add [flags] LOGIN ROLE     add an account of your own; its password is shown once
  crm reopen [flags]                     end a lockdown: the way back when no owner can sign in
  crm addresses reset [flags]            remove all address rules: the way back in for who locked themselves out

`

// defaultKeys is the keys folder beside the data folder.
const defaultKeys = "crm-keys"

// errUsage has been told to the person already.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "crm:", err)
		os.Exit(1)
	}
}

// settings are the flags that all commands share.
type settings struct {
	flags      *flag.FlagSet
	data, keys string
}

func newSettings(name string, out io.Writer) *settings {
	s := &settings{flags: flag.NewFlagSet(name, flag.ContinueOnError)}
	s.flags.SetOutput(out)
	s.flags.Usage = func() {
		fmt.Fprint(out, usage)
		s.flags.PrintDefaults()
	}
	s.flags.StringVar(&s.data, "data", "crm-data", "`folder` of the database")
	s.flags.StringVar(&s.keys, "keys", "", "`folder` of the keys (default: crm-keys beside the data folder)")
	return s
}

func (s *settings) parse(args []string) error {
	if err := s.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if s.keys == "" {
		s.keys = filepath.Join(filepath.Dir(filepath.Clean(s.data)), defaultKeys)
	}
	return nil
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "import":
			return importFile(ctx, args[1:], out, errOut)
		case "account":
			return addAccount(ctx, args[1:], in, out, errOut)
		case "reopen":
			return reopen(ctx, args[1:], out, errOut)
		case "addresses":
			return resetAddresses(ctx, args[1:], out, errOut)
		case "code":
			return demoCode(ctx, args[1:], out, errOut)
		}
	}
	return serve(ctx, args, out, errOut)
}

func serve(ctx context.Context, args []string, out, errOut io.Writer) error {
	s := newSettings("crm", errOut)
	addr := s.flags.String("addr", "127.0.0.1:8080", "`address` to serve on")
	cert := s.flags.String("tls-cert", "", "PEM `file` with the certificate; needed for addresses that others can reach")
	key := s.flags.String("tls-key", "", "PEM `file` with the certificate's key")
	db := s.flags.String("db", "", "PostgreSQL `URL`, postgres://user@host/name, in place of the SQLite file in -data; the variable "+dbVariable+" keeps its password out of the list of processes")
	var proxies prefixes
	s.flags.Var(&proxies, "trusted-proxy", "`address` or network of the proxy before the CRM, which ends TLS; several with commas, or the flag again")
	header := s.flags.String("proxy-header", "x-forwarded-for", "`header` in which the proxy says for whom it asks: x-forwarded-for or forwarded")
	anchor := s.flags.String("anchor", "", "`file` to which checkpoints of the journal are added, best on another machine's disk (default journal.anchor in the keys folder)")
	newAnchor := s.flags.String("new-anchor", "", "begin the file of checkpoints anew, for once, after it was lost or -anchor names another one; the `reason` goes to the journal")
	adopt := s.flags.String("adopt-rights", "", "take the rows of casbin_rule as they stand, after you have changed them in the database or put an older one back; the `reason` goes to the journal")
	empty := s.flags.Bool("empty", false, "start the company without the demo contacts")
	verbose := s.flags.Bool("v", false, "log more")
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() > 0 {
		if strings.Contains(s.flags.Arg(0), "://") { // it may hold a password
			return errors.New("the database is given with -db")
		}
		fmt.Fprintf(errOut, "unknown command %q\n\n", s.flags.Arg(0))
		s.flags.Usage()
		return errUsage
	}
	database, err := databaseURL(s.flags, *db)
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	loopback, err := isLoopback(*addr)
	if err != nil {
		return err
	}
	certificates, err := loadTLS(*cert, *key)
	if err != nil {
		return err
	}
	proxyHeader, ok := proxyHeaders[strings.ToLower(*header)]
	if !ok {
		return fmt.Errorf("-proxy-header %q: want x-forwarded-for or forwarded", *header)
	}
	if !loopback && certificates == nil {
		return fmt.Errorf("%s can be reached from other machines: give -tls-cert and -tls-key, or use 127.0.0.1 (demo accounts work there only)", *addr)
	}
	// Before anything is opened: somebody may be on the port already.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: stop that one, or choose another address with -addr", *addr)
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close() //nolint:errcheck // Serve has closed it, or nothing was served
	if at, err := netip.ParseAddrPort(listener.Addr().String()); err == nil && len(proxies) > 0 && !canConnect(proxies, at.Addr()) {
		return fmt.Errorf("no -trusted-proxy can connect to %s, which only this machine reaches: name the proxy as 127.0.0.1 if it runs here, or give -addr, -tls-cert and -tls-key if it runs elsewhere", *addr)
	}
	cfg := app.Config{Data: s.data, DB: database, Keys: s.keys, Anchor: *anchor, NewAnchor: *newAnchor, AdoptRights: *adopt, Loopback: loopback && certificates == nil && len(proxies) == 0, Proxies: proxies, ProxyHeader: proxyHeader, Logger: logger}
	if !*empty {
		cfg.Contacts, cfg.Progress = data.Contacts, func(r app.ImportReport) {
			fmt.Fprintf(out, "\rFirst start: %d rows read, %d contacts added, %d duplicates, %d bad rows", r.Rows, r.Added, r.Duplicates, len(r.Bad))
		}
	}
	crm, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	at := "https://" + listener.Addr().String()
	if certificates == nil {
		at = "http://" + listener.Addr().String()
	}
	if err := announce(ctx, out, crm, at, cfg.Loopback, s.keys); err != nil {
		return errors.Join(err, crm.Close())
	}
	err = crm.Serve(ctx, listener, certificates)
	return errors.Join(err, crm.Close())
}

// prefixes are addresses and networks on the command line.
type prefixes []netip.Prefix

func (p *prefixes) String() string { return fmt.Sprint(*p) }

// Set adds what one flag names.
func (p *prefixes) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		prefix, err := ipfilter.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		*p = append(*p, prefix)
	}
	return nil
}

// canConnect reports whether one of the proxies can connect to an address. If none
// can, the proxy that does is not believed, and everybody seems to be on this machine.
func canConnect(proxies []netip.Prefix, at netip.Addr) bool {
	if !at.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool {
		if at.Is4() {
			return p.Overlaps(netip.PrefixFrom(at, 8).Masked())
		}
		return p.Contains(at)
	})
}

var proxyHeaders = map[string]ipfilter.Header{"x-forwarded-for": ipfilter.XForwardedFor, "forwarded": ipfilter.Forwarded}

// dbVariable may name the database, too.
const dbVariable = "CRM_DB"

// databaseURL returns what -db says, or else the environment; "" is SQLite. It is
// not the default of the flag, which -h would print. An empty -db, as a script
// makes of a variable that is not set, would start a company of its own.
func databaseURL(flags *flag.FlagSet, given string) (app.PostgresURL, error) {
	if given != "" {
		return app.PostgresURL(given), nil
	}
	var err error
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "db" {
			err = errors.New("-db is empty: name a database, or leave -db out for the SQLite file in -data")
		}
	})
	return app.PostgresURL(os.Getenv(dbVariable)), err
}

// announce tells how to sign in.
func announce(ctx context.Context, out io.Writer, crm *app.App, at string, demo bool, keys string) error {
	if !demo {
		fmt.Fprintf(out, "%s\nDemo accounts are closed; sign in with your own. Ctrl-C stops.\n", at)
		return nil
	}
	password, err := crm.DemoPassword(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n\n  %s\n\n  Demo password for all of them:  %s\n\n", at, password)
	for _, line := range app.DemoLogins() {
		fmt.Fprintf(out, "    %-12s %s\n", line[0], line[1])
	}
	command := "go run ./examples/crm code LOGIN"
	if keys != defaultKeys {
		command = fmt.Sprintf("go run ./examples/crm code -keys %q LOGIN", keys)
	}
	fmt.Fprintf(out, "\n  A code of their app, for each sign-in:  %s\n", command)
	fmt.Fprint(out, "\n  They work on this machine only. Ctrl-C stops.\n\n")
	return nil
}

// isLoopback reports whether only this machine can reach an address.
func isLoopback(addr string) (bool, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("-addr %q: want HOST:PORT", addr)
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback(), nil
}

func loadTLS(cert, key string) (*tls.Config, error) {
	if cert == "" && key == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("-tls-cert and -tls-key: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

func importFile(ctx context.Context, args []string, out, errOut io.Writer) error {
	s := newSettings("crm import", errOut)
	columns := s.flags.String("map", "", "what the columns are called in the file, such as `name=Имя,phone=Телефон`")
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() != 1 {
		s.flags.Usage()
		return errUsage
	}
	mapping, err := app.ParseMapping(*columns)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(s.flags.Arg(0))
	if err != nil {
		return err
	}
	report, err := app.SendImport(ctx, s.keys, file, mapping, func(r app.ImportReport) {
		fmt.Fprintf(out, "\r%d rows read, %d added, %d duplicates", r.Rows, r.Added, r.Duplicates)
	})
	fmt.Fprintln(out)
	for _, bad := range report.Bad {
		fmt.Fprintf(out, "line %d: %s\n", bad.Line, bad.Reason)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d rows: %d added, %d duplicates, %d bad rows of which nothing was imported\n", report.Rows, report.Added, report.Duplicates, len(report.Bad))
	return nil
}

// demoCode prints the code alone, so that it can be copied or piped; what it has to
// say besides goes to errOut.
func demoCode(ctx context.Context, args []string, out, errOut io.Writer) error {
	s := newSettings("crm code", errOut)
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() != 1 {
		s.flags.Usage()
		return errUsage
	}
	code, err := app.SendCode(ctx, s.keys, s.flags.Arg(0), func(wait time.Duration) {
		fmt.Fprintf(errOut, "The codes of this minute are used; the next one is good in %d seconds.\n", int(wait.Seconds())+1)
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, code)
	return nil
}

func reopen(ctx context.Context, args []string, out, errOut io.Writer) error {
	s := newSettings("crm reopen", errOut)
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() != 0 {
		s.flags.Usage()
		return errUsage
	}
	if err := app.SendReopen(ctx, s.keys); err != nil {
		return err
	}
	fmt.Fprintln(out, "The CRM is open again. Dismiss who should not come back: sessions have survived the lockdown.")
	return nil
}

func resetAddresses(ctx context.Context, args []string, out, errOut io.Writer) error {
	s := newSettings("crm addresses reset", errOut)
	if len(args) > 0 && args[0] == "reset" {
		args = args[1:]
	} else {
		args = []string{"-h"}
	}
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() != 0 {
		s.flags.Usage()
		return errUsage
	}
	version, err := app.SendAddressReset(ctx, s.keys)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The address rules are gone (version %d has none): people come in from anywhere again.\n", version)
	return nil
}

func addAccount(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	s := newSettings("crm account add", errOut)
	unit := s.flags.String("unit", "", "`department` of the person (default office)")
	stdin := s.flags.Bool("password-stdin", false, "read the password from standard input instead of making one")
	if len(args) > 0 && args[0] == "add" {
		args = args[1:]
	} else {
		args = []string{"-h"}
	}
	if err := s.parse(args); err != nil {
		return err
	}
	if s.flags.NArg() != 2 {
		s.flags.Usage()
		return errUsage
	}
	n := app.NewAccount{Login: s.flags.Arg(0), Role: s.flags.Arg(1), Unit: *unit}
	if *stdin {
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n.Password = strings.TrimRight(line, "\r\n"); n.Password == "" {
			return errors.New("no password on standard input")
		}
	}
	secret, err := app.SendAccount(ctx, s.keys, n)
	if err != nil {
		return err
	}
	if *stdin {
		fmt.Fprintf(out, "%s can sign in.\n", n.Login)
		return nil
	}
	fmt.Fprintf(out, "%s can sign in with this password, which is shown once:\n\n  %s\n\n", n.Login, secret)
	return nil
}
