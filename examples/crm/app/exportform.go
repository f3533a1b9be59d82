package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/age"

	"github.com/crmguard/crmguard/password"
)

var exportReasons = []reason{
	{"report", "A report"},
	{"mailing", "A mailing or a campaign"},
	{"handover", "Hand clients over to somebody"},
	{"authority", "An authority asked for it"},
	{"other", "Something else (say what)"},
}

// exportProblem is the code of a form that is drawn again with what is wrong with it.
const exportProblem = "export-form"

// exportPage is what export.html shows: the form, and what is wrong with it. What
// was typed as a key comes back only if it is a public one, a passphrase never.
type exportPage struct {
	Reasons                                         []reason
	Reason, More, Key                               string
	Problems                                        bool
	General, KeyError, PassphraseError, ReasonError string
}

// exportOrder is a form in order.
type exportOrder struct {
	reason, more  string
	recipient     age.Recipient
	recipientName string // for the journal: a digest of the public key, or "passphrase"
}

// readExport reads the form. The order is nil if the form is not in order.
func readExport(typed url.Values, login string) (*exportOrder, *exportPage) {
	form := &exportPage{Reasons: exportReasons, Reason: typed.Get("reason"), More: strings.TrimSpace(typed.Get("more"))}
	order := &exportOrder{reason: form.Reason, more: form.More}
	fail := func(where *string, text string) { *where, form.Problems = text, true }
	known := slices.ContainsFunc(exportReasons, func(r reason) bool { return r.Code == form.Reason })
	if !known || form.Reason == "other" && form.More == "" || utf8.RuneCountInString(form.More) > 300 {
		fail(&form.ReasonError, "Choose a reason, and say what it is if it is something else (at most 300 characters).")
	}
	key, passphrase := strings.TrimSpace(typed.Get("key")), typed.Get("passphrase")
	switch {
	case holdsSecretKey(typed):
		// Wherever it was pasted, it is neither used nor shown again.
		form.More = ""
		fail(&form.KeyError, "That was a secret key. It was not used and not kept, but it has left your machine: make a new pair, and paste the public key of it, which begins with age1.")
	case key == "" && passphrase == "":
		fail(&form.General, "Give a public key, or type a passphrase twice.")
	case key != "" && (passphrase != "" || typed.Get("again") != ""):
		fail(&form.General, "Give a public key or a passphrase, not both.")
	case key != "":
		recipient, err := publicKey(key)
		if err != nil {
			fail(&form.KeyError, "This is not an age public key. One begins with age1 and has 62 letters and digits. Keys of SSH, of plugins and of several people are not accepted.")
			break
		}
		form.Key, order.recipient = recipient.String(), recipient
		digest := sha256.Sum256([]byte(form.Key))
		order.recipientName = "key-" + hex.EncodeToString(digest[:8])
	case passphrase != typed.Get("again"):
		fail(&form.PassphraseError, "The two passphrases differ.")
	default:
		if weak, ok := errors.AsType[*password.WeakError](password.Strong(passphrase, login)); ok {
			fail(&form.PassphraseError, "This passphrase is too weak: "+weak.Advice+".")
			break
		}
		recipient, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			fail(&form.PassphraseError, "This passphrase cannot be used.")
			break
		}
		order.recipient, order.recipientName = recipient, "passphrase"
	}
	if form.Problems {
		return nil, form
	}
	return order, form
}

// holdsSecretKey says whether a secret key, or one with a plugin's name, stands in
// any field of the form.
func holdsSecretKey(typed url.Values) bool {
	for _, values := range typed {
		for _, value := range values {
			plain := strings.ToUpper(strings.Join(strings.Fields(value), ""))
			if strings.Contains(plain, "AGE-SECRET-KEY-") || strings.Contains(plain, "AGE-PLUGIN-") {
				return true
			}
		}
	}
	return false
}

// publicKey reads one X25519 key, and tries it: of points on a curve some are good
// for nothing. Its errors hold what was typed, so they go nowhere.
func publicKey(text string) (*age.X25519Recipient, error) {
	recipient, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, err
	}
	if _, err := recipient.Wrap(make([]byte, 16)); err != nil {
		return nil, err
	}
	return recipient, nil
}

// encrypt returns a writer whose bytes reach w encrypted for the recipient.
func (o *exportOrder) encrypt(a *App, w io.Writer) (io.WriteCloser, error) {
	if _, ok := o.recipient.(*age.ScryptRecipient); ok {
		a.exports.stretching.Lock()
		defer a.exports.stretching.Unlock()
	}
	encrypted, err := age.Encrypt(w, o.recipient)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return encrypted, nil
}
