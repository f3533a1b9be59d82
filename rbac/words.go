package rbac

import "github.com/crmguard/crmguard"

// The words of rows as small numbers, in the order of their encoding: by length,
// then by bytes. So rules that are sorted as numbers are sorted as text.

// act is an action of a row. The zero value is no action.
type act uint8

const acts = 20 // and none

var actWords = [acts]crmguard.Action{
	"",
	crmguard.Call, crmguard.List, fieldRead, crmguard.View,
	crmguard.Erase, crmguard.Grant, fieldWrite,
	crmguard.Access, crmguard.Create, crmguard.Delete, crmguard.Export, crmguard.Import,
	crmguard.Reveal, crmguard.Revoke, crmguard.Search, crmguard.Unmask, crmguard.Update,
	crmguard.SignIn, crmguard.Configure,
}

// actOf is a switch, for it stands on the way of every decision.
func actOf(a crmguard.Action) act {
	switch a {
	case crmguard.Call:
		return 1
	case crmguard.List:
		return 2
	case fieldRead:
		return 3
	case crmguard.View:
		return 4
	case crmguard.Erase:
		return 5
	case crmguard.Grant:
		return 6
	case fieldWrite:
		return 7
	case crmguard.Access:
		return 8
	case crmguard.Create:
		return 9
	case crmguard.Delete:
		return 10
	case crmguard.Export:
		return 11
	case crmguard.Import:
		return 12
	case crmguard.Reveal:
		return 13
	case crmguard.Revoke:
		return 14
	case crmguard.Search:
		return 15
	case crmguard.Unmask:
		return 16
	case crmguard.Update:
		return 17
	case crmguard.SignIn:
		return 18
	case crmguard.Configure:
		return 19
	}
	return 0
}

// scopeWords are scopes, in that order.
var scopeWords = [...]string{"all", "own", "dept", "tree", "headed", "shared"}

// scopeOf returns the number of a scope.
func scopeOf(word string) (scope uint8, ok bool) {
	for i, w := range scopeWords {
		if w == word {
			return uint8(i), true // #nosec G115 -- there are not 256 of them
		}
	}
	return 0, false
}

// Effects of rules.
const (
	effectDeny uint8 = iota
	effectAllow
)

var effectWords = [...]string{"deny", "allow"}
