package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	extractFormat = "crmguard audit extract 1"
	maxExtractRow = 256 << 10 // bytes of a line: more than a record of 64 KiB and its proof take
)

var errExtract = errors.New("audit: malformed extract")

// Extracted says what an extract is of.
type Extracted struct {
	Log     string    // origin of the checkpoints: name of the key and id of the log
	Query   Query     // what all entries have in common
	Entries int       // how many there are
	Size    int64     // entries of the log that were looked at, which the checkpoint covers
	Pruned  int64     // of these, removed by retention before
	Made    time.Time // by the clock of the log
}

// extractHead is the first line of the file.
type extractHead struct {
	Format string    `json:"format"`
	Log    string    `json:"log"`
	Query  Query     `json:"query"`
	Size   int64     `json:"size"`
	Pruned int64     `json:"pruned"`
	Made   time.Time `json:"made"`
}

// extractLine is an entry, or at the end the statement.
type extractLine struct {
	Proof     string `json:"proof,omitempty"`     // see CheckProof; with the record and the checkpoint
	Statement string `json:"statement,omitempty"` // a signed note
}

// Extract writes all entries that match q, oldest first, into a file that whoever has
// the public key checks by itself, with [CheckExtract]: about a client, say, beside
// the act that states that the client's data was destroyed. The entries stay
// verifiable after that. Each comes with its proof and the checkpoint; at the end
// stands a statement, signed by the key of the log, that these are all.
//
// It is read from the journal whole, which is verified meanwhile: an entry that
// somebody hid from searching is found, and from a journal that is not right there
// is no extract. Entries that no checkpoint covers yet are not in it: Extracted.Size
// says how far it goes. The subject of ctx must be of the tenant; that they read is
// an entry, as with [Log.Read]. Limit and Before of q are of no meaning.
func (l *Log) Extract(ctx context.Context, q Query, w io.Writer) (Extracted, error) {
	subject, err := whoReads(ctx, &q)
	if err != nil {
		return Extracted{}, err
	}
	q.Limit, q.Before = 0, 0
	asked := q
	if err := q.normalise(nil); err != nil {
		return Extracted{}, err
	}
	tree, checkpoint, err := newestTree(ctx, l.store, l.verify, l.id)
	if err != nil {
		return Extracted{}, fmt.Errorf("audit: extract: %w", err)
	}
	var found []int64
	r, err := l.verifySound(ctx, func(row *Row, _ int64) {
		if row.Seq < tree.N && row.Keys.matches(&q) && (len(found) == 0 || row.Seq > found[len(found)-1]) {
			found = append(found, row.Seq)
		}
	})
	if err != nil {
		return Extracted{}, fmt.Errorf("audit: extract: %w", err)
	}
	if err := l.Record(ctx, reading(subject, append(shape(&asked, len(found) > 0), "extract"), len(found))); err != nil {
		return Extracted{}, fmt.Errorf("audit: nobody reads what cannot be recorded: %w", err)
	}
	x := Extracted{Log: origin(l.verify.Name(), l.id), Query: asked, Entries: len(found), Size: tree.N, Pruned: r.Pruned, Made: stored(l.clock())}
	out := extractWriter{w: bufio.NewWriter(w), sum: sha256.New()}
	out.line(extractHead{Format: extractFormat, Log: x.Log, Query: asked, Size: x.Size, Pruned: x.Pruned, Made: x.Made})
	for _, seq := range found {
		row, err := readOne(ctx, l.store, seq)
		var proof []byte
		if err == nil {
			proof, err = proveRow(ctx, l.store, l.verify, &row, tree, checkpoint)
		}
		if err != nil {
			return Extracted{}, fmt.Errorf("audit: extract: %w", err)
		}
		out.line(extractLine{Proof: string(proof)})
	}
	signed, err := note.Sign(&note.Note{Text: extractText(&x, out.sum.Sum(nil))}, l.signer)
	if err != nil {
		return Extracted{}, fmt.Errorf("audit: sign an extract: %w", err)
	}
	out.line(extractLine{Statement: string(signed)})
	return x, errors.Join(out.err, out.w.Flush())
}

