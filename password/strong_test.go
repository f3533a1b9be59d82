package password_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/password"
)

func ExampleStrong() {
	about := []string{"a.petrova@romashka.example", "Anna Petrova", "Romashka LLC"}
	fmt.Println(password.Strong("violet tractor hums underwater", about...))
	fmt.Println(password.Strong("Passw0rd2026", about...))
	fmt.Println(password.Strong("Petrova-likes-tea", about...))
	// Output:
	// <nil>
	// password: use words that others do not use, and no rows of keys, letters or digits
	// password: leave out the login, the name and the company
}

func TestStrong(t *testing.T) {
	about := []string{"a.petrova@romashka.example", "Анна Петрова", "Ромашка", "kim"}
	for _, tc := range []struct{ code, given string }{
		{"", "violet tractor hums underwater"},
		{"", "x7#Kq9vLw2$TzB"},
		{"", "лиловый трактор гудит под водой"},
		{"", "8f3a9c1d7b2e6054"},
		{"", strings.Repeat("ж", 3) + "кактус плывёт домой"},
		{"", "correct horse battery staple"},
		{"", "x-7-#-K-q-9-v-L-w-2-$-T"},
		{"", "k v o p z w m b q j"},
		{"", "कमल नीला पानी हाथी"}, // vowel signs are no separators
		{password.WeakCommon, "p.a.s.s.w.o.r.d."},
		{password.WeakCommon, "p a s s w o r d 1 2"},
		{password.WeakCommon, "P_@_$_$_w_0_r_d_1"},
		{password.WeakCommon, "p--a--s--s--w--o--r--d"},
		{password.WeakCommon, "п а р о л ь 1 2 3"},
		{password.WeakCommon, "1.2.3.4.5.6.7.8.9"},
		{password.WeakCommon, "p.a-s_s.w-o_r.d"},
		{password.WeakShort, ""},
		{password.WeakShort, "x7#Kq9vLw2$"},
		{password.WeakShort, "щщщ7Кк9вЛв2"},
		{password.WeakLong, strings.Repeat("violet tractor ", 80)},
		{password.WeakCommon, "correcthorsebatterystaple"},
		{password.WeakCommon, "password1234"},
		{password.WeakCommon, "Password2026!"},
		{password.WeakCommon, "P@$$w0rd!!!!!"},
		{password.WeakCommon, "ＰＡＳＳＷＯＲＤ１２３４"}, // full width
		{password.WeakCommon, "qwertyuiop123"},
		{password.WeakCommon, "poiuytrewq321"},
		{password.WeakCommon, "1qaz2wsx3edc4rfv"},
		{password.WeakCommon, "йцукенгшщзхъ"},
		{password.WeakCommon, "ПарольПароль1"},
		{password.WeakCommon, "aaaaaaaaaaaaaaaa"},
		{password.WeakCommon, "abcdefghijklmnop"},
		{password.WeakCommon, "k7xk7xk7xk7xk7x"},
		{password.WeakCommon, "123456789012"},
		{password.WeakCommon, "+79161234567"},
		{password.WeakCommon, "Summer2026!!!"},
		{password.WeakCommon, "admin@admin2026"},
		{password.WeakCommon, strings.Repeat("a", 900)},
		{password.WeakPersonal, "tea for Petrova at noon"},
		{password.WeakPersonal, "tea for p3tr0va at noon"},
		{password.WeakPersonal, "чай для ПЕТРОВА в полдень"},
		{password.WeakPersonal, "rom-ash-ka violet tractor"},
		{password.WeakPersonal, "violet kim tractor hums"},
		{password.WeakPersonal, "violet tractor k.i.m hums"},
		{password.WeakPersonal, "violet p e t r o v a hums"},
		{password.WeakPersonal, "violet п_е_т_р_о_в_а hums"},
		{password.WeakPersonal, "violet p.3.t.r.0.v.a hums"},
		{password.WeakPersonal, "violet tractor xpetrovax"},
		{password.WeakPersonal, "violet a.petrova tractor"},
	} {
		err := password.Strong(tc.given, about...)
		if tc.code == "" {
			require.NoError(t, err, tc.given)
			continue
		}
		weak, ok := errors.AsType[*password.WeakError](err)
		require.True(t, ok, "%q: %v", tc.given, err)
		require.Equal(t, tc.code, weak.Code, tc.given)
		if tc.given != "" {
			require.NotContains(t, err.Error(), tc.given)
		}
	}
}

// What two words make together where they meet is nobody's name.
func TestStrongKeepsWordsApart(t *testing.T) {
	for company, given := range map[string]string{
		"Best":    "lamb estates quarrel violet",
		"Kim":     "thick image violet tractor",
		"Ivan":    "taxi vanilla violet tractor",
		"Anna":    "slogan nasal violet tractor",
		"Ромашка": "хром ашкали лиловый трактор",
	} {
		require.NoError(t, password.Strong(given, company), company)
		require.Error(t, password.Strong(given+" "+company, company), company)
		require.Error(t, password.Strong(given+company+"s", company), company)
	}
}

func TestStrongIgnoresNamesTooShortToMean(t *testing.T) {
	require.NoError(t, password.Strong("violet tractor hums underwater", "", "  ", "a", "or", "t.r@um.de"))
}

// What password managers make has signs between single characters too, and is
// hardly ever refused.
func TestStrongAcceptsWhatIsRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each run
	refused := 0
	for range 10_000 {
		var given [password.MinCharacters]byte
		for i := range given {
			given[i] = byte('!' + random.IntN('~'-'!'+1))
		}
		if password.Strong(string(given[:])) != nil {
			refused++
		}
	}
	require.Less(t, refused, 20)
}

func FuzzStrong(f *testing.F) {
	f.Add("violet tractor hums underwater", "anna")
	f.Add("\xff\xfe\x00", "\xff")
	f.Fuzz(func(t *testing.T, given, about string) {
		err := password.Strong(given, about)
		if _, ok := errors.AsType[*password.WeakError](err); err != nil && !ok {
			t.Fatalf("not a WeakError: %v", err)
		}
	})
}

func BenchmarkStrong(b *testing.B) {
	for b.Loop() {
		if err := password.Strong("violet tractor hums underwater", "a.petrova@romashka.example", "Anna Petrova"); err != nil {
			b.Fatal(err)
		}
	}
}
