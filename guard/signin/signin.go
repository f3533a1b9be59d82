// Package signin is the one way in: address, password, second factor, session,
// journal.
//
//	door, err := signin.New(accounts, passwords, sessions, journal, &signin.Options{Factors: factors})
//	...
//	token, err := door.SignIn(ctx, signin.Attempt{Login: login, Password: password, Code: code, Addr: addr})
//	...
//	token, err = door.StepUp(ctx, token, code, request) // before an export
//
// The code comes with the password, in one form: who has no second factor leaves it
// empty, and what they write there is not looked at. Six digits are a code of an app
// and give [crmguard.AssuranceSecondFactor]; everything else is a recovery code and
// gives [crmguard.AssuranceRecovered].
//
// # Security notes
//
//   - An unknown login, a wrong password, a closed account, a refused address and a
//     code that is wrong, used or missing are one and the same denial, given after
//     the same time. Only the journal tells them apart, and it never holds a login
//     that does not exist, or a code. What could not be decided is another error:
//     where addresses, factors, sessions or the journal are out of order, it can tell
//     a guesser that a password is right, and lets nobody in. It is in the journal as
//     undecided, unless that is what is out of order.
//   - Attempts are counted before the password is compared, so that parallel
//     guesses do not add up, and stay counted unless the password was right or
//     could not be compared: for each network (IPv6: /64, and /48 with more room), for
//     each login from a network, and, with much more room, for each login from
//     anywhere. Pauses grow to a minute. From a new network a person may have to wait
//     as long as an attack lasts.
//   - Where a login came in during the last 30 days, it has its own room: neither
//     guessers elsewhere nor those in the same network who do not guess at this login
//     make its person wait. One attempt an hour that fails is its own, and the others
//     are counted with those of all such logins of the network: a hundred, then one a
//     minute. So whoever is in an office and knows the logins of 200 people who came
//     in there can try some 360 passwords in the first hour and 260 in each later one,
//     and meanwhile makes those people wait at whose logins they guess. They can also
//     see, while the network has to wait, which logins came in from there.
//   - Factors make a person wait for wrong codes from anywhere. So that whoever knows
//     the password cannot use that to keep the person out, codes are counted here,
//     too: three are free from networks where the person never came in, for all of
//     them together, and as many in one session, and then pauses grow to an hour, for
//     one network (IPv6: /48) sooner. A code that comes meanwhile is not looked at.
//   - Counts, and from where people came in, live in this process: several nodes have
//     one each, and a restart forgets them. Then every network is new until the person
//     has come in from there once. Somebody who knows the password and guesses codes
//     at one other network does not prevent that; at two or more they can, for as long
//     as they go on, and so can who guesses passwords at very many.
//   - Refusals of strangers are journalled at most once a minute, with their count.
//   - Accounts must fold logins no further than lower case and outer spaces, or
//     guesses at one account are counted apart.
package signin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// Account is a person or program that may sign in.
type Account struct {
	Tenant       string
	ID           string
	Kind         crmguard.SubjectKind
	PasswordHash string // as Passwords.Hash made it; empty: cannot sign in by password
}

// String keeps the hash out of what is printed.
func (a Account) String() string { return a.Tenant + "/" + a.ID }

// Format does so whatever the verb.
func (a Account) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, a.String()) }

// LogValue keeps the hash out of logs.
func (a Account) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText keeps the hash out of JSON.
func (a Account) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// ErrNoAccount is what [Accounts] returns for a login that nobody has.
var ErrNoAccount = errors.New("signin: no such account")

// Accounts are the host's people.
type Accounts interface {
	// Account finds who has the login, ErrNoAccount if nobody.
	Account(ctx context.Context, login string) (Account, error)
	// SetPasswordHash keeps a hash with newer parameters of the same password. It
	// does so only while the stored hash still is a.PasswordHash, in one atomic step:
	// over a password that was changed since, the old one must not come back. Then it
	// does nothing, which is no error.
	SetPasswordHash(ctx context.Context, a Account, hash string) error
}

