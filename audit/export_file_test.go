package audit

import (
	"context"
	"os"
)

// OpenFileWith opens a store whose flushes and writes go through these functions;
// nil is the real one.
func OpenFileWith(dir string, sync func(*os.File) error, syncDir func(string) error, writeAt func(*os.File, []byte, int64) (int, error)) (*File, error) {
	o := realOps
	if sync != nil {
		o.sync = sync
	}
	if syncDir != nil {
		o.syncDir = syncDir
	}
	if writeAt != nil {
		o.writeAt = writeAt
	}
	return openFile(dir, o)
}

// LastCheckpoint finds the newest checkpoint.
func LastCheckpoint(ctx context.Context, s Store) (*Checkpoint, error) { return lastCheckpoint(ctx, s) }
