package rbac

import "github.com/crmguard/crmguard"

// relation is what a subject is to a record. It is the narrowest of own, dept
// and tree that holds, together with headed and shared when these hold too: one word
// alone would lose the rights of the others. Own is part of headed.
type relation uint8

const (
	relNone relation = iota // neither responsible nor of the unit, or a function of the CRM
	relOwn
	relDept
	relTree
	relHeaded // of a unit that the subject heads, or of one below such
	relDeptHeaded
	relTreeHeaded
	relShared // from here on: the one above, and shared
	relOwnShared
	relDeptShared
	relTreeShared
	relHeadedShared
	relDeptHeadedShared
	relTreeHeadedShared

	relations = 14
)

var relationWords = [relations]string{
	"none", "own", "dept", "tree", "headed", "dept+headed", "tree+headed",
	"shared", "own+shared", "dept+shared", "tree+shared", "headed+shared", "dept+headed+shared", "tree+headed+shared",
}

// headed is the relation to a record of a unit that the person also heads.
func (r relation) headed() relation {
	if r == relNone {
		return relHeaded
	}
	return r + relDeptHeaded - relDept
}

// String returns the word that Casbin compares.
func (r relation) String() string { return relationWords[r%relations] }

// scopes are the words that a rule may use, from narrow to wide.
var scopes = []string{"own", "dept", "tree", "headed", "shared", "all"}

// scopeRows is the graph g2: what each relation is part of.
var scopeRows = [][]string{
	{"own", "dept"}, {"dept", "tree"}, {"tree", "all"}, {"own", "headed"}, {"headed", "all"}, {"shared", "all"}, {"none", "all"},
	{"dept+headed", "dept"}, {"dept+headed", "headed"},
	{"tree+headed", "tree"}, {"tree+headed", "headed"},
	{"own+shared", "own"}, {"own+shared", "shared"},
	{"dept+shared", "dept"}, {"dept+shared", "shared"},
	{"tree+shared", "tree"}, {"tree+shared", "shared"},
	{"headed+shared", "headed"}, {"headed+shared", "shared"},
	{"dept+headed+shared", "dept+headed"}, {"dept+headed+shared", "shared"},
	{"tree+headed+shared", "tree+headed"}, {"tree+headed+shared", "shared"},
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
type relationSet uint16

const (
	everyRelation     relationSet = 1<<relations - 1
	unsharedRelations relationSet = 1<<relShared - 1
	// unplaced are those between which only the departments decide.
	unplaced = unsharedRelations &^ (1 << relOwn)
)

func (s relationSet) has(r relation) bool { return s&(1<<r) != 0 }

// relate returns what a person is to a record, sharing left aside.
func relate(person string, place *placement, r *crmguard.Resource) relation {
	if r.Owner != "" && r.Owner == person {
		return relOwn
	}
	return place.relation(r.Unit)
}
