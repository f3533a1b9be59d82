package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
)

// logHelp is what commands that write to the journal say about where things are.
const logHelp = `Run it as the user of the CRM, on its own files: the signing key of the journal with the .pub
file beside it, the KEK file and the key store. The CRM may run meanwhile, on SQLite too.
PASSFILE holds the passphrase of a KEK file that was made with one, in a file that only you can
read; - asks on the terminal or reads it from a pipe. A database is the path of a SQLite file
or a URL of PostgreSQL; for passwords use PGPASSWORD or a .pgpass file, as others can see the
command line.

` + anchorHelp

const logArgs = "-db DATABASE -signer FILE -store DATABASE -kek FILE [-passphrase PASSFILE] [-anchor FILE|DATABASE]… [-new-anchor REASON] [-webhook URL -webhook-secret FILE] [-witness 'URL KEY'] [-journal-prefix P] [-prefix P]"

// logFlags say where a journal is that is written to.
type logFlags struct {
	journal journalFlags
	signer  string
	keys    *keyFlags
	anchors *anchorFlags
}

func (c *call) logFlags() *logFlags {
	f := &logFlags{keys: c.keyFlags(), anchors: c.anchorFlags()}
	c.flags.StringVar(&f.journal.db, "db", "", "`database` of the journal")
	c.flags.StringVar(&f.journal.prefix, "journal-prefix", "", "`prefix` of the tables of the journal, if the CRM has chosen one")
	c.flags.StringVar(&f.signer, "signer", "", "`file` with the signing key of the journal, such as crm-keys/journal.key")
	return f
}

func (f *logFlags) check() error {
	if f.journal.db == "" || f.signer == "" || f.keys.store == "" || f.keys.kek == "" {
		return errors.New("-db, -signer, -store and -kek are needed")
	}
	return f.anchors.check()
}

// writing is a journal that is open to write.
type writing struct {
	*audit.Log
	keys *opened
	done func() error
}

func (w *writing) close() error {
	var err error
	if w.Log != nil {
		err = w.Log.Close()
	}
	if w.done != nil {
		err = errors.Join(err, w.done())
	}
	if w.keys != nil {
		w.keys.close()
	}
	return err
}

// openLog opens a journal that exists, with its signing key and the CRM's keys.
func (c *call) openLog(f *logFlags) (w *writing, err error) {
	w = &writing{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	public, err := readVerifier(f.signer + ".pub") // for the name
	if err != nil {
		return w, err
	}
	signer, verifier, err := audit.OpenSigner(f.signer, public.Name(), false)
	if err != nil {
		return w, err
	}
	// What is there is looked at before anything is opened to write.
	_, done, err := openJournal(c, f.journal.db, f.journal.prefix)
	if err != nil {
		return w, err
	}
	if err := done(); err != nil {
		return w, err
	}
	if w.keys, err = c.openKeys(f.keys, true); err != nil {
		return w, err
	}
	o := &audit.Options{Logger: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	db, err := openToWrite(c, strings.TrimPrefix(f.journal.db, "sqlite:"))
	if err != nil {
		return w, err
	}
	w.done = db.Close
	store, err := auditsql.New(c, db, &auditsql.Options{TablePrefix: f.journal.prefix})
	if err != nil {
		return w, err
	}
	anchors, closeAnchors, err := f.anchors.open(c, store, verifier, f.journal.prefix)
	if err != nil {
		return w, err
	}
	o.Anchors = anchors
	w.done = func() error { return errors.Join(db.Close(), closeAnchors()) }
	if err := f.anchors.vouched(c, store, anchors, verifier); err != nil {
		return w, err
	}
	if w.Log, err = audit.New(c, store, w.keys, signer, verifier, o); err != nil || f.anchors.begin == "" {
		return w, err
	}
	ctx := crmguard.System(c, operator, "audit anchor")
	subject, _ := crmguard.SubjectFrom(ctx)
	return w, w.Record(ctx, crmguard.Event{Subject: subject, Action: crmguard.Configure, Outcome: crmguard.Done,
		Resource: crmguard.Resource{Tenant: operator, Kind: "anchor"}, Reason: f.anchors.begin})
}