// Passwords hashes and compares; *password.Hasher is one.
type Passwords interface {
	Hash(ctx context.Context, password string) (hash string, err error)
	// Verify also reports whether the hash should be made anew.
	Verify(ctx context.Context, password, hash string) (ok, rehash bool, err error)
	// VerifyNobody does the work of Verify for a login that nobody has.
	VerifyNobody(ctx context.Context, password string) error
}

// Sessions starts and ends sessions; *session.Manager is one. Start returns a
// *[crmguard.Denial] for a person whose access was ended, Authenticate and Raise
// for a token that is not good. Raise notes a fresh proof and returns the token
// that is good from then on instead.
type Sessions interface {
	Start(ctx context.Context, s crmguard.Subject) (token string, err error)
	Authenticate(ctx context.Context, token string) (crmguard.Subject, error)
	Raise(ctx context.Context, token string, a crmguard.Assurance) (newToken string, err error)
	End(ctx context.Context, token string) error
}

// Options of a Door.
type Options struct {
	// Addresses are rules on where a person may sign in from. Nil: from anywhere.
	Addresses crmguard.Checker
	// Factors are the second factors of those who have one. Nil: nobody has, and
	// the password is enough.
	Factors Factors
	// Tenant is in whose journal strangers are noted. Empty: crmguard.SingleTenant.
	Tenant string

	Logger *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now
}

// Door lets people in. It is safe for concurrent use.
type Door struct {
	accounts  Accounts
	passwords Passwords
	sessions  Sessions
	journal   crmguard.Recorder
	o         Options

	networks *pauses // by network
	sites    *pauses // by larger IPv6 network
	logins   *pauses // by login and network
	persons  *pauses // by login, from anywhere
	codes    *pauses // by person away from home, and by session
	codesAt  *pauses // by person and network, away from home
	offices  *pauses // by network, for logins that came in from there
	firsts   *pauses // by login and network, likewise: what is not counted in offices
	homes    *homes  // networks of logins that came in

	refusalTime time.Duration // how long a refusal takes at least

	strangers *tally
}

// New returns a Door. All four parts are required.
func New(accounts Accounts, passwords Passwords, sessions Sessions, journal crmguard.Recorder, o *Options) (*Door, error) {
	if accounts == nil || passwords == nil || sessions == nil || journal == nil {
		return nil, errors.New("signin: accounts, passwords, sessions and journal are required")
	}
	d := &Door{accounts: accounts, passwords: passwords, sessions: sessions, journal: journal}
	if o != nil {
		d.o = *o
	}
	if d.o.Tenant == "" {
		d.o.Tenant = crmguard.SingleTenant
	}
	if d.o.Logger == nil {
		d.o.Logger = slog.Default()
	}
	if d.o.Clock == nil {
		d.o.Clock = time.Now
	}
	// An office shares an address; a person mistypes; a person's guessers may come
	// from many networks, and must not make the person wait too easily.
	d.networks = newPauses(30, firstPause, longestPause)
	d.sites = newPauses(300, firstPause, longestPause)
	d.logins = newPauses(5, firstPause, longestPause)
	d.persons = newPauses(100, firstPause, longestPause)
	d.codes = newPauses(3, firstPause, longestPauseOfCodes)
	d.codesAt = newPauses(3, firstPauseOfCodes, longestPauseOfCodes)
	d.offices = newPauses(100, firstPause, longestPause)
	d.firsts = newPauses(1, time.Hour, time.Hour)
	d.homes = newHomes()
	d.refusalTime = refusalTime
	d.strangers = &tally{}
	return d, nil
}

const resourceKind = "sessions"

// undecided is the reason of entries about what could not be decided.
const undecided = "check-failed"

// maxLogin is the length of the longest e-mail address, RFC 5321.
const maxLogin = 254

