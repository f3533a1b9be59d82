package audittest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Witness is a witness of C2SP that serves tests: it remembers the newest checkpoint
// of each log of the keys that it knows, signs what continues it, and refuses the rest.
//
// https://c2sp.org/tlog-witness
type Witness struct {
	URL string // where it is served
	Key string // its public key, for audit.NewCosigner

	mu     sync.Mutex
	name   string
	secret ed25519.PrivateKey
	public []byte // type and key
	logs   []note.Verifier
	seen   map[string]tlog.Tree // by origin
	clock  func() time.Time
}

// NewWitness serves a witness until the test ends. It knows the logs of these keys.
func NewWitness(t testing.TB, name string, logs ...note.Verifier) *Witness {
	t.Helper()
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	w := &Witness{name: name, secret: secret, public: append([]byte{4}, public...), logs: logs, seen: make(map[string]tlog.Tree), clock: time.Now}
	w.Key = fmt.Sprintf("%s+%08x+%s", name, w.hash(), base64.StdEncoding.EncodeToString(w.public))
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	w.URL = server.URL
	return w
}

func (w *Witness) hash() uint32 {
	sum := sha256.Sum256(append([]byte(w.name+"\n"), w.public...))
	return binary.BigEndian.Uint32(sum[:])
}

// SetClock replaces the time that it signs.
func (w *Witness) SetClock(clock func() time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = clock
}

// Seen is how many entries of a log it saw.
func (w *Witness) Seen(origin string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[origin].N
}

// Cosign returns the line that says that it saw this text of a checkpoint now.
func (w *Witness) Cosign(text string) string {
	at := w.clock().Unix()
	sig := ed25519.Sign(w.secret, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))
	b := binary.BigEndian.AppendUint32(nil, w.hash())
	b = binary.BigEndian.AppendUint64(b, uint64(at)) //nolint:gosec // after 1970
	return fmt.Sprintf("— %s %s\n", w.name, base64.StdEncoding.EncodeToString(append(b, sig...)))
}

// ServeHTTP answers add-checkpoint.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/add-checkpoint" {
		http.Error(rw, "not found", http.StatusNotFound)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	status, answer := w.add(string(body))
	if status == http.StatusConflict {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	}
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, answer)
}

func (w *Witness) add(body string) (status int, answer string) {
	head, checkpoint, ok := strings.Cut(body, "\n\n")
	lines := strings.Split(head, "\n")
	number, isOld := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseInt(number, 10, 64)
	if !ok || !isOld || err != nil || strconv.FormatInt(old, 10) != number || len(lines) > 64 {
		return http.StatusBadRequest, ""
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return http.StatusBadRequest, ""
		}
		proof = append(proof, h)
	}
	origin, _, _ := strings.Cut(checkpoint, "\n")
	n, status := w.open(origin, checkpoint)
	if n == nil {
		return status, ""
	}
	tree, err := parseTree(n.Text)
	if err != nil || old > tree.N {
		return http.StatusBadRequest, ""
	}
	seen := w.seen[origin]
	switch {
	case old != seen.N || old == tree.N && old > 0 && tree.Hash != seen.Hash:
		return http.StatusConflict, fmt.Sprintf("%d\n", seen.N)
	case old == 0 || old == tree.N:
		if len(proof) > 0 {
			return http.StatusUnprocessableEntity, ""
		}
	case tlog.CheckTree(proof, tree.N, tree.Hash, old, seen.Hash) != nil:
		return http.StatusUnprocessableEntity, ""
	}
	w.seen[origin] = tree
	return http.StatusOK, w.Cosign(n.Text)
}

// open finds the key of the log.
func (w *Witness) open(origin, checkpoint string) (n *note.Note, status int) {
	status = http.StatusNotFound
	for _, v := range w.logs {
		if !strings.HasPrefix(origin, v.Name()+"/") {
			continue
		}
		status = http.StatusForbidden
		if n, err := note.Open([]byte(checkpoint), note.VerifierList(v)); err == nil {
			return n, http.StatusOK
		}
	}
	return nil, status
}

func parseTree(text string) (tlog.Tree, error) {
	var origin, hash string
	var tree tlog.Tree
	if _, err := fmt.Sscanf(text, "%s\n%d\n%s\n", &origin, &tree.N, &hash); err != nil {
		return tree, err
	}
	var err error
	tree.Hash, err = tlog.ParseHash(hash)
	return tree, err
}
