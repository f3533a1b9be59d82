package document_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

var sizes = []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17}

func TestFileComesBack(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	for _, size := range sizes {
		plain := content(size)
		stored := store(t, files, attachment, plain)
		for _, read := range []func(context.Context, *document.Files, crmguard.Place, []byte) ([]byte, error){openAll, decryptAll} {
			got, err := read(asAnna(t), files, attachment, stored)
			require.NoError(t, err)
			require.True(t, bytes.Equal(plain, got), size)
		}
		if size >= 16 {
			require.NotContains(t, string(stored), string(plain[:16]))
		}
	}
}

func TestReadingAtAnyPositionEqualsReadingInOrder(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	plain := content(3*chunk + 17)
	stored := store(t, files, attachment, plain)
	r, err := files.Open(asAnna(t), attachment, bytes.NewReader(stored), int64(len(stored)))
	require.NoError(t, err)
	require.EqualValues(t, len(plain), r.Size())
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for range 200 {
				from := random.IntN(len(plain))
				part := make([]byte, random.IntN(min(len(plain)-from, chunk+100))+1)
				if n, err := r.ReadAt(part, int64(from)); err != nil && (err != io.EOF || n != len(part)) {
					t.Error(from, n, err)
				}
				if !bytes.Equal(plain[from:from+len(part)], part) {
					t.Error("wrong bytes at", from)
				}
			}
		})
	}
	wg.Wait()

	// What it is for.
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", chunk-5, chunk+5))
	answer := httptest.NewRecorder()
	http.ServeContent(answer, request, "a.bin", time.Time{}, r)
	require.Equal(t, http.StatusPartialContent, answer.Code)
	require.Equal(t, plain[chunk-5:chunk+6], answer.Body.Bytes())
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	stored := store(t, files, attachment, []byte("a small file"))
	ctx := asAnna(t)
	flips(stored, func(bit int, flipped []byte) {
		if _, err := openAll(ctx, files, attachment, flipped); err == nil {
			t.Error("opens with bit changed:", bit)
		}
		if _, err := decryptAll(ctx, files, attachment, flipped); err == nil {
			t.Error("decrypts with bit changed:", bit)
		}
	})
}

// A file that ends early is refused by Open before it gives out anything, and by
// Decrypt at the latest where the end should be.
func TestTruncatedIsRefused(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	ctx := asAnna(t)
	small := store(t, files, attachment, []byte("a small file"))
	for n := range small {
		_, err := openAll(ctx, files, attachment, small[:n])
		require.Error(t, err, n)
		_, err = decryptAll(ctx, files, attachment, small[:n])
		require.Error(t, err, n)
	}
	plain := content(3 * chunk)
	large := store(t, files, attachment, plain)
	payload := len(large) - 3*(chunk+16)
	for border := payload; border < len(large); border += chunk + 16 {
		for _, n := range []int{border - 1, border, border + 1, border + 16, border + 17} {
			_, err := files.Open(ctx, attachment, bytes.NewReader(large[:n]), int64(n))
			require.Error(t, err, n)
			got, err := decryptAll(ctx, files, attachment, large[:n])
			require.Error(t, err, n)
			require.True(t, bytes.HasPrefix(plain, got))
		}
	}
	// Longer, with chunks exchanged, or cut in the middle: no.
	_, err := openAll(ctx, files, attachment, append(bytes.Clone(large), 0))
	require.Error(t, err)
	_, err = decryptAll(ctx, files, attachment, append(bytes.Clone(large), 0))
	require.Error(t, err)
	exchanged := bytes.Clone(large)
	copy(exchanged[payload:], large[payload+chunk+16:payload+2*(chunk+16)])
	copy(exchanged[payload+chunk+16:], large[payload:payload+chunk+16])
	_, err = openAll(ctx, files, attachment, exchanged)
	require.Error(t, err)
	_, err = decryptAll(ctx, files, attachment, exchanged)
	require.Error(t, err)
}

