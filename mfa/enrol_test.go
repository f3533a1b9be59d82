package mfa

import (
	"bytes"
	"image"
	"image/png"
	"net/url"
	"strings"
	"testing"

	"github.com/boombuler/barcode/qr"
	"github.com/pquerna/otp"
	"github.com/stretchr/testify/require"
)

func TestURI(t *testing.T) {
	r := newRig(t)
	e, err := r.Enrol(t.Context(), "acme", "anna", "anna+crm@acme.example")
	require.NoError(t, err)
	u, err := url.Parse(e.URI())
	require.NoError(t, err)
	require.Equal(t, "otpauth", u.Scheme)
	require.Equal(t, "totp", u.Host)
	require.Equal(t, "/Acme CRM:anna+crm@acme.example", u.Path)
	require.Equal(t, url.Values{
		"secret": {e.Secret()}, "issuer": {"Acme CRM"}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"},
	}, u.Query())
	require.Equal(t, "otpauth://totp/Acme%20CRM:anna%2Bcrm%40acme.example?secret="+e.Secret()+"&issuer=Acme%20CRM&algorithm=SHA1&digits=6&period=30", e.URI())
	secret, err := base32NoPadding.DecodeString(e.Secret())
	require.NoError(t, err)
	require.Len(t, secret, 20)
	other, err := r.Enrol(t.Context(), "acme", "anna", "anna")
	require.NoError(t, err)
	require.NotEqual(t, e.Secret(), other.Secret())
}

func TestAccountsThatAppsReadDifferentlyAreRefused(t *testing.T) {
	r := newRig(t)
	for _, account := range []string{"", "a:b", "a\nb", "\x00", "\xff", strings.Repeat("a", 129)} {
		_, err := r.Enrol(t.Context(), "acme", "anna", account)
		require.Error(t, err, "%q", account)
	}
	for _, account := range []string{"anna", "анна", "a b", "a/b", "a%20b", "a?b#c", "a&b=c", ".", "..", "./a", strings.Repeat("ж", 64)} {
		_, err := r.Enrol(t.Context(), "acme", "anna", account)
		require.NoError(t, err, "%q", account)
	}
}

// Whatever is accepted comes back from the URI.
func FuzzNewKey(f *testing.F) {
	f.Add("Acme CRM", "anna@acme.example")
	f.Add("Акме", "a/../b")
	f.Add("A&B", "100%")
	f.Add("&", "0") // which pquerna/otp writes as an empty issuer
	f.Fuzz(func(t *testing.T, issuer, account string) {
		secret := []byte("12345678901234567890")
		key, err := newKey(issuer, account, secret)
		if err != nil {
			return
		}
		u, err := url.Parse(key.URL())
		if err != nil || key.String() != key.URL() || u.Path != "/"+issuer+":"+account || u.Query().Get("issuer") != issuer || u.Query().Get("secret") != base32NoPadding.EncodeToString(secret) {
			t.Fatalf("%q %q: %s", issuer, account, key.URL())
		}
	})
}

// The picture is the code that its encoder makes, module for module, with the
// quiet zone around that scanners need; also for the longest names.
func TestQR(t *testing.T) {
	for _, account := range []string{"a", "anna@acme.example", strings.Repeat("ж", 64)} {
		key, err := newKey(strings.Repeat("Ж", min(len(account), 32)), account, []byte("12345678901234567890"))
		require.NoError(t, err)
		picture, err := (&Enrolment{"id", key}).QR()
		require.NoError(t, err)
		drawn, err := png.Decode(bytes.NewReader(picture))
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 480, 480), drawn.Bounds())
		want, err := qr.Encode(key.URL(), qr.M, qr.Auto)
		require.NoError(t, err)
		modules := want.Bounds().Dx()
		size := qrSize / modules
		require.GreaterOrEqual(t, size, 3, "pixels a module")
		offset := qrMargin + (qrSize-size*modules)/2
		require.GreaterOrEqual(t, offset, 4*size, "quiet zone")
		for y := range 480 {
			for x := range 480 {
				dark := dark(drawn, x, y)
				mx, my := (x-offset)/size, (y-offset)/size
				inside := x >= offset && y >= offset && mx < modules && my < modules
				if dark != (inside && darkModule(want, mx, my)) {
					t.Fatalf("%q: another colour at %d, %d", account, x, y)
				}
			}
		}
	}
}

func dark(m image.Image, x, y int) bool {
	r, _, _, _ := m.At(x, y).RGBA()
	return r < 0x8000
}

func darkModule(m image.Image, x, y int) bool {
	r, _, _, _ := m.At(m.Bounds().Min.X+x, m.Bounds().Min.Y+y).RGBA()
	return r < 0x8000
}

func TestNewKeyRefusesShortSecrets(t *testing.T) {
	for n := range minSecret {
		_, err := newKey("Acme", "anna", make([]byte, n))
		require.ErrorIs(t, err, errSecret)
	}
	_, err := newKey("Acme: CRM", "anna", make([]byte, 20))
	require.Error(t, err)
	// What the library would have made of it.
	key, err := otp.NewKeyFromURL("otpauth://totp/Acme:%20CRM:anna?issuer=Acme+CRM")
	require.NoError(t, err)
	require.NotEqual(t, "anna", key.AccountName())
}