// refusalTime hides what a refusal took: whether there was an account whose refusal
// was journalled, and with which parameters its password was hashed.
const refusalTime = time.Second

// recordTimeout bounds how long an entry may take. That the client has gone away
// does not end it.
const recordTimeout = 10 * time.Second

func refusal() error {
	return &crmguard.Denial{By: "signin", Code: "refused", Status: crmguard.Unauthenticated}
}

// SignIn returns the token of a new session. Its error is a *[crmguard.Denial]
// (Unauthenticated, or Exhausted with RetryAfter), or says that it could not be
// decided.
func (d *Door) SignIn(ctx context.Context, a Attempt) (string, error) {
	if !a.Addr.IsValid() { // everybody would be one network
		return "", errors.New("signin: an attempt without the client's address")
	}
	a = a.trimmed()
	started := time.Now()
	taken, wait := d.take(a, d.o.Clock())
	if wait > 0 {
		d.noteStranger(ctx, a, "paused")
		return "", &crmguard.Denial{By: "signin", Code: "paused", Status: crmguard.Exhausted, RetryAfter: wait}
	}
	token, err := d.signIn(ctx, a)
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		pause(ctx, d.refusalTime-time.Since(started))
		return "", err
	}
	taken.giveBack() // came in, or it was not the person's failure
	if err == nil {
		d.homes.add(homeKey(a), d.o.Clock())
	}
	return token, err
}

