package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// printed stops what prints when it has.
type printed struct {
	strings.Builder
	stop func()
}

func (p *printed) Write(b []byte) (int, error) {
	defer p.stop()
	return p.Builder.Write(b)
}

// Of a folder that is damaged in the middle, and a database with what is no entry's,
// that is told and the rest is shown.
func TestDamageIsToldAndTheRestShown(t *testing.T) {
	dir := t.TempDir()
	folder, database, key := dir+"/journal/", dir+"/crm.db", dir+"/journal.key"
	require.NoError(t, makeJournal(t.Context(), []string{folder, key, "20"}))
	require.NoError(t, makeJournal(t.Context(), []string{database, key, "20"}))
	files, err := filepath.Glob(folder + "*.entries")
	require.NoError(t, err)
	content, err := os.ReadFile(files[0])
	require.NoError(t, err)
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(files[0], content, 0o600))
	require.NoError(t, execute(t.Context(), []string{database, `INSERT INTO crmguard_audit_clients (log, tenant, client, seq) VALUES ('main', 'acme', 'x', 4000)`}))
	for _, name := range []string{folder, database} {
		for _, args := range [][]string{
			{"audit", "timeline", "-tenant", "acme"},
			{"audit", "export", "-key", key + ".pub"},
			{"audit", "tail", "-tenant", "acme", "-key", key + ".pub"},
		} {
			if name == database && args[1] == "export" {
				continue // reads the entries, and none of them is wrong
			}
			ctx, stop := context.WithCancel(t.Context())
			out := printed{stop: func() {}}
			if args[1] == "tail" { // it goes on
				out.stop = stop
			}
			var complaint strings.Builder
			code := run(ctx, append(args, "-db", name), nil, &out, &complaint)
			stop()
			require.Equal(t, tampered, code, "%s of %s: %s", args[1], name, complaint.String())
			require.Contains(t, complaint.String(), "broken at entry")
			require.NotEmpty(t, out.String(), "%s of %s", args[1], name)
		}
	}
}
