// Package app is a small but real CRM on crmguard: contacts, staff and a journal
// on one SQLite file or a PostgreSQL database, in which rights, encryption, masks
// and the journal act together. It is made to be read and copied from; package main
// starts it.
//
//	crm, err := app.New(ctx, app.Config{Data: "crm-data", Keys: "crm-keys", Loopback: true})
//	defer crm.Close()
//	err = crm.Serve(ctx, listener, nil) // a *tls.Config; nil: plain HTTP, for this machine
//
// The data folder holds what a backup takes: rows with sealed columns, sealed
// password hashes, the journal, and the search index. The keys folder holds what
// must never lie beside it: the key file, the wrapped keys and the journal's
// signing key.
//
// # Where to look
//
//   - app.go puts the parts together, firststart.go founds the company; routes.go names the right that each page needs,
//     and policy.csv who has it.
//   - list.go and card.go read, open and mask rows, search.go looks into them; edit.go
//     writes a change and its entry in the journal together; import.go seals in bulk;
//     export.go encrypts what leaves; call.go rings without showing the number.
//   - attach.go takes and gives files of a contact, attachstore.go keeps them in pieces.
//   - forget.go destroys a client's key; receipt.go hands out the receipt and checks one;
//     ledger.go keeps them all, and forgets again after an older key store was put back.
//   - door.go lets people in; factors.go says which acts want a fresh code, confirm.go
//     asks for it, and on me.go's page people keep their apps and sessions.
//   - norms.go counts cards and alerts.go tells; addresses.go says where people may come
//     from, lockout.go that nobody locks themselves out; normform.go and addressform.go
//     change these rules.
//   - rights.go opens the policy, of which each change is a version; rightspage.go shows it as a table,
//     rightsdraft.go prepares a change, rightswhatif.go says what it would mean, rightssave.go puts it
//     in force, rightshistory.go goes back, rightsrows.go says rows in words, and rightswhy.go explains refusals.
//   - staff.go gives roles and ends a person's access, leaver.go shows before what they have,
//     handover.go gives their contacts to somebody else; deputies.go has people stand in for each other. lockdown.go closes everything.
//   - vault.go keeps the keys; keyspage.go shows them, keyjobs.go and reencrypt.go replace
//     them while everybody works on, upkeep.go looks after them every hour.
//   - journal.go shows the journal, journalverify.go proves it, journalentry.go shows one
//     entry and hands out extracts.
//   - marks.go remembers versions, so that no old rule comes back; sqlite.go and
//     postgres.go open the databases.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/ipfilter"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/password"
	"github.com/crmguard/crmguard/quota/quotasql"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
)

// Config says where an installation lives.
type Config struct {
	Data string      // folder of the SQLite file
	DB   PostgresURL // a PostgreSQL database instead of it; "": none
	Keys string      // folder of the keys, outside of Data

	// Anchor is a file to which checkpoints of the journal are added, best on another
	// machine's disk; "": journal.anchor in Keys.
	Anchor string

	// NewAnchor is why the anchor holds nothing although the journal has entries, as where
	// Anchor names another file than before; "": that would be refused.
	NewAnchor string

	// Loopback says that only this machine can reach the CRM: demo accounts work,
	// and cookies go without TLS.
	Loopback bool

	// Proxies are the addresses of the proxies before the CRM, which say in this header
	// for whom they ask. Whoever comes through a proxy comes from beyond this machine.
	Proxies     []netip.Prefix
	ProxyHeader ipfilter.Header

	// AdoptRights is why the rows of casbin_rule, which somebody changed past the CRM, are
	// right as they are; "": they would be refused.
	AdoptRights string

	Contacts []byte             // CSV to import at the first start; nil: none
	Progress func(ImportReport) // of that import; nil: nobody looks

	Logger *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now
}

