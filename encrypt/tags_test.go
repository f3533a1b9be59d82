package encrypt

import (
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type hidden struct{ secret string }

type tree struct {
	Name     string
	Children []tree
}

// starred shows stars to whoever makes JSON of it.
type starred struct{ Number string }

func (starred) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// A value that JSON loses or cannot bring back must be refused before it is sealed
// and gone.
func TestTypesThatDoNotComeBackAreRefused(t *testing.T) {
	_ = hidden{}.secret
	for _, good := range []any{
		"", []byte(nil), new(string), 0, 1.5, true, time.Time{}, netip.Addr{}, big.Int{}, []string{}, map[string]int{}, map[int][]byte{},
		[4]uint16{}, tree{}, []any{}, struct{}{}, struct {
			A *tree
			b int
		}{},
		[]big.Int{}, [2]big.Int{}, map[string]*big.Int{}, map[string][]big.Int{}, map[netip.Addr]time.Time{}, struct{ N big.Int }{},
	} {
		require.Nil(t, unfit(jsonType{reflect.TypeOf(good), false}, nil), "%T", good)
	}
	for _, bad := range []any{
		hidden{}, []hidden{}, new(hidden), map[string]hidden{}, complex(1, 1), func() {}, make(chan int),
		struct{ S fmt.Stringer }{}, []fmt.Stringer{}, struct{ H hidden }{},
		starred{}, new(starred), []starred{}, map[string]starred{}, struct{ S starred }{},
		map[string]big.Int{}, map[string]struct{ N big.Int }{}, map[string][2]big.Int{}, // JSON has no pointer to what is in a map
	} {
		require.NotNil(t, unfit(jsonType{reflect.TypeOf(bad), false}, nil), "%T", bad)
	}
}

func TestTagsThatWouldBeOverlookedAreRefused(t *testing.T) {
	type address struct {
		Street       string `encrypt:"street"`
		StreetSealed []byte `encrypt:"street,sealed"`
	}
	type row struct {
		ID         string `encrypt:",record"`
		Name       string `encrypt:"name"`
		NameSealed []byte `encrypt:"name,sealed"`
	}
	type Row = row
	type Home struct {
		Street       string `encrypt:"home"`
		StreetSealed []byte `encrypt:"home,sealed"`
	}
	type Work struct {
		Street       string `encrypt:"work"`
		StreetSealed []byte `encrypt:"work,sealed"`
	}
	type Homes []address
	for _, bad := range []any{
		struct {
			Row
			Home
			Work
		}{},
		struct {
			Row
			Home
			Street, StreetSealed string
		}{},
		struct {
			Row
			Homes
		}{},
		struct {
			row
			Home address
		}{},
		struct {
			Row  row
			More []*address
		}{},
	} {
		_, err := newPlan(reflect.TypeOf(bad))
		require.Error(t, err, "%T", bad)
	}
	_, err := newPlan(reflect.TypeFor[struct {
		Row
		Tree tree
	}]())
	require.NoError(t, err, "recursive types without tags end")
	plan, err := newPlan(reflect.TypeFor[struct {
		Row
		Homes []address `encrypt:"-"`
		Firm  struct {
			Staff []row `encrypt:"-"`
		}
	}]())
	require.NoError(t, err, "a row of another table, said to be one")
	require.Len(t, plan.fields, 1)
}
