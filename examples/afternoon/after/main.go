// Command after is the command before with crmguard around it, as
// docs/guides/afternoon.md gets there. Each step of the guide is a function.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/ipfilter"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/password"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/session"
)

const tenant = crmguard.SingleTenant

const usage = `usage: after DATA-FOLDER KEYS-FOLDER               serve
       after DATA-FOLDER KEYS-FOLDER install       once, before anything else
       after DATA-FOLDER KEYS-FOLDER hire LOGIN    the password comes on standard input`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	what := args[2:]
	install := len(what) == 1 && what[0] == "install"
	crm, err := open(ctx, args[0], args[1], install)
	if err != nil {
		return err
	}
	switch {
	case len(what) == 0:
		err = crm.serve(ctx)
	case install:
		err = crm.install(ctx)
	case len(what) == 2 && what[0] == "hire":
		var plain string
		if plain, err = bufio.NewReader(in).ReadString('\n'); err == nil {
			err = crm.hire(ctx, what[1], strings.TrimRight(plain, "\r\n"))
		}
	default:
		err = errors.New(usage)
	}
	return errors.Join(err, crm.close())
}

// serve answers until ctx ends.
func (c *crm) serve(ctx context.Context) error {
	server := &http.Server{Addr: "127.0.0.1:8090", Handler: c.handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Shutdown(context.WithoutCancel(ctx))
	}
}

// crm is the CRM with its protections.
type crm struct {
	db        *sql.DB
	keys      *encrypt.Keyring
	contacts  *encrypt.Table[Contact]
	journal   *audit.Log
	verifier  note.Verifier
	rights    *rbac.Engine
	norms     *quota.Quota
	addresses *ipfilter.Filter
	factors   *mfa.Factors
	sessions  *session.Manager
	passwords *password.Hasher
	door      *signin.Door
	guard     *guard.Guard
	handler   http.Handler
	closers   []func() error
}

// open puts the steps together. Keys are made by the installation and never again: a
// folder that is not mounted must not become a new, empty one.
func open(ctx context.Context, data, keys string, install bool) (*crm, error) {
	c := &crm{}
	var err error
	// secure_delete overwrites what migrate takes out of the rows.
	c.db, err = sql.Open("sqlite", "file:"+filepath.Join(data, "crm.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=secure_delete(ON)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	c.closers = append(c.closers, c.db.Close)
	for _, step := range []func() error{
		func() error { return c.openNorms(ctx) },
		func() error { return c.openKeys(ctx, data, keys, install) },
		func() error { return c.openJournal(ctx, keys, install) },
		func() error { return c.openRights(ctx, keys) },
		func() error { return c.openAddresses(ctx) },
		func() error { return c.openFactors(ctx) },
		func() error { return c.openDoor(ctx) },
		c.openGuard,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	c.handler = c.routes()
	return c, nil
}

// close ends what open opened, the last first.
func (c *crm) close() error {
	var failed []error
	for _, closer := range slices.Backward(c.closers) {
		failed = append(failed, closer())
	}
	return errors.Join(failed...)
}
