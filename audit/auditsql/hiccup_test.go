package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// hiccup are keys that cannot be had for one field, with one error after the other. The last
// stays if it is that they are not available: as of those whose newest version another
// process has made.
type hiccup struct {
	*journaltest.Sealer
	field string
	mu    sync.Mutex
	errs  []error
	done  bool
}

func (h *hiccup) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.Field == h.field && len(h.errs) > 0 {
		err := h.errs[0]
		if len(h.errs) > 1 || errors.Is(err, errLost) {
			h.errs = h.errs[1:]
		}
		h.done = true
		return nil, err
	}
	return h.Sealer.Open(ctx, at, sealed)
}

var (
	errLost = errors.New("the connection was lost")
	errAway = fmt.Errorf("key store: %w", crmguard.ErrUnavailable)
)

// Keys that cannot be had, and work when it is asked whether they do, do not make what the
// log keeps for itself look forged.
func TestKeysFail(t *testing.T) {
	t.Run("once", func(t *testing.T) { keysFail(t, errLost) })
	t.Run("for long", func(t *testing.T) { keysFail(t, errAway) })
	t.Run("once, and then for long", func(t *testing.T) { keysFail(t, errLost, errAway) })
}

func keysFail(t *testing.T, errs ...error) {
	for what, field := range map[string]string{"MAC": "mac", "heartbeat": "beat", "account": "nodes"} {
		t.Run(what, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				signer, verifier := journaltest.Signer(t)
				keys, store := journaltest.NewSealer(), newStore(t, db)
				record := func() {
					log, err := audit.OpenInbox(t.Context(), store, keys, nil)
					require.NoError(t, err)
					require.NoError(t, log.Record(t.Context(), journaltest.Event(1)))
					require.Eventually(t, func() bool {
						beats, err := store.Beats(t.Context(), 10)
						return err == nil && len(beats) == 1
					}, time.Minute, 10*time.Millisecond)
					require.NoError(t, log.Close()) // which has another one
				}
				record()
				log, err := audit.New(t.Context(), store, keys, signer, verifier, nil)
				require.NoError(t, err)
				require.NoError(t, log.Close())

				record()
				faulty := &hiccup{Sealer: keys, field: field, errs: errs}
				log, err = audit.New(t.Context(), store, faulty, signer, verifier, nil)
				if errors.Is(errs[len(errs)-1], errAway) && field == "mac" {
					require.ErrorIs(t, err, crmguard.ErrUnavailable)
				} else {
					require.NoError(t, err)
					_ = log.Close() // what could not be heard is heard by the next
				}
				require.True(t, faulty.done)
				log, err = audit.New(t.Context(), store, keys, signer, verifier, nil)
				require.NoError(t, err)
				require.NoError(t, log.Close())
				r, err := audit.VerifyStore(t.Context(), store, verifier, nil)
				require.NoError(t, err)
				require.True(t, r.OK(), r.Detail)
				require.Zero(t, r.Missing+r.InDoubt, r.Detail)
			})
		})
	}
}