func pause(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// signIn compares and starts the session. A denial means that a comparison was
// made and the person did not come in.
func (d *Door) signIn(ctx context.Context, a Attempt) (string, error) {
	account, err := Account{}, ErrNoAccount
	if len(a.Login) <= maxLogin && utf8.ValidString(a.Login) && !strings.ContainsRune(a.Login, 0) {
		account, err = d.accounts.Account(ctx, a.Login)
	}
	if errors.Is(err, ErrNoAccount) {
		if err := d.passwords.VerifyNobody(ctx, a.Password); err != nil {
			return "", fmt.Errorf("signin: compare passwords: %w", err)
		}
		d.noteStranger(ctx, a, "unknown")
		return "", refusal()
	}
	if err != nil {
		return "", fmt.Errorf("signin: find the account: %w", err)
	}
	s := crmguard.Subject{
		Tenant: account.Tenant, ID: account.ID, Kind: account.Kind,
		Device: a.Device, Addr: a.Addr,
		Assurance: crmguard.AssurancePassword, AuthenticatedAt: d.o.Clock(),
	}
	e := crmguard.Event{
		Time: d.o.Clock(), Subject: s, Action: crmguard.SignIn, Request: a.Request,
		Resource: crmguard.Resource{Tenant: s.Tenant, Kind: resourceKind, Owner: s.ID},
	}
	ok, rehash, err := d.compare(ctx, a.Password, account.PasswordHash)
	if err != nil {
		return "", fmt.Errorf("signin: compare passwords: %w", err)
	}
	if !ok {
		e.Subject.Assurance, e.Subject.AuthenticatedAt = crmguard.AssuranceNone, time.Time{}
		return "", d.refuse(ctx, e, "password")
	}
	if d.o.Addresses != nil {
		if err := d.o.Addresses.Check(ctx, s, crmguard.SignIn, e.Resource); err != nil {
			return "", d.refuseFor(ctx, e, err)
		}
	}
	proved, reason, err := d.prove(ctx, s, a)
	if err != nil {
		return "", d.refuseFor(ctx, e, err)
	}
	if reason != "" {
		return "", d.refuse(ctx, e, reason)
	}
	e.Subject.Assurance = proved
	if rehash {
		d.rehash(ctx, account, a.Password)
	}
	return d.start(ctx, e)
}

// compare also does the work for an account that has no password.
func (d *Door) compare(ctx context.Context, password, hash string) (ok, rehash bool, err error) {
	if hash == "" {
		return false, false, d.passwords.VerifyNobody(ctx, password)
	}
	return d.passwords.Verify(ctx, password, hash)
}

// start begins the session and records it; a session that cannot be recorded is
// ended again.
func (d *Door) start(ctx context.Context, e crmguard.Event) (string, error) {
	token, err := d.sessions.Start(ctx, e.Subject)
	if err != nil {
		return "", d.refuseFor(ctx, e, err)
	}
	if err := d.recordDone(ctx, e, token); err != nil {
		return "", d.refuseFor(ctx, e, err)
	}
	return token, nil
}

// recordDone records what the session of token now is, or ends it.
func (d *Door) recordDone(ctx context.Context, e crmguard.Event, token string) error {
	s, err := d.sessions.Authenticate(ctx, token)
	if err == nil {
		s.Addr = e.Subject.Addr // which a session does not know of a request
		e.Subject, e.Resource.ID, e.Outcome = s, s.Session, crmguard.Done
		if err = d.record(ctx, e); err == nil {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if endErr := d.sessions.End(ctx, token); endErr != nil {
		d.o.Logger.ErrorContext(ctx, "signin: a session that was not recorded could not be ended", "subject", e.Subject.ID, "error", endErr)
	}
	return fmt.Errorf("record the session: %w", err)
}

// refuseFor turns a denial into the one refusal that everybody gets; what could
// not be decided stays an error, and is recorded: the password was right.
func (d *Door) refuseFor(ctx context.Context, e crmguard.Event, err error) error {
	denial, denied := errors.AsType[*crmguard.Denial](err)
	if !denied || denial == nil {
		d.recordNo(ctx, e, crmguard.Undecided, undecided)
		return fmt.Errorf("signin: %w", err)
	}
	return d.refuse(ctx, e, denial.By+":"+denial.Code)
}

// refuse records a refusal and returns it. It stays a refusal when the journal is
// down: an error would tell that there is such an account.
func (d *Door) refuse(ctx context.Context, e crmguard.Event, reason string) error {
	d.recordNo(ctx, e, crmguard.Denied, reason)
	return refusal()
}

func (d *Door) recordNo(ctx context.Context, e crmguard.Event, outcome crmguard.Outcome, reason string) {
	e.Outcome, e.Reason = outcome, reason
	if err := d.record(ctx, e); err != nil {
		d.o.Logger.ErrorContext(ctx, "signin: a refusal was not recorded", "subject", e.Subject.ID, "reason", reason, "error", err)
	}
}

func (d *Door) record(ctx context.Context, e crmguard.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return d.journal.Record(ctx, e)
}

// rehash keeps the password under today's parameters. When it fails, the old
// hash stays and the next sign-in tries again.
func (d *Door) rehash(ctx context.Context, account Account, password string) {
	hash, err := d.passwords.Hash(ctx, password)
	if err == nil {
		err = d.accounts.SetPasswordHash(ctx, account, hash)
	}
	if err != nil {
		d.o.Logger.WarnContext(ctx, "signin: the password hash was not renewed", "subject", account.ID, "error", err)
	}
}

// SignOut ends the session of token. A token that is not good is no error:
// nobody is signed in with it.
func (d *Door) SignOut(ctx context.Context, token, request string) error {
	s, err := d.sessions.Authenticate(ctx, token)
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signin: find the session: %w", err)
	}
	if err := d.sessions.End(ctx, token); err != nil {
		return fmt.Errorf("signin: end the session: %w", err)
	}
	err = d.record(ctx, crmguard.Event{
		Time: d.o.Clock(), Subject: s, Action: crmguard.Revoke, Outcome: crmguard.Done, Request: trim(request),
		Resource: crmguard.Resource{Tenant: s.Tenant, Kind: resourceKind, ID: s.Session, Owner: s.ID},
	})
	if err != nil {
		return fmt.Errorf("signin: the session is ended, but that was not recorded: %w", err)
	}
	return nil
}
