package encrypt

import (
	"errors"
	"fmt"
)

// damagedKeys are errors about keys that keep no other key waiting: the first of them, and
// how many more there are. A copy of a store that is of no use has as many as it has keys.
type damagedKeys struct {
	first []error
	more  int
}

func (d *damagedKeys) add(err error) {
	if len(d.first) < maxFindings {
		d.first = append(d.first, err)
		return
	}
	d.more++
}

func (d *damagedKeys) err() error {
	err := errors.Join(d.first...)
	if d.more > 0 {
		err = fmt.Errorf("%w\nand %d more", err, d.more)
	}
	return err
}
