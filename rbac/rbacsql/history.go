package rbacsql

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/rbac"
)

// pageOfHistory is how many versions are read at once.
const pageOfHistory = 200

// History implements [rbac.Store]. A version that is not genuine is an error.
func (a *Adapter) History(ctx context.Context, before int64, limit int) ([]rbac.Version, error) {
	return a.history(ctx, before, limit)
}

func (v *versions) history(ctx context.Context, before int64, limit int) ([]rbac.Version, error) {
	if limit < 1 || before < 0 {
		return nil, errors.New("rbacsql: history: want a limit of at least 1, and 0 or a version before which it is")
	}
	if before == 0 {
		before = maxVersion + 1
	}
	found, added, removed, err := documents(ctx, v.db, true,
		v.db.Q(`SELECT `+headColumns+`, added, removed FROM crmguard_version WHERE document = $1 AND number < $2 ORDER BY number DESC LIMIT $3`), v.document, before, min(limit, pageOfHistory))
	if err != nil {
		return nil, fmt.Errorf("rbacsql: read the history: %w", err)
	}
	versions := make([]rbac.Version, len(found))
	for i := range found {
		d := &found[i]
		if err := v.verify(ctx, d); err != nil {
			return nil, err
		}
		if err := d.read(added[i], removed[i]); err != nil {
			return nil, err
		}
		versions[i] = d.Version
	}
	return versions, nil
}

// At implements [rbac.Store].
func (a *Adapter) At(ctx context.Context, version int64) ([][]string, error) {
	return a.at(ctx, version)
}

// at makes the rows of a version out of the history, which must be complete back to a
// version that holds all rows.
func (v *versions) at(ctx context.Context, version int64) ([][]string, error) {
	if version < 1 || version > maxVersion {
		return nil, fmt.Errorf("rbacsql: there is no version %d", version)
	}
	var steps []rbac.Version // the newest first
	for next := version; len(steps) == 0 || !steps[len(steps)-1].Whole; {
		page, err := v.history(ctx, next+1, pageOfHistory)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(page, func(step rbac.Version) bool { return step.Whole }); i >= 0 {
			page = page[:i+1]
		}
		for _, step := range page {
			if step.Number != next {
				break
			}
			steps = append(steps, step)
			next--
		}
		if len(steps) == 0 {
			return nil, fmt.Errorf("rbacsql: there is no version %d", version)
		}
		if len(page) == 0 || page[len(page)-1].Number != next+1 {
			return nil, fmt.Errorf("%w: version %d is missing in the history", ErrTampered, next)
		}
	}
	var rules [][]string
	for _, step := range slices.Backward(steps) {
		rules = append(without(rules, keys(step.Removed)), step.Added...)
	}
	if rbac.Digest(rules) != steps[0].Digest {
		return nil, fmt.Errorf("%w: the history does not give the rows of version %d", ErrTampered, version)
	}
	return rules, nil
}
