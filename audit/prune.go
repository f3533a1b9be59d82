package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
)

// tileSize is how many entries are removed together: the subtree over them stays as
// one hash.
const (
	tileLevel = 8
	tileSize  = 1 << tileLevel
)

// ErrPruned says that an entry was removed by retention.
var ErrPruned = errors.New("audit: the entry was removed by retention")

// ActPrune is the action of the entries that [Log.Prune] makes, in the log's own journal.
const ActPrune crmguard.Action = "prune"

// Pruner is what a store offers besides that can remove old rows and give their
// space back.
type Pruner interface {
	// Prune removes all rows with numbers below p.Size, and keeps p in the place of
	// the one before, and the nodes beside those that it has. All of it happens or
	// nothing, seen from any reader. One of not more than was pruned already does
	// nothing. The checkpoints stay.
	Prune(ctx context.Context, p Pruning, nodes []Node) error

	// Pruned returns what was pruned last; zero if nothing ever was.
	Pruned(ctx context.Context) (Pruning, error)

	// Nodes returns at most n nodes in ascending order of number and level, from
	// this number and level on.
	Nodes(ctx context.Context, seq int64, level, n int) ([]Node, error)
}

// Pruning is the statement that the entries before Size were removed.
type Pruning struct {
	Size int64
	Note []byte // signed; see docs/formats/audit.md
}

// Node is a hash of the tree over entries that were removed: that of the subtree of
// 2^Level entries that ends with entry Seq.
type Node struct {
	Seq   int64
	Level int
	Hash  [32]byte
}

// Removed says what a call of [Log.Prune] did.
type Removed struct {
	From, To int64 // entries From to To-1 were removed; none if they are equal
	Held     *Hold // why the next 256 entries were not removed, if a hold keeps one of them
	HeldAt   int64 // the entry that it keeps
}

const pruningHead = "crmguard audit pruned 1"

// signPruning states that the entries before p were removed on purpose. Nobody who
// lacks the signing key can say that, so that rows which are merely gone are missed.
func signPruning(p *position, signer note.Signer) (Pruning, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n%s\n%d\n%s\n", pruningHead, origin(signer.Name(), p.log), p.size, base64.StdEncoding.EncodeToString(p.last[:]))
	for _, peak := range p.peaks {
		fmt.Fprintf(&text, "%s\n", base64.StdEncoding.EncodeToString(peak[:]))
	}
	signed, err := note.Sign(&note.Note{Text: text.String()}, signer)
	if err != nil {
		return Pruning{}, fmt.Errorf("audit: sign what is pruned: %w", err)
	}
	return Pruning{Size: p.size, Note: signed}, nil
}

var errPruning = errors.New("audit: the statement of what was removed is malformed, or not of this log and key")

// open returns where the log stood after the entries that were removed.
func (s *Pruning) open(v note.Verifier, log [16]byte) (position, error) {
	n, err := openNote(s.Note, v)
	if err != nil {
		return position{}, fmt.Errorf("%w: %w", errPruning, err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 5 || lines[0] != pruningHead || lines[1] != origin(v.Name(), log) || lines[len(lines)-1] != "" ||
		lines[2] != strconv.FormatInt(s.Size, 10) || s.Size <= 0 || s.Size%tileSize != 0 {
		return position{}, errPruning
	}
	p := position{log: log, size: s.Size}
	var hashes [][32]byte
	for _, line := range lines[3 : len(lines)-1] {
		b, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(b) != 32 {
			return position{}, errPruning
		}
		hashes = append(hashes, [32]byte(b))
	}
	p.last = hashes[0]
	for _, h := range hashes[1:] {
		p.peaks = append(p.peaks, h)
	}
	if len(p.peaks) != peakCount(s.Size) {
		return position{}, errPruning
	}
	return p, nil
}

// prunedOf returns the zero value for a store that cannot prune.
func prunedOf(ctx context.Context, s Store) (Pruning, error) {
	p, ok := s.(Pruner)
	if !ok {
		return Pruning{}, nil
	}
	pruned, err := p.Pruned(ctx)
	if err != nil {
		return Pruning{}, fmt.Errorf("audit: read what was pruned: %w", err)
	}
	return pruned, nil
}

// Prune removes the entries that were recorded before a time, from the oldest on, in
// whole tiles of 256. It stops at the first entry that is younger, that a [Hold]
// keeps, or that no checkpoint covers, so one hold on an old entry keeps all that
// came after it, too. What stays can be proved and verified as before,
// against old and new checkpoints: the hashes that this takes are kept, and the
// signing key states what was removed. The subject in ctx is who did it.
//
// Prune verifies the whole journal first and removes nothing from one that is not
// right: the evidence would be gone. It makes an entry before and one after.
func (l *Log) Prune(ctx context.Context, before time.Time) (Removed, error) {
	store, ok := l.store.(Pruner)
	if !ok {
		return Removed{}, fmt.Errorf("audit: this store cannot prune: %w", errors.ErrUnsupported)
	}
	if _, ok := crmguard.SubjectFrom(ctx); !ok {
		return Removed{}, errors.New("audit: prune: somebody must do it: no subject in the context")
	}
	plan, err := l.planPrune(ctx, before)
	if err != nil {
		return Removed{}, fmt.Errorf("audit: prune: %w", err)
	}
	if plan.From == plan.To {
		return plan.Removed, nil
	}
	e := crmguard.Event{
		ID:       newID(l.clock()),
		Action:   ActPrune,
		Resource: crmguard.Resource{Kind: "journal", ID: fmt.Sprintf("%d-%d", plan.From, plan.To-1)},
		Outcome:  crmguard.Attempted,
		Count:    int(plan.To - plan.From),
		Fields:   []string{"before=" + stored(before).Format(time.RFC3339Nano)},
	}
	if err := l.recordOwn(ctx, e); err != nil {
		return Removed{}, err
	}
	// The entry orders this against holds: those before it count, later ones come too
	// late for what it names. One that waits in the inbox was placed before.
	if err = l.sequenced(ctx); err == nil {
		err = l.execute(ctx, store, plan)
	}
	e.Outcome = crmguard.Done
	if err != nil {
		e.Outcome = crmguard.Failed
	}
	if errDone := l.recordOwn(context.WithoutCancel(ctx), e); err == nil && errDone != nil {
		return plan.Removed, errDone
	}
	if err != nil {
		return Removed{}, fmt.Errorf("audit: prune: %w", err)
	}
	return plan.Removed, nil
}

func (l *Log) execute(ctx context.Context, store Pruner, plan *prunePlan) error {
	added, err := l.heldSince(ctx, plan.seen)
	if err != nil {
		return err
	}
	if added {
		return errors.New("a hold was placed meanwhile: try again")
	}
	statement, err := signPruning(&plan.at, l.signer)
	if err != nil {
		return err
	}
	if _, err := statement.open(l.verify, l.id); err != nil {
		return err
	}
	signed, err := l.signedMeanwhile(ctx, plan)
	if err != nil {
		return err
	}
	if signed {
		return errors.New("an old checkpoint was signed meanwhile: try again")
	}
	return store.Prune(ctx, statement, plan.nodes)
}