func TestFileThatWasNotClosedIsRefused(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	var stored bytes.Buffer
	w, err := files.Encrypt(asAnna(t), attachment, &stored)
	require.NoError(t, err)
	_, err = w.Write(content(2 * chunk))
	require.NoError(t, err)
	_, err = openAll(asAnna(t), files, attachment, stored.Bytes())
	require.Error(t, err)
	_, err = decryptAll(asAnna(t), files, attachment, stored.Bytes())
	require.Error(t, err)
}

// elsewhere are places that differ from attachment in one name.
func elsewhere() map[string]crmguard.Place {
	places := map[string]crmguard.Place{}
	for name, change := range map[string]func(*crmguard.Place){
		"client":    func(p *crmguard.Place) { p.Client = "c8" },
		"no client": func(p *crmguard.Place) { p.Client = "" },
		"kind":      func(p *crmguard.Place) { p.Kind = "offers" },
		"record":    func(p *crmguard.Place) { p.Record = "18" },
		"field":     func(p *crmguard.Place) { p.Field = "scan" },
	} {
		at := attachment
		change(&at)
		places[name] = at
	}
	return places
}

func TestMovedFileIsRefused(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	stored := store(t, files, attachment, []byte("a small file"))
	for name, at := range elsewhere() {
		_, err := openAll(asAnna(t), files, at, stored)
		require.Error(t, err, name)
	}
	foreign := attachment
	foreign.Tenant = "other"
	_, err := openAll(crmguard.System(t.Context(), "other", "test"), files, foreign, stored)
	require.Error(t, err)
	_, err = openAll(asAnna(t), newFiles(t, crmguardtest.NewKeys()), attachment, stored)
	require.Error(t, err, "another CRM")
}

// forgetful is a sealer that binds nothing but the tenant and the client.
type forgetful struct{ crmguard.Sealer }

func (f forgetful) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	return f.Sealer.Seal(ctx, crmguard.Place{Tenant: at.Tenant, Client: at.Client}, plaintext)
}

func (f forgetful) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	return f.Sealer.Open(ctx, crmguard.Place{Tenant: at.Tenant, Client: at.Client}, sealed)
}

// The planted fault: with keys that forget the place, moved files open, so the test
// above would notice a place that is not handed on.
func TestPlantedFaultOfPlaces(t *testing.T) {
	files := newFiles(t, forgetful{crmguardtest.NewKeys()})
	stored := store(t, files, attachment, []byte("a small file"))
	var moved []string
	for name, at := range elsewhere() {
		if _, err := openAll(asAnna(t), files, at, stored); err == nil {
			moved = append(moved, name)
		}
	}
	require.ElementsMatch(t, []string{"kind", "record", "field"}, moved)
}

// Who can move sealed bytes about in the database cannot make a file key of a value
// that somebody typed, nor show a file key as a value.
func TestFileKeysAndFieldsAreApart(t *testing.T) {
	keys := crmguardtest.NewKeys()
	files := newFiles(t, keys)
	ctx := asAnna(t)
	typed := []byte("sixteen letters!")
	sealed, err := keys.Seal(ctx, attachment, typed)
	require.NoError(t, err)
	forged := ageFile(t, stanzas{typed, []*age.Stanza{{Type: "crmguard", Args: []string{"1"}, Body: sealed}}}, "forged")
	_, err = decryptAll(ctx, files, attachment, forged)
	require.Error(t, err)

	// The same with the right place opens: the file above is well-made.
	at := attachment
	at.Field = "age/" + at.Field
	sealed, err = keys.Seal(ctx, at, typed)
	require.NoError(t, err)
	own := ageFile(t, stanzas{typed, []*age.Stanza{{Type: "crmguard", Args: []string{"1"}, Body: sealed}}}, "own")
	got, err := decryptAll(ctx, files, attachment, own)
	require.NoError(t, err)
	require.Equal(t, "own", string(got))
}

