package journaltest

import (
	"context"
	"fmt"
	"os"

	"github.com/crmguard/crmguard"
)

// RecordForever records from several goroutines, for a test that kills the process,
// and returns the first error. It prints the ID of each acknowledged event.
func RecordForever(ctx context.Context, log crmguard.Recorder) error {
	failed := make(chan error)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := Event(i)
				e.ID = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if err := log.Record(ctx, e); err != nil {
					failed <- err
					return
				}
				fmt.Println(e.ID) // one write: whole or not at all
			}
		}()
	}
	return <-failed
}
