package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// The ledger keeps the receipts of erasures in the database, outside of the key
// store that they are about. Whoever changes it there erases nobody by that: each
// receipt has a MAC.

// enterReceipt adds a receipt to the ledger.
func enterReceipt(ctx context.Context, db execer, receipt encrypt.Receipt) error {
	document, err := json.Marshal(receipt)
	if err == nil {
		_, err = db.ExecContext(ctx, `INSERT INTO receipts (document) VALUES ($1)`, document)
	}
	if err != nil {
		return fmt.Errorf("enter a receipt into the ledger: %w", err)
	}
	return nil
}

// ledgerPage is how many receipts are compared with the key store at once.
const ledgerPage = 500

// ledgerLine is a receipt of the ledger. What it says is believed only by Replay.
type ledgerLine struct {
	seq      int64
	document []byte
	receipt  encrypt.Receipt
}

// replayErasures brings the key store up to the ledger: when somebody has put an
// older copy of it back, those who were forgotten since are forgotten again before
// anybody is let in.
func (a *App) replayErasures(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "replay")
	for after := int64(0); ; {
		lines, err := a.db.ledger(ctx, after)
		if err != nil || len(lines) == 0 {
			return err
		}
		after = lines[len(lines)-1].seq
		behind, err := a.unknownErasures(ctx, lines)
		if err != nil {
			return err
		}
		for _, line := range behind {
			if err := a.replayErasure(ctx, line); err != nil {
				return err
			}
		}
	}
}

// ledger reads the receipts behind one.
func (s *store) ledger(ctx context.Context, after int64) (lines []ledgerLine, err error) {
	rows, err := s.QueryContext(ctx, fmt.Sprintf(`SELECT seq, document FROM receipts WHERE seq > $1 ORDER BY seq LIMIT %d`, ledgerPage), after)
	if err != nil {
		return nil, fmt.Errorf("read the ledger of erasures: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var line ledgerLine
		if err := rows.Scan(&line.seq, &line.document); err != nil {
			return nil, fmt.Errorf("read the ledger of erasures: %w", err)
		}
		_ = json.Unmarshal(line.document, &line.receipt) // one that is no receipt stays empty, and Replay refuses it
		lines = append(lines, line)
	}
	return lines, rows.Err()
}

// unknownErasures returns the receipts that say more than the key store does.
func (a *App) unknownErasures(ctx context.Context, lines []ledgerLine) (behind []ledgerLine, err error) {
	var scopes []encrypt.Scope
	for _, line := range lines {
		scopes = append(scopes, encrypt.ClientScope(tenant, line.receipt.Client))
	}
	records, err := a.vault.store.Load(ctx, scopes)
	if err != nil {
		return nil, err
	}
	states := map[string]encrypt.State{}
	for _, r := range records {
		states[r.Scope.Name] = r.State
	}
	for _, line := range lines {
		state := states[line.receipt.Client]
		if state < encrypt.Closing || line.receipt.State == encrypt.Destroyed.String() && state < encrypt.Destroyed {
			behind = append(behind, line)
		}
	}
	return behind, nil
}

func (a *App) replayErasure(ctx context.Context, line ledgerLine) error {
	again, err := a.vault.keys.Replay(ctx, line.document)
	if errors.Is(err, encrypt.ErrReceipt) {
		a.log.ErrorContext(ctx, "a receipt in the ledger of erasures was changed past the CRM, so it was not carried out", "line", line.seq)
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget again who was forgotten before: %w", err)
	}
	for _, receipt := range again {
		a.log.WarnContext(ctx, "the key store is older than the ledger of erasures: a client was forgotten again", "contact", receipt.Client)
		if err := a.recordErasure(ctx, receipt, "forgotten-again"); err != nil {
			return err
		}
	}
	return nil
}

// recordErasure empties what is left of a client, with the journal's entry and the
// ledger's in one transaction, and what finds the client's entries in the journal.
func (a *App) recordErasure(ctx context.Context, receipt encrypt.Receipt, reason string) error {
	e := systemEvent(ctx, crmguard.Erase, crmguard.Resource{Tenant: receipt.Tenant, Kind: kind, ID: receipt.Client}, a.now())
	e.Reason = reason
	err := a.recorded(ctx, e, func(ctx context.Context, tx *sql.Tx) error {
		if err := tombstone(ctx, tx, receipt.Client, a.now()); err != nil {
			return err
		}
		return enterReceipt(ctx, tx, receipt)
	})
	_, forgotten := a.journal.Forget(ctx, receipt.Tenant, receipt.Client)
	return errors.Join(err, forgotten)
}

// takeaway is a file with clients' data that somebody took out of the CRM.
type takeaway struct {
	id      string
	contact string // "": it may hold anybody's
	what    string
	person  string
	at      time.Time
}

// enterTakeaway remembers what leaves, in the transaction of its entry in the journal.
func enterTakeaway(ctx context.Context, tx *sql.Tx, t takeaway) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO copies (id, contact, what, person, taken_at) VALUES ($1, $2, $3, $4, $5)`,
		t.id, t.contact, t.what, t.person, micros(t.at))
	if err != nil {
		return fmt.Errorf("remember what leaves: %w", err)
	}
	return nil
}

// outsideCopies names the files that may hold a client's data, for the receipt. Which
// clients an export holds is not kept: of each that was made since the client is here
// it is said that it may.
func (s *store) outsideCopies(ctx context.Context, c *Contact) (copies []encrypt.Copy, err error) {
	rows, err := s.QueryContext(ctx, `SELECT contact, what, person, taken_at FROM copies WHERE contact = $1 OR contact = '' AND taken_at >= $2 ORDER BY taken_at, id`,
		c.ID, micros(c.Created))
	if err != nil {
		return nil, fmt.Errorf("read what left: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var whose, what, person string
		var at int64
		if err := rows.Scan(&whose, &what, &person, &at); err != nil {
			return nil, fmt.Errorf("read what left: %w", err)
		}
		if whose == "" {
			what += ", may contain the client"
		}
		copies = append(copies, encrypt.Copy{What: what, Where: "taken by " + person, At: fromMicros(at)})
	}
	return copies, rows.Err()
}
