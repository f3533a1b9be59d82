package ipfilter

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the rules of one tenant.
const (
	MaxPrefixes = 10_000 // in all lists together
	maxName     = 256    // bytes of a tenant, role or person
)

// Rules say from where the people of one tenant may come. The zero value has no
// list and lets everybody come from anywhere.
type Rules struct {
	Company List
	Roles   map[string]List // by name of the role
	People  map[string]List // by ID of the person or integration
}

// List is what one level says. Nil means that it says nothing; a list that is
// there but empty is refused, so that removing its last entry does not open what
// it closed. Of a role or person at least one is there.
type List struct {
	Allow []netip.Prefix // from nowhere else
	Deny  []netip.Prefix // never from here
}

// normal returns a copy of the rules whose prefixes are bare, sorted and unique,
// or the first reason to refuse them.
func (r Rules) normal() (Rules, error) {
	count := 0
	one := func(level, name string, l List) (List, error) {
		where := level
		if level != levelCompany {
			where += " " + name
			if err := checkName(name); err != nil {
				return List{}, fmt.Errorf("%s %q: %w", level, name, err)
			}
			if l.Allow == nil && l.Deny == nil {
				return List{}, fmt.Errorf("%s: neither allow nor deny: leave the entry out", where)
			}
		}
		var err error
		if l.Allow, err = normalSet(l.Allow); err != nil {
			return List{}, fmt.Errorf("%s: allow: %w", where, err)
		}
		if l.Deny, err = normalSet(l.Deny); err != nil {
			return List{}, fmt.Errorf("%s: deny: %w", where, err)
		}
		count += len(l.Allow) + len(l.Deny)
		return l, nil
	}
	named := func(level string, lists map[string]List) (map[string]List, error) {
		if len(lists) == 0 {
			return nil, nil
		}
		out := make(map[string]List, len(lists))
		for _, name := range slices.Sorted(maps.Keys(lists)) {
			l, err := one(level, name, lists[name])
			if err != nil {
				return nil, err
			}
			out[name] = l
		}
		return out, nil
	}
	var out Rules
	var err error
	if out.Company, err = one(levelCompany, "", r.Company); err != nil {
		return Rules{}, err
	}
	if out.Roles, err = named(levelRole, r.Roles); err != nil {
		return Rules{}, err
	}
	if out.People, err = named(levelPerson, r.People); err != nil {
		return Rules{}, err
	}
	if count > MaxPrefixes {
		return Rules{}, fmt.Errorf("%d prefixes, at most %d", count, MaxPrefixes)
	}
	return out, nil
}

func normalSet(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	if prefixes == nil {
		return nil, nil
	}
	if len(prefixes) == 0 {
		return nil, errors.New("the list is empty: leave it out, if nothing is to be restricted")
	}
	if len(prefixes) > MaxPrefixes {
		return nil, fmt.Errorf("%d prefixes, at most %d", len(prefixes), MaxPrefixes)
	}
	return bareSet(prefixes)
}

// checkName refuses names that could be mistaken for another or that JSON changes.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case len(name) > maxName:
		return fmt.Errorf("a name of more than %d bytes", maxName)
	case !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError):
		return errors.New("a name that is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("a name with control characters")
	}
	return nil
}
