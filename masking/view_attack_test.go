package masking_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

const leak = "TOPSECRET89161234567" // in every field that must not be shown

// leaks reports whether a value shows the secret in any way in which programs
// print values, or holds it anywhere, behind pointers and in private fields too.
func leaks(v any) bool {
	text := fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, v)
	if j, err := json.Marshal(v); err == nil {
		text += string(j)
	}
	var all strings.Builder
	collect(&all, reflect.ValueOf(v))
	text += all.String()
	return strings.Contains(text, "SECRET") || strings.Contains(text, "916123")
}

// collect writes every string, number and byte that v reaches.
func collect(to *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		to.WriteString(v.String())
	case reflect.Pointer, reflect.Interface:
		collect(to, v.Elem())
	case reflect.Struct:
		for _, f := range v.Fields() {
			collect(to, f)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			to.Write(v.Bytes())
			return
		}
		for i := range v.Cap() { // behind the end too
			collect(to, v.Slice(0, v.Cap()).Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			collect(to, v.Index(i))
			if v.Type().Elem().Kind() == reflect.Uint8 {
				to.WriteByte(byte(v.Index(i).Uint()))
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			collect(to, it.Key())
			collect(to, it.Value())
		}
	case reflect.Func, reflect.Chan:
		if !v.IsNil() {
			to.WriteString(leak)
		}
	case reflect.Int32:
		to.WriteRune(rune(v.Int()))
	case reflect.Uint16:
		to.WriteRune(rune(v.Uint()))
	case reflect.Int64:
		fmt.Fprint(to, v.Int())
	}
}

type (
	phoneNumber string // its String undoes nothing: it sees the masked value only
	tricky      struct {
		shadow string // read by MarshalJSON and String
		Public string
	}
	private struct{ Inner string }
	inner   struct {
		Untagged string
		Number   int
	}
	node struct {
		Name string `mask:"name"`
		Next *node
	}
	labelled string
)

func (p phoneNumber) String() string          { return "phone:" + string(p) }
func (t tricky) String() string               { return t.shadow }
func (t tricky) GoString() string             { return t.shadow }
func (t tricky) MarshalJSON() ([]byte, error) { return json.Marshal(t.shadow) }
func (t *tricky) Error() string               { return t.shadow + t.Public }

// everywhere holds the secret in every shape that Go has.
type everywhere struct {
	Tagged    string         `mask:"phone"`
	Named     phoneNumber    `mask:"phone"`
	Untagged  string         // no tag
	Pointer   *string        `mask:"phone"`
	Pointers  **string       `mask:"phone"`
	Slice     []string       `mask:"phone"`
	Array     [2]string      `mask:"phone"`
	Map       map[string]any `mask:"phone"`
	Keys      map[labelled]int
	Any       any
	AnyPtr    any
	AnyStruct any
	Nested    inner
	NestedPtr *inner
	Nesteds   []inner
	NestedMap map[int]inner
	Trick     tricky
	TrickPtr  *tricky
	Stringer  fmt.Stringer
	Err       error
	Bytes     []byte
	TagBytes  []byte `mask:"phone"`
	ByteArray [20]byte
	Raw       json.RawMessage
	Number    json.Number
	Digits    int64          `mask:"phone"`
	NullStr   sql.NullString `mask:"phone"`
	NullInt   sql.NullInt64  `mask:"phone"`
	Func      func() string
	Chan      chan string
	Lock      sync.Mutex
	Big       *big.Int
	Addr      netip.Addr
	private
	hidden string
	*inner
}

func full() *everywhere {
	s := leak
	p := &s
	e := &everywhere{
		Tagged: leak, Named: leak, Untagged: leak, Pointer: p, Pointers: &p,
		Slice: []string{leak, leak}[:1], Array: [2]string{leak, leak},
		Map:  map[string]any{leak: leak, "x": []any{leak, map[string]string{leak: leak}}},
		Keys: map[labelled]int{leak: 1, leak + "2": 2},
		Any:  leak, AnyPtr: &s, AnyStruct: inner{Untagged: leak},
		Nested: inner{Untagged: leak}, NestedPtr: &inner{Untagged: leak},
		Nesteds: []inner{{Untagged: leak}}, NestedMap: map[int]inner{1: {Untagged: leak}},
		Trick: tricky{leak, leak}, TrickPtr: &tricky{leak, leak}, Stringer: tricky{leak, leak}, Err: &tricky{leak, leak},
		Bytes: []byte(leak), TagBytes: []byte(leak), Raw: json.RawMessage(`"` + leak + `"`), Number: "89161234567",
		Digits: 89161234567, NullStr: sql.NullString{String: leak, Valid: true}, NullInt: sql.NullInt64{Int64: 89161234567, Valid: true},
		Func: func() string { return leak }, Chan: make(chan string, 1), Big: big.NewInt(89161234567),
		Addr: netip.MustParseAddr("89.16.123.45"), private: private{leak}, hidden: leak, inner: &inner{Untagged: leak},
	}
	copy(e.ByteArray[:], leak)
	e.Chan <- leak
	return e
}

func TestViewLeaksNothing(t *testing.T) {
	require.True(t, leaks(full()), "the check sees the secret in the row itself")
	got, err := masking.View(full(), nil)
	require.NoError(t, err)
	require.False(t, leaks(got), "%+v", got)
	require.Nil(t, got.Func)
	require.Nil(t, got.Chan)
	require.Nil(t, got.Bytes)
	require.Nil(t, got.inner)
	require.Empty(t, got.hidden)
	require.Zero(t, got.ByteArray)
	require.Zero(t, got.Digits)
	require.Zero(t, got.NullInt.Int64)
	require.Zero(t, got.Addr)
	require.Equal(t, sql.NullString{String: "•••", Valid: true}, got.NullStr)
	require.Equal(t, "•••", got.Inner)
	require.Equal(t, "•••", string(got.TagBytes))
	require.Len(t, got.Keys, 2, "no key was lost")
	require.Len(t, got.Map, 2)

	// The row is as it was, and shares nothing with the copy.
	row := full()
	got, err = masking.View(row, nil)
	require.NoError(t, err)
	require.Equal(t, leak, *row.Pointer)
	require.Equal(t, leak, row.Map[leak])
	require.Equal(t, leak, row.Slice[:2][1])
	require.Equal(t, 1, cap(got.Slice), "what lies behind a slice's end does not come along")
}

// Each field alone: what is hidden in one place must not hide a leak in another,
// and the check notices each of them.
func TestViewLeaksNowhere(t *testing.T) {
	s := leak
	for _, v := range []any{
		leak, &s, []string{leak}, [1]string{leak}, map[string]string{leak: leak}, map[string]any{"a": leak},
		inner{Untagged: leak}, &inner{Untagged: leak}, []any{leak}, struct{ A any }{leak}, tricky{leak, leak}, &tricky{leak, leak},
		rowOfBase{base{leak, leak}}, &rowOfDeep{deepBase{base{leak, leak}}}, rowOfTagged{base{leak, leak}}, rowOfPointer{&base{leak, leak}},
		[]rune(leak), [20]rune([]rune(leak)), utf16.Encode([]rune(leak)), map[string][]rune{"a": []rune(leak)},
		map[string][]map[string]*string{"a": {{"b": &s}}}, phoneNumber(leak), json.RawMessage(`"` + leak + `"`),
		struct {
			A inner `mask:"name"`
		}{inner{Untagged: leak}},
		struct {
			A struct{ B string } `mask:"phone"`
		}{struct{ B string }{leak}},
	} {
		require.True(t, leaks(v), "the check sees the secret in %T", v)
		got, err := masking.View(v, nil)
		require.NoError(t, err)
		require.False(t, leaks(got), "%T %v", v, got)
	}
}

func TestViewPlantedFaults(t *testing.T) {
	row := full()
	spoil := map[string]func(got *everywhere){
		"pointer":    func(got *everywhere) { got.Pointer = row.Pointer },
		"capacity":   func(got *everywhere) { got.Slice = append(got.Slice, leak)[:1] },
		"key":        func(got *everywhere) { got.Keys = row.Keys },
		"map":        func(got *everywhere) { got.Map["x"] = row.Map["x"] },
		"private":    func(got *everywhere) { got.hidden = leak },
		"marshaler":  func(got *everywhere) { got.Trick.shadow = leak },
		"func":       func(got *everywhere) { got.Func = row.Func },
		"chan":       func(got *everywhere) { got.Chan = row.Chan },
		"bytes":      func(got *everywhere) { got.Bytes = row.Bytes },
		"byte array": func(got *everywhere) { got.ByteArray = row.ByteArray },
		"number":     func(got *everywhere) { got.Digits = row.Digits },
		"interface":  func(got *everywhere) { got.AnyPtr = row.AnyPtr },
		"embedded":   func(got *everywhere) { got.private = row.private },
	}
	for name, fault := range spoil {
		got, err := masking.View(full(), nil)
		require.NoError(t, err)
		require.False(t, leaks(got))
		fault(got)
		require.True(t, leaks(got), name)
	}
}

func TestViewCycles(t *testing.T) {
	ring := &node{Name: "Анна"}
	ring.Next = &node{Name: "Мария", Next: ring}
	self := map[string]any{}
	self["self"] = self
	list := []any{nil}
	list[0] = list
	var boxed any
	boxed = &boxed
	for _, row := range []any{ring, self, list, boxed} {
		got, err := masking.View(row, nil)
		require.ErrorContains(t, err, "holds itself")
		require.Nil(t, got)
	}

	var long *node
	for range 1000 {
		long = &node{Name: "Анна", Next: long}
	}
	_, err := masking.View(long, nil)
	require.ErrorContains(t, err, "too deep")

	// Every level holds the next one twice: 2^100 copies.
	var wide any = "anna"
	for range 100 {
		wide = []any{wide, wide}
	}
	_, err = masking.View(wide, nil)
	require.ErrorContains(t, err, "too large")

	// The same value twice beside each other is no cycle.
	shared := &inner{Untagged: leak}
	got, err := masking.View([]*inner{shared, shared}, nil)
	require.NoError(t, err)
	require.Equal(t, "•••", got[1].Untagged)
}

func TestViewShown(t *testing.T) {
	type secretive struct {
		Open    string `mask:"-"`
		Address struct {
			City  string
			Phone string `mask:"phone"`
		} `mask:"-"`
		Labels map[string]string `mask:"-"`
		Blob   []byte            `mask:"-"`
		Addr   netip.Addr        `mask:"-"`
		Note   *string           `mask:"text,field=remark"`
		Born   time.Time         `mask:"secret"`
		Seen   time.Time
		Count  int
		Flag   bool `mask:"secret"`
	}
	note := "жена: +7 916 123-45-67"
	row := secretive{
		Open: "a", Labels: map[string]string{"k": "v"}, Blob: []byte("b"), Addr: netip.MustParseAddr("10.0.0.1"), Note: &note,
		Born: time.Unix(1, 0), Seen: time.Unix(2, 0), Count: 3, Flag: true,
	}
	row.Address.City, row.Address.Phone = "Омск", "+7 916 123-45-67"

	got, err := masking.View(row, nil)
	require.NoError(t, err)
	require.Equal(t, "жена: •••", *got.Note)
	require.Equal(t, "+7 ••• 67", got.Address.Phone, "the nearest tag holds")
	require.Equal(t, "Омск", got.Address.City)
	require.Equal(t, row.Labels, got.Labels)
	require.Equal(t, row.Blob, got.Blob)
	require.Equal(t, row.Addr, got.Addr)
	require.Zero(t, got.Born)
	require.Equal(t, row.Seen, got.Seen)
	require.Equal(t, 3, got.Count)
	require.False(t, got.Flag)
	got.Labels["k"], got.Blob[0] = "x", 'x'
	require.Equal(t, "v", row.Labels["k"])
	require.Equal(t, "b", string(row.Blob))

	got, err = masking.View(row, func(field string) bool { return field == "remark" || field == "born" })
	require.NoError(t, err)
	require.Equal(t, note, *got.Note)
	require.NotSame(t, row.Note, got.Note)
	require.Equal(t, row.Born, got.Born)
	require.Equal(t, "+7 ••• 67", got.Address.Phone)
}

func TestViewRefuses(t *testing.T) {
	_, err := masking.View(struct {
		A string `mask:"phnoe"`
	}{leak}, nil)
	require.ErrorContains(t, err, `names no kind: "phnoe"`)
	require.NotContains(t, err.Error(), "SECRET")
	_, err = masking.View(struct {
		A string `mask:"phone,name=x"`
	}{leak}, nil)
	require.ErrorContains(t, err, "want field=NAME")
	_, err = masking.View(map[[1]string]int{{leak}: 1}, nil)
	require.ErrorContains(t, err, "cannot be masked")
	_, err = masking.View(struct {
		A map[int]string `mask:"phone"`
	}{map[int]string{89161234567: ""}}, nil)
	require.ErrorContains(t, err, "cannot be masked")

	got, err := masking.View[any](nil, nil)
	require.NoError(t, err)
	require.Nil(t, got)
	var none *contact
	nobody, err := masking.View(none, nil)
	require.NoError(t, err)
	require.Nil(t, nobody)
}

func TestViewConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			type fresh struct {
				C    contact
				Next *node
			}
			got, err := masking.View(fresh{C: sample(), Next: &node{Name: "Мария"}}, nil)
			if err != nil || got.C.Name != "А••• П•••" || got.Next.Name != "М•••" {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	wg.Wait()
}

func TestViewAllocates(t *testing.T) {
	row := sample()
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = masking.View(row, nil) }), 3.0)
}
