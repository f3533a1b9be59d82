package audit_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// Processes that share an anchor wait for each other: that one of them is at it is no
// failure of the anchor.
func TestFileAnchorIsShared(t *testing.T) {
	const processes, each = 8, 5
	signer, verifier := journaltest.Signer(t)
	path := filepath.Join(t.TempDir(), "anchor")
	sizes := make([]int, processes*each)
	for i := range sizes {
		sizes[i] = i + 1
	}
	list := signedSizes(t, signer, sizes...)
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for p := range processes {
		a := fileAnchor(t, path, verifier)
		all.Go(func() {
			for i := range each {
				errs[p*each+i] = a.Keep(t.Context(), list[p*each+i])
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	kept := 0
	for _, err := range fileAnchor(t, path, verifier).All(t.Context()) {
		require.NoError(t, err)
		kept++
	}
	require.Equal(t, len(list), kept)
}
