package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/document"
)

// attachment is a file of a contact. What is stored of it lies in pieces in the
// database, so that a backup of the data holds it on SQLite and PostgreSQL alike.
type attachment struct {
	ID         string `encrypt:",record"`
	Contact    string `encrypt:",client"`
	Name       string `encrypt:"name"`
	NameSealed []byte `encrypt:"name,sealed"`
	Size       int64
	By         string
	Created    time.Time
	Damaged    bool // it did not open
}

// attachmentKind is what attachments are called where they are sealed; attachmentField
// what rights and the journal call them.
const (
	attachmentKind  = "attachments"
	attachmentField = "attachments"
)

// place is where the content belongs: to this client, as this file.
func (f *attachment) place() crmguard.Place {
	return crmguard.Place{Tenant: tenant, Client: f.Contact, Kind: attachmentKind, Record: f.ID, Field: "content"}
}

// attachments encrypt the files and seal their names.
type attachments struct {
	files *document.Files
	table *encrypt.Table[attachment]
}

func openAttachments(keys *encrypt.Keyring) (a attachments, err error) {
	if a.files, err = document.NewFiles(keys); err != nil {
		return a, err
	}
	a.table, err = encrypt.NewTable[attachment](keys, attachmentKind, nil)
	return a, err
}

const attachmentColumns = `id, contact, name, size, added_by, created_at`

func (f *attachment) scan(row interface{ Scan(...any) error }) error {
	var created int64
	err := row.Scan(&f.ID, &f.Contact, &f.NameSealed, &f.Size, &f.By, &created)
	f.Created = fromMicros(created)
	return err
}

// attachmentsOf reads what a contact has, still sealed, oldest first.
func (s *store) attachmentsOf(ctx context.Context, contact string) (files []*attachment, err error) {
	rows, err := s.QueryContext(ctx, `SELECT `+attachmentColumns+` FROM attachments WHERE contact = $1 ORDER BY created_at, id`, contact)
	if err != nil {
		return nil, fmt.Errorf("read attachments: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		f := new(attachment)
		if err := f.scan(rows); err != nil {
			return nil, fmt.Errorf("read attachments: %w", err)
		}
		files = append(files, f)
	}
	return files, rows.Err()
}

var errNoAttachment = errors.New("no such attachment")

// attachment reads one of a contact, still sealed.
func (s *store) attachment(ctx context.Context, contact, id string) (*attachment, error) {
	if !contactID.MatchString(id) {
		return nil, errNoAttachment
	}
	f := new(attachment)
	err := f.scan(s.QueryRowContext(ctx, `SELECT `+attachmentColumns+` FROM attachments WHERE id = $1 AND contact = $2`, id, contact))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errNoAttachment
	}
	if err != nil {
		return nil, fmt.Errorf("read an attachment: %w", err)
	}
	return f, nil
}

// insertAttachment stores a file that was encrypted into stored.
func insertAttachment(ctx context.Context, tx *sql.Tx, f *attachment, stored *os.File) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO attachments (`+attachmentColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`,
		f.ID, f.Contact, f.NameSealed, f.Size, f.By, micros(f.Created))
	if err != nil {
		return fmt.Errorf("store an attachment: %w", err)
	}
	return insertPieces(ctx, tx, f.ID, stored)
}

// pieceSize is how much of an encrypted file lies in one row.
const pieceSize = 256 << 10

func insertPieces(ctx context.Context, tx *sql.Tx, id string, stored *os.File) error {
	if _, err := rewind(stored); err != nil { // the transaction may run again
		return err
	}
	piece := make([]byte, pieceSize)
	for n := 0; ; n++ {
		size, err := io.ReadFull(stored, piece)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("store an attachment: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO attachment_pieces (attachment, n, content) VALUES ($1, $2, $3)`, id, n, piece[:size]); err != nil {
			return fmt.Errorf("store an attachment: %w", err)
		}
	}
}

// replacePieces stores a file that was encrypted anew, if it is still there.
func replacePieces(ctx context.Context, tx *sql.Tx, f *attachment, stored *os.File) error {
	var there bool
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) > 0 FROM attachments WHERE id = $1 AND contact = $2`, f.ID, f.Contact).Scan(&there)
	if err == nil && !there {
		return errNoAttachment
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM attachment_pieces WHERE attachment = $1`, f.ID)
	}
	if err != nil {
		return fmt.Errorf("store an attachment: %w", err)
	}
	return insertPieces(ctx, tx, f.ID, stored)
}

// fetch copies what is stored of a file, still encrypted, into a temporary file: as it
// is at one moment, and without a connection being held while somebody downloads it.
func (s *store) fetch(ctx context.Context, f *attachment) (file *os.File, err error) {
	rows, err := s.QueryContext(ctx, `SELECT content FROM attachment_pieces WHERE attachment = $1 ORDER BY n`, f.ID)
	if err != nil {
		return nil, fmt.Errorf("read an attachment: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	if file, err = unnamedFile(); err != nil {
		return nil, err
	}
	var piece sql.RawBytes
	for rows.Next() && err == nil {
		if err = rows.Scan(&piece); err == nil {
			_, err = file.Write(piece)
		}
	}
	if err == nil {
		err = rows.Err()
	}
	if err == nil {
		_, err = rewind(file)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read an attachment: %w", err), file.Close())
	}
	return file, nil
}

// deleteAttachment removes one, and says whether it was there.
func deleteAttachment(ctx context.Context, tx *sql.Tx, f *attachment) error {
	result, err := tx.ExecContext(ctx, `DELETE FROM attachments WHERE id = $1 AND contact = $2`, f.ID, f.Contact)
	if err != nil {
		return fmt.Errorf("delete an attachment: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errNoAttachment, err)
	}
	return nil
}

// removeAttachments removes all of a contact.
func removeAttachments(ctx context.Context, tx execer, contact string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM attachments WHERE contact = $1`, contact); err != nil {
		return fmt.Errorf("delete attachments: %w", err)
	}
	return nil
}
