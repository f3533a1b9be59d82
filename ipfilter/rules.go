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
func (r Rules) normal() (out Rules, err error) {
	n := &normalizer{}
	if out.Company, err = n.list(r.Company); err != nil {
		return Rules{}, fmt.Errorf("%s: %w", levelCompany, err)
	}
	if out.Roles, err = n.lists(r.Roles); err != nil {
		return Rules{}, fmt.Errorf("%s %w", levelRole, err)
	}
	if out.People, err = n.lists(r.People); err != nil {
		return Rules{}, fmt.Errorf("%s %w", levelPerson, err)
	}
	return out, nil
}

type normalizer struct{ prefixes int } // so far

func (n *normalizer) lists(lists map[string]List) (map[string]List, error) {
	if len(lists) == 0 {
		return nil, nil
	}
	out := make(map[string]List, len(lists))
	for _, name := range slices.Sorted(maps.Keys(lists)) { // in order, so that the same rules give the same error
		l := lists[name]
		err := checkName(name)
		if err == nil && l.Allow == nil && l.Deny == nil {
			err = errors.New("neither allow nor deny: leave the entry out")
		}
		if err == nil {
			out[name], err = n.list(l)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
	}
	return out, nil
}

func (n *normalizer) list(l List) (out List, err error) {
	if out.Allow, err = n.set(l.Allow); err != nil {
		return List{}, fmt.Errorf("allow: %w", err)
	}
	if out.Deny, err = n.set(l.Deny); err != nil {
		return List{}, fmt.Errorf("deny: %w", err)
	}
	return out, nil
}

func (n *normalizer) set(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	if prefixes == nil {
		return nil, nil
	}
	if len(prefixes) == 0 {
		return nil, errors.New("the list is empty: make it nil, if nothing is to be restricted")
	}
	if n.prefixes += len(prefixes); n.prefixes > MaxPrefixes {
		return nil, fmt.Errorf("more than %d prefixes in all lists together", MaxPrefixes)
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