// A file has one recipient, its place, or erasing the client would leave another
// way in; and what is no stanza of ours is no file of ours.
func TestOtherStanzasAreRefused(t *testing.T) {
	keys := crmguardtest.NewKeys()
	files := newFiles(t, keys)
	ctx := asAnna(t)
	at := attachment
	at.Field = "age/" + at.Field
	fileKey := []byte("0123456789abcdef")
	sealed, err := keys.Seal(ctx, at, fileKey)
	require.NoError(t, err)
	long, err := keys.Seal(ctx, at, append(fileKey, 0))
	require.NoError(t, err)
	good := &age.Stanza{Type: "crmguard", Args: []string{"1"}, Body: sealed}
	mallory, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	second, err := mallory.Recipient().Wrap(fileKey)
	require.NoError(t, err)
	for name, list := range map[string][]*age.Stanza{
		"second recipient": {good, second[0]},
		"twice":            {good, good},
		"foreign":          second,
		"other type":       {{Type: "crmguarD", Args: []string{"1"}, Body: sealed}},
		"later version":    {{Type: "crmguard", Args: []string{"2"}, Body: sealed}},
		"no version":       {{Type: "crmguard", Body: sealed}},
		"more arguments":   {{Type: "crmguard", Args: []string{"1", "x"}, Body: sealed}},
		"empty body":       {{Type: "crmguard", Args: []string{"1"}}},
		"long key":         {{Type: "crmguard", Args: []string{"1"}, Body: long}},
	} {
		_, err := decryptAll(ctx, files, attachment, ageFile(t, stanzas{fileKey, list}, "x"))
		require.Error(t, err, name)
	}
	got, err := decryptAll(ctx, files, attachment, ageFile(t, stanzas{fileKey, []*age.Stanza{good}}, "x"))
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}

// Who has the file but no key cannot add a recipient: the header is authenticated
// by the file key.
func TestRecipientCannotBeAdded(t *testing.T) {
	anna, mallory := person(t, "anna"), person(t, "mallory")
	var letter, signature, forMallory bytes.Buffer
	require.NoError(t, document.Seal(&letter, &signature, strings.NewReader("contract"), anna, "c-17", anna.Person()))
	require.NoError(t, document.Seal(&forMallory, io.Discard, strings.NewReader("other"), mallory, "x", mallory.Person()))
	header, err := age.ExtractHeader(&forMallory)
	require.NoError(t, err)
	start := strings.Index(string(header), "-> ")
	end := strings.Index(string(header), "--- ")
	// Mallory's stanza before Anna's: for Mallory it is another file key, for Anna the
	// header is not hers any more.
	both := strings.Replace(letter.String(), "-> ", string(header[start:end])+"-> ", 1)
	for _, i := range []*document.Identity{mallory, anna} {
		keys, err := age.ParseIdentities(bytes.NewReader(i.Export()))
		require.NoError(t, err)
		_, err = age.Decrypt(strings.NewReader(both), keys...)
		require.ErrorContains(t, err, "bad header MAC")
	}
}

// stanzas is an age recipient that replaces the file key that age has drawn.
type stanzas struct {
	fileKey []byte
	list    []*age.Stanza
}

// Wrap returns the planted stanzas.
func (s stanzas) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	copy(fileKey, s.fileKey) // age goes on with this slice
	return s.list, nil
}

// ageFile makes a file with planted stanzas and a file key of the attacker's.
func ageFile(tb testing.TB, s stanzas, plain string) []byte {
	tb.Helper()
	var file bytes.Buffer
	w, err := age.Encrypt(&file, s)
	require.NoError(tb, err)
	_, err = io.WriteString(w, plain)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return file.Bytes()
}

func TestErasedClientsFilesAreErased(t *testing.T) {
	keys := crmguardtest.NewKeys()
	files := newFiles(t, keys)
	stored := store(t, files, attachment, []byte("a small file"))
	keys.Erase("acme", "c7")
	_, err := openAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, crmguard.ErrErased)
	_, err = decryptAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, crmguard.ErrErased)
	_, err = files.Encrypt(asAnna(t), attachment, io.Discard)
	require.ErrorIs(t, err, crmguard.ErrErased)
}

func TestReencrypt(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	plain := content(chunk + 5)
	stored := store(t, files, attachment, plain)
	var again bytes.Buffer
	require.NoError(t, files.Reencrypt(asAnna(t), attachment, &again, bytes.NewReader(stored)))
	require.NotEqual(t, stored[:300], again.Bytes()[:300], "a key of its own")
	got, err := openAll(asAnna(t), files, attachment, again.Bytes())
	require.NoError(t, err)
	require.True(t, bytes.Equal(plain, got))

	again.Reset()
	require.Error(t, files.Reencrypt(asAnna(t), attachment, &again, bytes.NewReader(stored[:len(stored)-1])))
	_, err = openAll(asAnna(t), files, attachment, again.Bytes())
	require.Error(t, err, "half a file does not become a whole one")
}

