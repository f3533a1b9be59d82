package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/crmguard/crmguard/encrypt"
)

// ledger is where receipts go, a line each. The bytes of a line are what a receipt's MAC
// is over, so nobody indents them.
type ledger struct {
	out  io.Writer
	file *os.File // nil: the output
}

// openLedger opens a file to add to it; an empty name is the output. A line that a full disk has
// cut off is ended first: what is added behind it would be no receipt either.
func (c *call) openLedger(name string) (*ledger, error) {
	if name == "" {
		return &ledger{out: c.out}, nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600) //nolint:gosec // whoever calls names it
	if err != nil {
		return nil, err
	}
	if whole, err := endsWithLine(name); err != nil {
		return nil, errors.Join(err, file.Close())
	} else if !whole {
		if _, err := file.WriteString("\n"); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return &ledger{out: file, file: file}, nil
}

// endsWithLine says so of an empty file, too, and of what is no file.
func endsWithLine(name string) (bool, error) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return true, err
	}
	file, err := os.Open(name) //nolint:gosec // whoever calls names it
	if err != nil {
		return false, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	last := []byte{0}
	_, err = file.ReadAt(last, info.Size()-1)
	return last[0] == '\n', err
}

func (l *ledger) add(r encrypt.Receipt) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return err
	}
	if l.file == nil {
		return nil
	}
	if err := l.file.Sync(); !errors.Is(err, syscall.EINVAL) { // a pipe is on no disk
		return err
	}
	return nil
}

func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// entry is a line of a ledger.
type entry struct {
	where    string // file and line
	document []byte
	tenant   string // as it says itself; nothing vouches for that yet
}

var errLedgerEmpty = errors.New("there is no receipt in it")

// readLedger returns the receipts of a file, or of the input for "-".
func (c *call) readLedger(name string) (entries []entry, err error) {
	var text []byte
	if name == "-" {
		text, err = io.ReadAll(c.in)
	} else {
		text, err = os.ReadFile(name) //nolint:gosec // whoever calls names it
	}
	if err != nil {
		return nil, err
	}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e := entry{where: fmt.Sprintf("%s, line %d", plain(name), number), document: line}
		var says struct {
			Tenant string `json:"tenant"`
		}
		if json.Unmarshal(line, &says) == nil { // what is no JSON is refused as a receipt
			e.tenant = says.Tenant
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s: %w", plain(name), errLedgerEmpty)
	}
	return entries, nil
}

// readLedgers reads all of them before anything is done.
func (c *call) readLedgers(names []string) (entries []entry, err error) {
	for _, name := range names {
		more, err := c.readLedger(name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	return entries, nil
}
