package vaultkms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// defaultSettleTime is what Rotate waits where Options say nothing.
const defaultSettleTime = 5 * time.Minute

// settleTime is what Options say.
func settleTime(d time.Duration) (time.Duration, error) {
	switch {
	case d < 0:
		return 0, errors.New("vaultkms: negative SettleTime")
	case d == 0:
		return defaultSettleTime, nil
	}
	return d, nil
}

// eventually calls f until it is done, well or with an error. Until then its error says
// what is waited for. The modules of the KMSs have this function alike: they
// share nothing but package encrypt.
func eventually(ctx context.Context, settleTime time.Duration, f func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		done, err := f()
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}