func TestWhatFilesRefuse(t *testing.T) {
	_, err := document.NewFiles(nil)
	require.Error(t, err)
	keys := crmguardtest.NewKeys()
	files := newFiles(t, keys)
	for _, at := range []crmguard.Place{
		{},
		{Client: "c7", Kind: "attachments", Record: "17", Field: "file"},
		{Tenant: "acme", Client: "c7", Record: "17", Field: "file"},
		{Tenant: "acme", Client: "c7", Kind: "attachments", Field: "file"},
		{Tenant: "acme", Client: "c7", Kind: "attachments", Record: "17"},
	} {
		_, err := newFiles(t, fixed{}).Encrypt(asAnna(t), at, io.Discard) // whatever the keys think of it
		require.Error(t, err)
		_, err = openAll(asAnna(t), files, at, nil)
		require.Error(t, err)
		_, err = decryptAll(asAnna(t), files, at, nil)
		require.Error(t, err)
		require.Error(t, files.Reencrypt(asAnna(t), at, io.Discard, strings.NewReader("")))
	}
	stored := store(t, files, attachment, []byte("a small file"))
	_, err = openAll(t.Context(), files, attachment, stored)
	require.Error(t, err, "nobody acts")

	down := errors.New("down")
	keys.Fail(down)
	_, err = openAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, down)
	_, err = files.Encrypt(asAnna(t), attachment, io.Discard)
	require.ErrorIs(t, err, down)
	keys.Fail(nil)

	_, err = files.Decrypt(asAnna(t), attachment, iotest.ErrReader(down))
	require.ErrorIs(t, err, down)
	require.ErrorIs(t, files.Reencrypt(asAnna(t), attachment, failing{down}, bytes.NewReader(stored)), down)
	_, err = files.Encrypt(asAnna(t), attachment, failing{down})
	require.ErrorIs(t, err, down)
	_, err = files.Open(asAnna(t), attachment, failing{down}, int64(len(stored)))
	require.ErrorIs(t, err, down)
	for _, size := range []int64{-1, 0, 1, int64(len(stored)) + 1, 1 << 62} {
		_, err = files.Open(asAnna(t), attachment, bytes.NewReader(stored), size)
		require.Error(t, err, size)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error)         { return 0, f.err }
func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// A file that was never encrypted is not quoted in an error that somebody logs.
func TestErrorsDoNotQuoteThePlainFile(t *testing.T) {
	files := newFiles(t, crmguardtest.NewKeys())
	const intro, secret = "age-encryption.org/v1\n", "+79161234567"
	for name, stored := range map[string]string{
		"no age file":          secret + " Anna Petrova, card 4000 0000 0000 0002\n",
		"no stanza":            intro + secret + "\n",
		"no type":              intro + "->\t" + secret + "\n",
		"no base64":            intro + "-> crmguard 1\n" + secret + "!\n",
		"a long line":          intro + "-> crmguard 1\n" + strings.Repeat(secret[1:], 1000) + "\n",
		"no end of the header": intro + "-> crmguard 1\n\n--- " + secret + " " + secret + "\n",
		"a megabyte of it":     intro + strings.Repeat(secret, 100_000) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openAll(asAnna(t), files, attachment, []byte(stored))
			require.Error(t, err)
			_, other := decryptAll(asAnna(t), files, attachment, []byte(stored))
			require.EqualError(t, other, err.Error())
			require.NotContains(t, err.Error(), "7916")
			require.Less(t, len(err.Error()), 200)
			if name == "no age file" {
				require.ErrorIs(t, err, document.ErrMalformed)
			}
		})
	}
	_, err := files.Decrypt(asAnna(t), attachment, io.MultiReader(strings.NewReader(intro), iotest.ErrReader(io.ErrClosedPipe)))
	require.ErrorIs(t, err, io.ErrClosedPipe, "what the storage says stays")
}
