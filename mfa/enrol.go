package mfa

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/pquerna/otp"
)

// MaxApps is how many confirmed apps a person can have. Each makes guessing that
// much easier.
const MaxApps = 5

// ErrTooMany says that a person has [MaxApps] apps already.
var ErrTooMany = fmt.Errorf("mfa: the person has %d apps already", MaxApps)

// confirmWithin is how long an enrolment waits to be confirmed.
const confirmWithin = 15 * time.Minute

// Enrolment is a new app's secret, to be shown to its person once. It redacts
// itself.
type Enrolment struct {
	ID  string // for [Factors.Confirm]; no secret
	key *otp.Key
}

// URI is what the QR code says: otpauth://totp/…. Where apps run on the same
// device it can be a link. It contains the secret.
func (e *Enrolment) URI() string { return e.key.URL() }

// Secret is what a person types who cannot scan, in base32.
func (e *Enrolment) Secret() string { return e.key.Secret() }

const (
	qrSize   = 400 // pixels, more than the largest QR code has modules
	qrMargin = 40  // pixels; at least the four modules that ISO/IEC 18004 wants
)

// QR returns the QR code as a PNG of 480 by 480 pixels.
func (e *Enrolment) QR() ([]byte, error) {
	code, err := e.key.Image(qrSize, qrSize)
	if err != nil {
		return nil, wrap("draw the QR code", err)
	}
	framed := image.NewGray(image.Rect(0, 0, qrSize+2*qrMargin, qrSize+2*qrMargin))
	draw.Draw(framed, framed.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(framed, code.Bounds().Add(image.Pt(qrMargin, qrMargin)), code, code.Bounds().Min, draw.Src)
	var b bytes.Buffer
	if err := png.Encode(&b, framed); err != nil {
		return nil, wrap("draw the QR code", err)
	}
	return b.Bytes(), nil
}

// Format hides the secret, whatever the verb.
func (Enrolment) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// LogValue hides the secret.
func (Enrolment) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON hides the secret.
func (Enrolment) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// Enrol makes a secret for a new app of a person, which [Factors.Confirm] makes a
// factor within 15 minutes. It replaces one that was not confirmed. Account is
// the name that the app shows beside the issuer, such as the login: at most 128
// bytes, without ":".
func (f *Factors) Enrol(ctx context.Context, tenant, person, account string) (*Enrolment, error) {
	if err := checkNames(ctx, tenant, person); err != nil {
		return nil, err
	}
	if fips140.Enforced() {
		return nil, ErrFIPS
	}
	secret := make([]byte, minSecret)
	rand.Read(secret) //nolint:errcheck // never fails, says its documentation
	defer clear(secret)
	key, err := newKey(f.issuer, account, secret)
	if err != nil {
		return nil, err
	}
	r := Row{ID: rand.Text(), Kind: KindApp, Created: f.now()}
	plain := secretBytes(person, secret)
	defer clear(plain)
	if r.Sealed, err = f.keys.Seal(ctx, secretPlace(tenant, r.ID), plain); err != nil {
		return nil, wrap("seal a secret", err)
	}
	err = f.change(ctx, tenant, person, func(rows []Row) (put []Row, remove []string, err error) {
		confirmed := 0
		for _, other := range rows {
			switch {
			case other.Kind == KindApp && other.Active:
				confirmed++
			case other.Kind == KindApp:
				remove = append(remove, other.ID)
			}
		}
		if confirmed >= MaxApps {
			return nil, nil, ErrTooMany
		}
		return []Row{r}, remove, nil
	})
	if err != nil {
		return nil, wrap("enrol", err)
	}
	return &Enrolment{r.ID, key}, nil
}

// newKey makes the URI of a secret. The library's own leaves "&" as it is, and
// some apps read "+" as a space; here everything special is escaped.
func newKey(issuer, account string, secret []byte) (*otp.Key, error) {
	if err := errors.Join(checkName("issuer", issuer, maxIssuer, ":+"), checkName("account", account, maxAccount, ":")); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(issuer+account, unicode.IsControl) {
		return nil, errors.New("mfa: issuer and account have no control characters")
	}
	if len(secret) < minSecret {
		return nil, errSecret
	}
	key, err := otp.NewKeyFromURL(fmt.Sprintf("otpauth://totp/%s:%s?secret=%s&issuer=%s&algorithm=%s&digits=%d&period=%d",
		escape(issuer), escape(account), base32NoPadding.EncodeToString(secret), escape(issuer), app.algorithm, app.digits, app.period))
	return key, wrap("make the URI", err)
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Confirm makes an enrolled app a factor, when its person shows a code of it, and
// uses that code up. Refusals are those of [Factors.Verify]; a wrong code leaves
// the enrolment as it was.
func (f *Factors) Confirm(ctx context.Context, tenant, person, id, code string) error {
	digits, ok := normalizeCode(code)
	err := f.change(ctx, tenant, person, func(rows []Row) (put []Row, remove []string, err error) {
		if !ok {
			return nil, nil, refused(ReasonMalformed)
		}
		for _, r := range rows {
			if r.ID != id || r.Kind != KindApp || r.Active || f.now().Sub(r.Created) > confirmWithin {
				continue
			}
			secret, err := f.open(ctx, tenant, person, &r)
			if err != nil {
				return nil, nil, err
			}
			defer clear(secret)
			step, matched, err := app.match(secret, digits, f.now())
			if err != nil {
				return nil, nil, err
			}
			if !matched {
				return nil, nil, refused(ReasonWrong)
			}
			r.Active, r.Step = true, step
			return []Row{r}, nil, nil
		}
		return nil, nil, refused(ReasonAbsent)
	})
	return wrap("confirm", err)
}

// Remove removes an app. With the last confirmed one the recovery codes go too,
// and the person has no second factor. An app that does not exist is no error.
func (f *Factors) Remove(ctx context.Context, tenant, person, id string) error {
	err := f.change(ctx, tenant, person, func(rows []Row) (put []Row, remove []string, err error) {
		for _, r := range rows {
			if r.ID == id && r.Kind == KindApp {
				remove = append(remove, id)
			}
		}
		if len(remove) > 0 && !hasApp(changed(rows, nil, remove)) {
			remove = append(remove, idsOf(rows, KindRecovery)...)
		}
		return nil, remove, nil
	})
	return wrap("remove", err)
}