// App is an open installation.
type App struct {
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	db    *store
	vault *vault

	index     *encryptsql.Index
	table     *encrypt.Table[Contact]
	journal   *audit.Log
	recorder  *audit.Failover // before the journal: what must go on when that is down does
	rights    *rbac.Engine
	policy    *rbacsql.Adapter // in which the rights are kept
	drafts    rightsDrafts
	handovers handovers
	sessions  *session.Manager
	passwords *password.Hasher
	people    *people
	factors   *mfa.Factors
	norms     *norms
	board     alertBoard
	looks     alertLooks
	follows   alertLooks // at the journal
	addresses *ipfilter.Filter
	marks     *versionMarks
	door      *signin.Door
	guard     *guard.Guard
	exports   exports
	searches  searchBounds
	queries   queries
	calls     *calls
	jobs      keyJobs

	verification verification

	attachments attachments

	pages   *pages
	mux     *http.ServeMux // which pages there are
	handler http.Handler

	importing sync.Mutex
	settling  sync.Mutex // one at a time changes norms or address rules
	staffing  sync.Mutex // one at a time hires or closes somebody: what was checked stays true

	stop       context.CancelFunc
	background sync.WaitGroup
}

// New opens an installation; where there is none it creates one, with the demo
// company in it. It refuses, and changes nothing, when the data folder is in use or
// damaged, or when the keys are missing or another installation's.
func New(ctx context.Context, cfg Config) (*App, error) {
	a := &App{cfg: cfg, log: cfg.Logger, now: cfg.Clock, searches: searchBounds{batch: 500, rows: searchRows, time: 2 * time.Second}}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.now == nil {
		a.now = time.Now
	}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if err := a.loadJobs(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if err := a.replayErasures(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if err := a.firstStart(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("first start: %w", err), a.Close())
	}
	if err := a.finishDismissals(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if !cfg.Loopback {
		if err := a.leaveLoopback(ctx); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop, a.jobs.cut = stop, background
	a.resumeJobs(ctx)
	if err := a.loadHandovers(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.background.Go(func() { a.keepUp(background) })
	return a, nil
}

// open puts the parts together: this is the main of a CRM on crmguard.
func (a *App) open(ctx context.Context) (err error) {
	edge, err := a.edge()
	if err != nil {
		return err
	}
	if a.db, err = openStore(ctx, a.cfg); err != nil {
		return err
	}
	if a.index, err = encryptsql.NewIndex(ctx, a.db.DB, nil); err != nil {
		return err
	}
	counted, err := quotasql.New(ctx, a.db.DB, nil)
	if err != nil {
		return err
	}
	a.norms = &norms{app: a, store: counted, alert: a.alert}
	if a.vault, err = openVault(ctx, a.cfg.Keys, a.db, &encrypt.Options{
		Index: a.index, OnOpen: a.norms.onOpen, CacheEntries: 2 * searchRows, BackupRetention: backupRetention, IndexLife: indexLife,
		Logger: a.log, Clock: a.cfg.Clock,
	}); err != nil {
		return err
	}
	if a.marks, err = openMarks(a.cfg.Keys); err != nil {
		return err
	}
	keys := a.vault.keys
	if a.table, err = encrypt.NewTable[Contact](keys, kind, &encrypt.TableOptions{Region: homeRegion}); err != nil {
		return err
	}
	if a.attachments, err = openAttachments(keys); err != nil {
		return err
	}
	entries, err := auditsql.New(ctx, a.db.DB, nil)
	if err != nil {
		return err
	}
	anchor, err := a.openAnchor(ctx, entries)
	if err != nil {
		return err
	}
	if a.journal, err = audit.New(ctx, entries, keys, a.vault.signer, a.vault.verifier, &audit.Options{
		Anchors: []audit.Anchor{anchor}, Findable: foundBy, Pseudonyms: keys, Logger: a.log, Clock: a.cfg.Clock,
	}); err != nil {
		return fmt.Errorf("the journal does not continue what was signed before: %w", err)
	}
	if a.recorder, err = audit.NewFailover(a.journal, a.spool(), &audit.FailoverOptions{Policy: whenDown, Logger: a.log, Clock: a.cfg.Clock}); err != nil {
		return err
	}
	if err := a.recordNewAnchor(ctx); err != nil {
		return err
	}
	if err := firstKept(ctx, anchor, entries); err != nil {
		return err
	}
	a.people = &people{db: a.db, keys: keys, allDemo: a.cfg.Loopback}
	if err := a.people.refresh(ctx); err != nil {
		return err
	}
	if a.rights, err = a.openRights(ctx); err != nil {
		return err
	}
	if err := a.norms.load(ctx); err != nil {
		return err
	}
	if err := a.loadAlerts(ctx); err != nil {
		return err
	}
	if a.addresses, err = a.openAddresses(ctx); err != nil {
		return err
	}
	if a.factors, err = a.openFactors(ctx); err != nil {
		return err
	}
	rows, err := sessionsql.New(ctx, a.db.DB, nil)
	if err != nil {
		return err
	}
	if a.sessions, err = session.New(rows, keys, &session.Options{Logger: a.log, Clock: a.cfg.Clock}); err != nil {
		return err
	}
	if a.passwords, err = password.New(nil); err != nil {
		return err
	}
	if a.door, err = signin.New(a.people, a.passwords, a.sessions, a.recorder, &signin.Options{Addresses: crmguard.CheckerFunc(a.mayEnter), Factors: a.factors, Logger: a.log, Clock: a.cfg.Clock}); err != nil {
		return err
	}
	if a.pages, err = openPages(a.zone); err != nil {
		return err
	}
	proof, err := mfa.NewStepUp(proofs, &mfa.Options{Clock: a.cfg.Clock})
	if err != nil {
		return err
	}
	a.guard, err = guard.New(a.sessions, a.rights, a.rights, a.recorder, &guard.Options{
		Addresses: a.addresses, StepUp: freshness{proof, a.factors}, Norms: a.norms, Switch: a.sessions,
		Holders: []crmguard.Revoker{a.factors, a.rights},
		Edge:    edge, Loopback: a.cfg.Loopback, Page: a.problem, Logger: a.log, Clock: a.cfg.Clock,
	})
	if err != nil {
		return err
	}
	a.exports.recheck = a.guard.Recheck
	if a.calls, err = a.openCalls(ctx); err != nil {
		return err
	}
	a.handler = a.routes()
	return nil
}

// spool is the folder where entries wait while the journal is down: sealed, and so
// beside the data, where there is a folder of it on this machine.
func (a *App) spool() string {
	if a.cfg.DB == "" {
		return filepath.Join(a.cfg.Data, "spool")
	}
	return filepath.Join(a.cfg.Keys, "spool")
}

// whenDown says what becomes of an event while the journal is down. An alert is of
// the act that raised it, but must not be lost as one of many views may be.
func whenDown(e crmguard.Event) audit.Policy {
	if e.Resource.Kind == alertKind {
		return audit.Spool
	}
	return audit.PolicyOf(e)
}

// Handler serves the CRM.
func (a *App) Handler() http.Handler { return a.handler }

// Close ends background work, writes what the journal still has to sign, and
// releases the folders.
func (a *App) Close() error {
	var errs []error
	if a.stop != nil {
		a.stop()
		a.background.Wait()
	}
	if a.calls != nil {
		errs = append(errs, a.calls.exchange.close())
	}
	if a.door != nil {
		errs = append(errs, a.door.Close(context.Background()))
	}
	if a.recorder != nil {
		errs = append(errs, a.recorder.Close())
	}
	if a.journal != nil {
		errs = append(errs, a.journal.Close())
	}
	if a.vault != nil {
		errs = append(errs, a.vault.close())
	}
	if a.db != nil {
		errs = append(errs, a.db.close())
	}
	return errors.Join(errs...)
}
