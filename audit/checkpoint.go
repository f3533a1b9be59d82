package audit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A checkpoint is C2SP's tlog-checkpoint: three lines, origin, size and root, in
// a signed note. The origin is the name of the signing key and the id of the log,
// so that checkpoints of two logs under one key are never taken for each other.
//
// https://c2sp.org/tlog-checkpoint

var (
	errCheckpoint = errors.New("audit: malformed checkpoint")
	errOrigin     = errors.New("audit: the checkpoint is of another log")
	errVerifier   = errors.New("audit: a verifier is needed")
)

func origin(name string, log [16]byte) string { return name + "/" + hex.EncodeToString(log[:]) }

func signCheckpoint(p *position, signer note.Signer) (*Checkpoint, error) {
	root := p.root()
	text := fmt.Sprintf("%s\n%d\n%s\n", origin(signer.Name(), p.log), p.size, base64.StdEncoding.EncodeToString(root[:]))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, fmt.Errorf("audit: sign a checkpoint: %w", err)
	}
	return &Checkpoint{Size: p.size, Note: signed}, nil
}

// openCheckpoint reads a checkpoint of this log and checks its signature.
func openCheckpoint(c *Checkpoint, v note.Verifier, log [16]byte) (tlog.Tree, error) {
	n, err := openNote(c.Note, v)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("audit: checkpoint of %d entries: %w", c.Size, err)
	}
	tree, err := parseTree(n.Text)
	switch {
	case err != nil:
		return tlog.Tree{}, err
	case tree.N != c.Size:
		return tlog.Tree{}, errCheckpoint
	case tree.origin != origin(v.Name(), log):
		return tlog.Tree{}, errOrigin
	}
	return tree.Tree, nil
}

// openNote opens a note that v signed. Package note accepts any padding bits; one
// statement has one form here.
func openNote(signed []byte, v note.Verifier) (*note.Note, error) {
	if v == nil { // of a caller, or of a log that OpenInbox opened
		return nil, errVerifier
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, err
	}
	for _, sig := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return nil, errCheckpoint
		}
	}
	return n, nil
}

// OpenCheckpoint reads a checkpoint and checks that v signed it: for anchors, which
// keep nothing else. Whether it is one of a certain log, and fits what that holds, is
// for [VerifyStore] to say.
func OpenCheckpoint(signed []byte, v note.Verifier) (Checkpoint, error) {
	tree, err := openOutside(signed, v)
	if err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{Size: tree.N, Note: signed}, nil
}

// openOutside does the same with a checkpoint that was kept outside the store, of
// whatever log.
func openOutside(signed []byte, v note.Verifier) (*signedTree, error) {
	n, err := openNote(signed, v)
	if err != nil {
		return nil, fmt.Errorf("audit: a checkpoint from outside: %w", err)
	}
	return parseTree(n.Text)
}

// signedTree is what a checkpoint says.
type signedTree struct {
	origin string
	tlog.Tree
}

// parseTree accepts the one form of each checkpoint.
func parseTree(text string) (*signedTree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return nil, errCheckpoint
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != lines[1] {
		return nil, errCheckpoint
	}
	hash, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(hash) != tlog.HashSize {
		return nil, errCheckpoint
	}
	return &signedTree{origin: lines[0], Tree: tlog.Tree{N: n, Hash: tlog.Hash(hash)}}, nil
}

// lastCheckpoint returns nil if there is none. A store is asked for the first one
// beyond some size; so it goes ahead in steps that grow, and back where there is
// none, instead of through all of them.
func lastCheckpoint(ctx context.Context, s Store) (*Checkpoint, error) {
	var last *Checkpoint
	after := int64(-1)
	for step := int64(1); step > 0; {
		page, err := s.Checkpoints(ctx, after+step-1, 1)
		if err != nil {
			return nil, fmt.Errorf("audit: read checkpoints: %w", err)
		}
		if len(page) == 0 {
			step /= 2
			continue
		}
		last = &page[0]
		after = last.Size
		step = min(2*step, math.MaxInt64-after)
	}
	return last, nil
}

// newestTree is what the newest checkpoint says; [ErrUnsigned] if there is none.
func newestTree(ctx context.Context, s Store, v note.Verifier, log [16]byte) (tlog.Tree, *Checkpoint, error) {
	last, err := lastCheckpoint(ctx, s)
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	if last == nil {
		return tlog.Tree{}, nil, ErrUnsigned
	}
	tree, err := openCheckpoint(last, v, log)
	return tree, last, err
}
