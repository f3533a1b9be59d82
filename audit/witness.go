package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/internal/webhook"
)

// maxAsked is how often one checkpoint is submitted until the witness and this log
// agree on what it saw before.
const maxAsked = 3

// Witness is an anchor at a witness of C2SP: it checks that each checkpoint continues
// the one before and signs it with the time. It refuses a log that was rewritten or cut
// off, even by whoever holds the signing key; the error then wraps [ErrContradicted].
//
// https://c2sp.org/tlog-witness
type Witness struct {
	url      *url.URL
	client   *http.Client
	witness  note.Verifier
	store    Store
	verifier note.Verifier
	kept     Anchor
	clock    func() time.Time

	keeping sync.Mutex // one Keep at a time
	size    int64      // of what the witness signed last, as far as is known

	mu           sync.Mutex
	contradicted error
}

var _ Anchor = (*Witness)(nil)

// NewWitness returns an anchor at the witness with this submission address, https
// unless it is on this machine, whose key is pinned: see [NewCosigner]. The proofs that
// the witness asks for come from store, whose checkpoints v signed. A witness gives
// nothing back, so what it signed is kept in another anchor, a [FileAnchor] usually;
// who rolls that back is found by the witness all the same. A nil client is one with
// a timeout of ten seconds; redirects are never followed.
func NewWitness(address string, witness note.Verifier, store Store, v note.Verifier, kept Anchor, client *http.Client) (*Witness, error) {
	if witness == nil || store == nil || v == nil || kept == nil {
		return nil, errors.New("audit: a witness needs its key, the store, the verifier of its checkpoints, and an anchor that keeps what it signs")
	}
	u, err := webhook.ParseURL(address)
	if err != nil {
		return nil, fmt.Errorf("audit: a witness: %w", err)
	}
	return &Witness{
		url: u.JoinPath("add-checkpoint"), client: webhook.Client(client), witness: witness,
		store: store, verifier: v, kept: kept, clock: time.Now,
	}, nil
}

// String names the witness.
func (w *Witness) String() string { return "witness " + w.witness.Name() }

// Keep implements [Anchor].
func (w *Witness) Keep(ctx context.Context, checkpoint []byte) error {
	tree, err := openOutside(checkpoint, w.verifier)
	if err != nil {
		return err
	}
	w.keeping.Lock()
	defer w.keeping.Unlock()
	signed, err := w.submit(ctx, checkpoint, tree.N)
	if err == nil || errors.Is(err, ErrContradicted) {
		w.mu.Lock()
		w.contradicted = err
		w.mu.Unlock()
	}
	if err != nil || signed == nil {
		return err
	}
	return w.kept.Keep(ctx, signed)
}

// submit returns the checkpoint with the cosignature; nil if the witness has seen a
// longer log already, which this is the beginning of.
func (w *Witness) submit(ctx context.Context, checkpoint []byte, size int64) ([]byte, error) {
	old := min(w.size, size)
	for range maxAsked {
		hashes, err := ProveConsistency(ctx, w.store, old, size)
		if err != nil {
			return nil, err
		}
		header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
		status, answer, err := webhook.Post(ctx, w.client, w.url, header, addCheckpoint(old, hashes, checkpoint))
		if err != nil {
			return nil, fmt.Errorf("audit: %v: %w", w, err)
		}
		switch status {
		case http.StatusOK:
			signed, err := w.accept(checkpoint, answer)
			if err == nil {
				w.size = size
			}
			return signed, err
		case http.StatusUnprocessableEntity:
			return nil, fmt.Errorf("audit: %v: the %d entries that it saw are not the first of these %d: %w", w, old, size, ErrContradicted)
		case http.StatusConflict:
		default:
			return nil, fmt.Errorf("audit: %v answers %d %s", w, status, http.StatusText(status))
		}
		seen, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		switch {
		case old == size && (err != nil || seen == size):
			return nil, fmt.Errorf("audit: %v: it saw another log of %d entries: %w", w, size, ErrContradicted)
		case err != nil || seen < 0:
			return nil, fmt.Errorf("audit: %v does not say what it saw", w)
		case seen > size:
			w.size = seen
			return nil, w.behind(ctx, size, seen)
		}
		old = seen
	}
	return nil, fmt.Errorf("audit: %v says each time that it saw another number of entries", w)
}

// behind says what it means that the witness saw more entries than a checkpoint has:
// another process of this log was faster, or entries are gone.
func (w *Witness) behind(ctx context.Context, size, seen int64) error {
	last, err := lastCheckpoint(ctx, w.store)
	if err != nil {
		return err
	}
	if last != nil && last.Size >= seen && last.Size > size {
		return nil
	}
	return fmt.Errorf("audit: %v saw %d entries, the log has %d: %w", w, seen, size, ErrContradicted)
}

// accept returns the checkpoint with the signature of the witness, if that is right
// and of now: an old one would tell of a time at which it saw less.
func (w *Witness) accept(checkpoint, answer []byte) ([]byte, error) {
	for line := range bytes.Lines(answer) {
		signed := bytes.Join([][]byte{checkpoint, line}, nil)
		at, err := cosigned(signed, w.verifier, w.witness)
		if err != nil {
			continue // of another key, as the specification allows
		}
		if age := w.clock().Sub(at); age > slack || age < -slack {
			return nil, fmt.Errorf("audit: %v signed at %v, which is not now", w, at.UTC())
		}
		return signed, nil
	}
	return nil, fmt.Errorf("audit: %v did not sign", w)
}

// addCheckpoint is the body of a request.
func addCheckpoint(old int64, proof [][32]byte, checkpoint []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.Bytes()
}

// Newest implements [Anchor]. The time is that of the witness, under its signature.
// After a Keep that the witness refused because it knows better, the error wraps
// [ErrContradicted].
func (w *Witness) Newest(ctx context.Context) (checkpoint []byte, at time.Time, err error) {
	w.mu.Lock()
	err = w.contradicted
	w.mu.Unlock()
	if err != nil {
		return nil, time.Time{}, err
	}
	checkpoint, _, err = w.kept.Newest(ctx)
	if err != nil || checkpoint == nil {
		return nil, time.Time{}, err
	}
	if at, err = cosigned(checkpoint, w.verifier, w.witness); err == nil {
		return checkpoint, at, nil
	}
	if earlier, at, errAll := w.newestCosigned(ctx); errAll != nil || earlier != nil {
		return earlier, at, errAll
	}
	return nil, time.Time{}, err
}

// newestCosigned is for an anchor that keeps more than what the witness signed: the
// log's own checkpoints, or what somebody put there.
func (w *Witness) newestCosigned(ctx context.Context) (newest []byte, at time.Time, err error) {
	var signed []Kept
	line := []byte("\n— " + w.witness.Name() + " ")
	for checkpoint, err := range w.All(ctx) {
		if err != nil {
			return nil, time.Time{}, err
		}
		if bytes.Contains(checkpoint, line) {
			signed = append(signed, Kept{Note: checkpoint})
		}
	}
	k := newestKept(signed, func(k *Kept) (err error) {
		k.At, err = cosigned(k.Note, w.verifier, w.witness)
		return err
	})
	return k.Note, k.At, nil
}

// All returns what the witness signed, if the anchor that keeps it does.
func (w *Witness) All(ctx context.Context) iter.Seq2[[]byte, error] {
	if h, ok := w.kept.(history); ok {
		return h.All(ctx)
	}
	return func(func([]byte, error) bool) {}
}
