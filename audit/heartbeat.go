package audit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard"
)

// A checkpoint says what the log held, but not when: one of a silent night may be one
// of yesterday, with all that came after it removed. A time in an extension line of
// the checkpoint would not help, since auditors and witnesses may not rely on such
// lines, and a witness keeps one checkpoint of each size. So time goes into the chain:
// after some silence the log makes an entry of its own. The newest checkpoint of a log
// in use then covers an entry that is never older than the heartbeat, and that entry's
// time is under the signature.

const defaultHeartbeat = 10 * time.Minute

// ActHeartbeat is the action of entries that the log makes by itself, after silence.
const ActHeartbeat crmguard.Action = "heartbeat"

// pulse is what the committer remembers of the last sign of life.
type pulse struct {
	size int64
	at   time.Time // by the clock that runs through
}

// live makes an entry after silence. It reports whether the log goes on.
func (c *committer) live(ctx context.Context) bool {
	if c.at.size != c.pulse.size || c.pulse.at.IsZero() {
		c.pulse = pulse{c.at.size, time.Now()}
		return true
	}
	if time.Since(c.pulse.at) < c.beat {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	it := c.own(crmguard.Event{
		// Of several processes that notice the silence at once, one makes the entry.
		ID:     fmt.Sprintf("%s-%d", ActHeartbeat, c.at.size),
		Action: ActHeartbeat,
	})
	err := c.appendItems(ctx, []*item{it}, nil, nil)
	if err == nil {
		err = it.err
	}
	if err != nil && !c.lagging {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: no heartbeat", slog.Any("error", err))
		c.lagging = true
	}
	return err == nil
}
