package rbac

import "github.com/crmguard/crmguard"

// relation is what a subject is to a record. It is the narrowest of own, dept
// and tree that holds, together with shared when that holds too: one word alone
// would lose the rights of the other.
type relation uint8

const (
	relNone relation = iota // neither responsible nor of the unit, or a function of the CRM
	relOwn
	relDept
	relTree
	relShared // from here on: the one above, and shared
	relOwnShared
	relDeptShared
	relTreeShared

	relations = 8
)

var relationWords = [relations]string{"none", "own", "dept", "tree", "shared", "own+shared", "dept+shared", "tree+shared"}

// String returns the word that Casbin compares.
func (r relation) String() string { return relationWords[r%relations] }

// scopes are the words that a rule may use, from narrow to wide.
var scopes = []string{"own", "dept", "tree", "shared", "all"}

// scopeRows is the graph g2: what each relation is part of.
var scopeRows = [][]string{
	{"own", "dept"}, {"dept", "tree"}, {"tree", "all"}, {"shared", "all"}, {"none", "all"},
	{"own+shared", "own"}, {"own+shared", "shared"},
	{"dept+shared", "dept"}, {"dept+shared", "shared"},
	{"tree+shared", "tree"}, {"tree+shared", "shared"},
}

// ScopeRows returns the g2 rows that the engine supplies by itself. Whoever runs
// the same policy in a Casbin enforcer of their own adds them there.
func ScopeRows() [][]string {
	rows := make([][]string, len(scopeRows))
	for i, row := range scopeRows {
		rows[i] = []string{row[0], row[1]}
	}
	return rows
}

// relationsIn are the relations that each scope covers.
var relationsIn = func() (in [len(scopeWords)]relationSet) {
	for r := range relation(relations) {
		words := []string{r.String()}
		for len(words) > 0 {
			if scope, ok := scopeOf(words[0]); ok {
				in[scope] |= 1 << r
			}
			for _, part := range scopeRows {
				if part[0] == words[0] {
					words = append(words, part[1])
				}
			}
			words = words[1:]
		}
	}
	return in
}()

// relationSet has bit 1<<r for each relation r.
type relationSet uint8

const (
	everyRelation     relationSet = 1<<relations - 1
	unsharedRelations relationSet = 1<<relShared - 1
	// unplaced are those between which only the departments decide.
	unplaced relationSet = 1<<relNone | 1<<relDept | 1<<relTree
)

func (s relationSet) has(r relation) bool { return s&(1<<r) != 0 }

// relate returns what a person is to a record, sharing left aside.
func relate(person string, place *placement, r *crmguard.Resource) relation {
	switch {
	case r.Owner != "" && r.Owner == person:
		return relOwn
	case r.Unit == "":
		return relNone
	case place.inUnit(r.Unit):
		return relDept
	case place.below(r.Unit):
		return relTree
	}
	return relNone
}
