package audit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// bodies are records that between them have all that a record can say.
func bodies(t testing.TB) [][]byte {
	t.Helper()
	long := strings.Repeat("ä", maxKey)
	event := crmguard.Event{ID: "e", Outcome: crmguard.Done, Time: time.UnixMicro(1)}
	list := []*content{
		{tenant: "t", event: event},
		{tenant: long, event: crmguard.Event{
			ID: "sha256:e", Outcome: crmguard.Undecided, Time: time.UnixMicro(lastMicro), Action: "sha256:",
			Subject:  crmguard.Subject{ID: long, Addr: netip.MustParseAddr("::ffff:192.0.2.7"), AuthenticatedAt: time.UnixMicro(2)},
			Resource: crmguard.Resource{Kind: long, ID: "sha256:x", Shared: true},
		}},
		{tenant: "t", event: event, sealed: []SealedValue{
			{Client: "b", Name: "n", Sealed: []byte{0}}, {Client: long, Erased: true}, {Client: "b", Sealed: []byte{}}, {Client: "a", Name: "ä", Sealed: []byte{1, 2}},
		}},
		{tenant: "t", event: event, isCut: true, cut: Cut{Fields: 70_000, Values: 3}, sealed: []SealedValue{{Client: "c", Name: "n", Digest: [32]byte{1}, Size: 9}, {Erased: true}}},
	}
	list[0].event.Subject.Addr = netip.MustParseAddr("192.0.2.7")
	records := [][]byte{goldenRecord(t)}
	for i, c := range list {
		body, ok := encodeBody(c)
		require.True(t, ok)
		records = append(records, append(appendHead(nil, [16]byte{1}, int64(i), time.UnixMicro(1), &[32]byte{9}), body...))
	}
	return records
}

// otherKeys are each a bit different from k.
func otherKeys(k Keys, text string) []Keys {
	var list []Keys
	change := func(f func(k *Keys)) {
		other := k
		other.Clients = slices.Clone(k.Clients)
		f(&other)
		list = append(list, other)
	}
	for i := range k.texts() {
		change(func(k *Keys) { *k.texts()[i] = text })
		change(func(k *Keys) { *k.texts()[i] += text })
		change(func(k *Keys) { *k.texts()[i] = strings.ToUpper(*k.texts()[i]) })
	}
	change(func(k *Keys) { k.Outcome++ })
	change(func(k *Keys) { k.Time++ })
	change(func(k *Keys) { k.Addr = text })
	change(func(k *Keys) { k.Addr = "" })
	change(func(k *Keys) { k.Addr = "::ffff:" + k.Addr })
	change(func(k *Keys) { k.Clients = append(k.Clients, text) })
	for i := range k.Clients {
		change(func(k *Keys) { k.Clients = slices.Delete(k.Clients, i, i+1) })
		change(func(k *Keys) { k.Clients[i] = text })
		change(func(k *Keys) { k.Clients = slices.Insert(k.Clients, i, k.Clients[i]) })
	}
	return list
}

// saying is how a verification compares a body with keys.
type saying func(o *outline, k *Keys) bool

// disagrees looks for keys about which a comparison without decoding says something
// else than the keys of what is decoded.
func disagrees(t testing.TB, says saying, o *outline, rec []byte, text string) bool {
	t.Helper()
	full, err := decodeRecord(rec)
	if err != nil {
		return false
	}
	require.NoError(t, o.read(rec[headSize:]))
	want := full.keys()
	raw := want // as the body says it, which is no key if a digest stands for it
	for i, s := range raw.texts() {
		*s = *full.texts()[i]
	}
	for _, k := range append(otherKeys(want, text), want, raw) {
		if says(o, &k) != want.equal(&k) {
			return true
		}
	}
	return false
}

// mutations of records: each byte changed, or an end cut off.
func mutations(records [][]byte, visit func([]byte)) {
	for _, rec := range records {
		visit(rec)
		for i := range rec {
			visit(rec[:i])
			for _, bit := range []byte{1, 4, 0x80} {
				changed := slices.Clone(rec)
				changed[i] ^= bit
				visit(changed)
			}
			zero := slices.Clone(rec)
			zero[i] = 0
			visit(zero)
		}
	}
}

func TestVerificationComparesAsDecoded(t *testing.T) {
	var o outline // with what the one before left
	mutations(bodies(t), func(rec []byte) {
		require.False(t, disagrees(t, (*outline).says, &o, rec, "x"), "%x", rec)
	})
}

// Planted faults: comparisons that do not look at something. The test above notices
// each.
func TestPlantedFaultyComparison(t *testing.T) {
	records := bodies(t)
	notices := func(says saying) (found bool) {
		var o outline
		for _, rec := range records {
			found = found || disagrees(t, says, &o, rec, "x")
		}
		return found
	}
	require.False(t, notices((*outline).says))
	// without compares as if something were what the body says.
	without := func(forget func(k, said *Keys)) saying {
		return func(o *outline, k *Keys) bool {
			var c content
			o.decode(&c)
			asked, said := *k, c.keys()
			forget(&asked, &said)
			return o.says(&asked)
		}
	}
	var k Keys
	for i := range k.texts() {
		require.True(t, notices(without(func(k, said *Keys) { *k.texts()[i] = *said.texts()[i] })), "text %d", i)
	}
	require.True(t, notices(without(func(k, said *Keys) { k.Outcome = said.Outcome })))
	require.True(t, notices(without(func(k, said *Keys) { k.Time = said.Time })))
	require.True(t, notices(without(func(k, said *Keys) { k.Addr = said.Addr })))
	require.True(t, notices(without(func(k, said *Keys) { k.Clients = said.Clients })))
	require.True(t, notices(func(o *outline, k *Keys) bool { // texts that a digest stands for
		for _, s := range k.texts() {
			if !isKey(*s) {
				return false
			}
		}
		return o.says(k)
	}))
	require.True(t, notices(func(o *outline, k *Keys) bool { // texts that stand for themselves, and should not
		asked := *k
		for _, s := range asked.texts() {
			*s = keyText(*s)
		}
		return o.says(&asked)
	}))
	require.True(t, notices(func(o *outline, k *Keys) bool { // the address of the record before
		o.addr.key = "192.0.2.1"
		return o.says(k)
	}))
}