// extractText says that the lines with this digest are all there are.
func extractText(x *Extracted, sum []byte) string {
	return fmt.Sprintf("%s\n%s\n%d\n%s\n", extractFormat, x.Log, x.Entries, base64.StdEncoding.EncodeToString(sum))
}

type extractWriter struct {
	w   *bufio.Writer
	sum hash.Hash // of all lines
	err error
}

func (e *extractWriter) line(v any) {
	b, err := json.Marshal(v)
	if e.err == nil && err == nil {
		b = append(b, '\n')
		_, _ = e.sum.Write(b) // never fails
		_, err = e.w.Write(b)
	}
	e.err = errors.Join(e.err, err)
}

// CheckExtract checks a file that [Log.Extract] wrote, with the public key of the log
// and nothing else: each entry is in the tree that was signed and is one that was
// asked for, no line was changed, left out or added. Visit, which may be nil, sees
// each entry in order; that none is missing is known when CheckExtract returns nil.
func CheckExtract(r io.Reader, v note.Verifier, visit func(Proven) error) (Extracted, error) {
	in := extractReader{r: bufio.NewReaderSize(r, maxExtractRow), sum: sha256.New()}
	var head extractHead
	if err := in.line(&head); err != nil {
		return Extracted{}, err
	}
	if head.Format != extractFormat {
		return Extracted{}, errExtract
	}
	x := Extracted{Log: head.Log, Query: head.Query, Size: head.Size, Pruned: head.Pruned, Made: head.Made}
	q := x.Query
	if err := q.normalise(nil); err != nil {
		return Extracted{}, err
	}
	last, checkpoint := int64(-1), ""
	for {
		before := in.sum.Sum(nil)
		var line extractLine
		if err := in.line(&line); err != nil {
			return Extracted{}, err
		}
		if line.Statement != "" && line.Proof == "" {
			return x, in.end(&x, line.Statement, before, v)
		}
		p, err := CheckProof([]byte(line.Proof), nil, v)
		if err != nil {
			return Extracted{}, err
		}
		if checkpoint == "" {
			checkpoint = p.Checkpoint
		}
		rec, err := decodeRecord(p.Record)
		if err != nil {
			return Extracted{}, err
		}
		keys := rec.keys()
		switch {
		case p.Entry.Seq <= last:
			return Extracted{}, fmt.Errorf("audit: the extract has entry %d after entry %d", p.Entry.Seq, last)
		case p.Checkpoint != checkpoint || p.Size != x.Size || origin(v.Name(), rec.log) != x.Log:
			return Extracted{}, fmt.Errorf("audit: entry %d of the extract is proved against another checkpoint", p.Entry.Seq)
		case !keys.matches(&q):
			return Extracted{}, fmt.Errorf("audit: entry %d of the extract is not one that was asked for", p.Entry.Seq)
		}
		last = p.Entry.Seq
		x.Entries++
		if visit == nil {
			continue
		}
		if err := visit(p); err != nil {
			return Extracted{}, err
		}
	}
}

type extractReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (e *extractReader) line(v any) error {
	b, err := e.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends without its statement", errExtract)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errExtract, err)
	}
	_, _ = e.sum.Write(b) // never fails
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errExtract, err)
	}
	// One form of each line: the last one is under no signature, and what stood beside
	// the statement might be taken for something that was checked.
	if again, err := json.Marshal(v); err != nil || !bytes.Equal(append(again, '\n'), b) {
		return fmt.Errorf("%w: a line has another form", errExtract)
	}
	return nil
}

// end checks the statement over the lines before, and that nothing follows.
func (e *extractReader) end(x *Extracted, signed string, sum []byte, v note.Verifier) error {
	n, err := openNote([]byte(signed), v)
	if err != nil {
		return fmt.Errorf("audit: the statement of the extract: %w", err)
	}
	if n.Text != extractText(x, sum) || !strings.HasPrefix(x.Log, v.Name()+"/") {
		return errors.New("audit: the extract is not what was signed: a line was changed, left out or added")
	}
	if _, err := e.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its statement", errExtract)
	}
	return nil
}
