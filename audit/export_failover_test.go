package audit

import "os"

// NewFailoverWith opens one whose flushes and writes go through these functions.
func NewFailoverWith(l *Log, dir string, o *FailoverOptions, sync func(*os.File) error, writeAt func(*os.File, []byte, int64) (int, error)) (*Failover, error) {
	files := realOps
	if sync != nil {
		files.sync = sync
	}
	if writeAt != nil {
		files.writeAt = writeAt
	}
	return newFailover(l, dir, o, files)
}