// No text of a record that decodes is unclean, wherever in the body it is and however
// the others are.
func TestDecodeRefusesUncleanTexts(t *testing.T) {
	for _, rec := range bodies(t) {
		var o outline
		require.NoError(t, o.read(rec[headSize:]))
		n := (o.texts - o.lengths) / 2
		at := headSize + o.texts
		for i := range n {
			size := o.length(i)
			for k := range size {
				for _, bad := range []byte{0, 0xff} {
					changed := slices.Clone(rec)
					changed[at+k] = bad
					_, err := decodeRecord(changed)
					require.Error(t, err, "byte %d of text %d", k, i)
				}
			}
			at += size
		}
	}
}

// Two texts may not share a character, even if together they are UTF-8.
func TestDecodeRefusesSplitCharacters(t *testing.T) {
	e := crmguard.Event{ID: "e", Outcome: crmguard.Done, Time: time.UnixMicro(1), Request: "ä", Policy: "b"}
	body, ok := encodeBody(&content{tenant: "t", event: e})
	require.True(t, ok)
	var o outline
	require.NoError(t, o.read(body))
	request := o.lengths + 2*(nTexts-1)
	require.Equal(t, 2, countAt(body, request))
	binary.BigEndian.PutUint16(body[request:], 1)
	binary.BigEndian.PutUint16(body[request+2:], 2)
	require.ErrorIs(t, o.read(body), errMalformed)
}

func TestIsPlain(t *testing.T) {
	for n := range 50 {
		b := []byte(strings.Repeat("x", n))
		require.True(t, isPlain(b))
		for i := range b {
			for _, c := range []struct {
				byte
				plain bool
			}{{0, false}, {1, true}, {0x7f, true}, {0x80, false}, {0xff, false}} {
				b[i] = c.byte
				require.Equal(t, c.plain, isPlain(b), "%#x at %d of %d", c.byte, i, n)
			}
			b[i] = 'x'
		}
	}
}

// FuzzCompare looks for bodies and keys about which a verification and a decoder
// disagree.
func FuzzCompare(f *testing.F) {
	for _, rec := range bodies(f) {
		f.Add(rec, "x")
		f.Add(rec, "sha256:")
	}
	f.Fuzz(func(t *testing.T, rec []byte, text string) {
		var o outline
		require.False(t, disagrees(t, (*outline).says, &o, rec, text))
		require.False(t, disagrees(t, (*outline).says, &o, rec, text), "the second time")
	})
}

// What is encoded decodes, whatever it says.
func TestEncodedDecodes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		return clean(strings.Repeat([]string{"a", "ä", "\x7f", "漢"}[random.IntN(4)], random.IntN(300)/(1+random.IntN(50))))
	}
	for range 500 {
		c := &content{tenant: "t" + text(), isCut: random.IntN(2) == 0}
		for _, s := range c.texts() {
			*s += text()
		}
		c.event.ID += "e"
		c.event.Outcome = crmguard.Outcome(1 + random.IntN(5))
		c.event.Time = time.UnixMicro(1 + random.Int64N(lastMicro)).UTC()
		for i, list := range c.lists() {
			for range random.IntN(4) {
				if !c.isCut || i < nLists-1 {
					*list = append(*list, text())
				}
			}
		}
		for range random.IntN(4) {
			v := SealedValue{Client: text(), Name: text()}
			switch random.IntN(2) {
			case 0:
				v.Erased = true
			default:
				if v.Size = 3; !c.isCut {
					v.Size, v.Sealed = 0, []byte(text())
				}
			}
			c.sealed = append(c.sealed, v)
			c.event.Private = append(c.event.Private, crmguard.Private{Client: v.Client, Name: v.Name})
		}
		if c.isCut {
			c.cut = Cut{Values: int64(len(c.sealed))}
		}
		body, ok := encodeBody(c)
		require.True(t, ok)
		decoded, err := decodeBody(body)
		require.NoError(t, err)
		require.Equal(t, c, decoded)
	}
}

// checkedRows are a page of rows of one log.
func checkedRows(t testing.TB) ([]Row, *checker) {
	t.Helper()
	c, err := decodeRecord(goldenRecord(t))
	require.NoError(t, err)
	c.event.Private = nil
	log := [16]byte{1}
	return FullRows(log, c.event, 256), &checker{log: log, hash: newHasher()}
}

func TestCheckAllocatesNothing(t *testing.T) {
	rows, c := checkedRows(t)
	check := func() {
		require.Nil(t, c.check(&page{to: int64(len(rows))}, rows))
	}
	check()
	require.LessOrEqual(t, testing.AllocsPerRun(10, check), 2.0, "for 256 rows")
}

// BenchmarkCheck is what a verification does with 256 rows.
func BenchmarkCheck(b *testing.B) {
	rows, c := checkedRows(b)
	size := 0
	for i := range rows {
		size += len(rows[i].Record)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if c.check(&page{to: int64(len(rows))}, rows) != nil {
			b.Fatal("they are right")
		}
	}
}
