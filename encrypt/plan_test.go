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
	} {
		require.Nil(t, unfit(reflect.TypeOf(good), nil), "%T", good)
	}
	for _, bad := range []any{
		hidden{}, []hidden{}, new(hidden), map[string]hidden{}, complex(1, 1), func() {}, make(chan int),
		struct{ S fmt.Stringer }{}, []fmt.Stringer{}, struct{ H hidden }{},
	} {
		require.NotNil(t, unfit(reflect.TypeOf(bad), nil), "%T", bad)
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
	for _, bad := range []any{
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
	type Row = row
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
