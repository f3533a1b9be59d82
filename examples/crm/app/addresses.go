package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/ipfilter"
)

const addressSetting = "addresses"

// openAddresses puts the stored address rules in force.
func (a *App) openAddresses(ctx context.Context) (*ipfilter.Filter, error) {
	filter, err := ipfilter.New(a.vault.keys, a.rights, &ipfilter.Options{Marks: addressMarks{a.marks}, Logger: a.log})
	if err != nil {
		return nil, err
	}
	document, err := a.db.setting(ctx, addressSetting)
	if err != nil {
		return nil, err
	}
	switch err := filter.Load(ctx, tenant, document); {
	case errors.Is(err, ipfilter.ErrOlder):
		return nil, fmt.Errorf("the address rules in the database are older than those that were in force: somebody put an old state of the database back; put back a newer one, or remove %s from the keys folder if that was you (%w)", marksFile, err)
	case err != nil:
		return nil, fmt.Errorf("the address rules in the database were changed past the CRM: nobody was let in; put back a backup of the data (%w)", err)
	}
	return filter, nil
}

// edge tells from where a request comes.
func (a *App) edge() (func(*http.Request) (netip.Addr, error), error) {
	if len(a.cfg.Proxies) == 0 {
		return ipfilter.Edge(nil)
	}
	if a.cfg.Loopback {
		return nil, errors.New("behind a proxy others reach the CRM, so that Loopback and Proxies exclude each other")
	}
	return ipfilter.Edge(a.cfg.Proxies, a.cfg.ProxyHeader)
}

// addressForm is the part of settings.html about addresses.
type addressForm struct {
	Version  int64
	Lists    []*addressList
	Logins   []string // of all, for a list of a person who has none yet
	Conflict bool
	Problems bool
	Lockout  []string // whom the rules would lock out
	May      bool
	MayForce bool
}

// ownersResource is what forcing a change is about: who may make owners may lock them
// out, and an administrator may not.
var ownersResource = crmguard.Resource{Tenant: tenant, Kind: "owners"}

// addressList is what one level says: a prefix a line.
type addressList struct {
	Key, Title              string
	Allow, Deny             string
	AllowErrors, DenyErrors []string
	Person                  string // of the list that is added
	PersonError             string
	New, Open               bool
}

// levels of a form, as they begin the names of its fields.
const (
	companyKey = "company"
	roleKey    = "role:"
	personKey  = "person:"
	newKey     = "new"
)

// addressForm shows rules.
func (a *App) addressForm(d ipfilter.Document) *addressForm {
	form := &addressForm{Version: d.Version}
	add := func(key, title string, list ipfilter.List) {
		form.Lists = append(form.Lists, &addressList{
			Key: key, Title: title, Allow: prefixLines(list.Allow), Deny: prefixLines(list.Deny),
			Open: key == companyKey || list.Allow != nil || list.Deny != nil,
		})
	}
	add(companyKey, "The company", d.Rules.Company)
	roles := policyRoles()
	for _, role := range slices.Sorted(maps.Keys(d.Rules.Roles)) {
		if !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	for _, role := range roles {
		add(roleKey+role, "Role "+role, d.Rules.Roles[role])
	}
	for _, person := range slices.Sorted(maps.Keys(d.Rules.People)) {
		add(personKey+person, person, d.Rules.People[person])
	}
	form.Lists = append(form.Lists, &addressList{Key: newKey, Title: "A person who has no list yet", New: true})
	return form
}

func prefixLines(prefixes []netip.Prefix) string {
	lines := make([]string, len(prefixes))
	for i, p := range prefixes {
		lines[i] = p.String()
		if p.IsSingleIP() {
			lines[i] = p.Addr().String()
		}
	}
	return strings.Join(lines, "\n")
}

// typed takes over what was typed, and returns it as rules.
func (f *addressForm) typed(typed url.Values, logins []string) ipfilter.Rules {
	rules := ipfilter.Rules{Roles: map[string]ipfilter.List{}, People: map[string]ipfilter.List{}}
	for _, l := range f.Lists {
		l.Allow, l.Deny = typed.Get("allow-"+l.Key), typed.Get("deny-"+l.Key)
		var list ipfilter.List
		list.Allow, l.AllowErrors = readPrefixes(l.Allow)
		list.Deny, l.DenyErrors = readPrefixes(l.Deny)
		if l.AllowErrors != nil || l.DenyErrors != nil {
			f.Problems, l.Open = true, true
			continue
		}
		if l.New {
			l.Person = strings.TrimSpace(typed.Get("person"))
			f.newPerson(l, list, logins, rules)
			continue
		}
		if list.Allow == nil && list.Deny == nil {
			continue
		}
		if role, ok := strings.CutPrefix(l.Key, roleKey); ok {
			rules.Roles[role] = list
		} else if person, ok := strings.CutPrefix(l.Key, personKey); ok {
			rules.People[person] = list
		} else {
			rules.Company = list
		}
	}
	return rules
}

// newPerson adds the list of somebody who had none.
func (f *addressForm) newPerson(l *addressList, list ipfilter.List, logins []string, rules ipfilter.Rules) {
	_, has := rules.People[l.Person]
	switch empty := list.Allow == nil && list.Deny == nil; {
	case l.Person == "" && empty:
		return
	case l.Person == "":
		l.PersonError = "Say whose list this is."
	case !slices.Contains(logins, l.Person):
		l.PersonError = "There is nobody with this login."
	case has:
		l.PersonError = "This person has a list above."
	case empty:
		l.PersonError = "Give at least one address, or leave the login empty."
	default:
		rules.People[l.Person] = list
		return
	}
	f.Problems, l.Open = true, true
}

// readPrefixes reads one prefix a line; no line at all is no list.
func readPrefixes(text string) (prefixes []netip.Prefix, problems []string) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		prefix, err := ipfilter.ParsePrefix(line)
		if err != nil {
			problems = append(problems, fmt.Sprintf("Line %d: %s", number, strings.TrimPrefix(err.Error(), "ipfilter: ")))
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, problems
}

// changeAddresses puts the rules of the form in force. A change that locks out its
// author or the last owner is first shown for what it is.
func (a *App) changeAddresses(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	a.settling.Lock()
	defer a.settling.Unlock()
	was, _ := a.addresses.InForce(tenant)
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	logins := make([]string, len(accounts))
	for i, p := range accounts {
		logins[i] = p.ID
	}
	form := a.addressForm(was)
	rules := form.typed(r.PostForm, logins)
	view := &settingsView{Addresses: form}
	if form.Problems {
		return notSaved(r, http.StatusUnprocessableEntity, view)
	}
	if stale(r.PostForm, was.Version) {
		form.Conflict = true
		return notSaved(r, http.StatusConflict, view)
	}
	force := r.PostForm.Get("force") == "yes"
	if force {
		if err := a.guard.Check(ctx, crmguard.Grant, ownersResource); err != nil {
			return err
		}
	}
	next, err := a.prepareAddresses(ctx, rules, force)
	if lockout, ok := errors.AsType[*ipfilter.LockoutError](err); ok {
		form.MayForce = a.may(r, crmguard.Grant, ownersResource)
		form.Lockout = lockoutLines(subjectOf(ctx).ID, lockout)
		return notSaved(r, http.StatusConflict, view)
	}
	if err != nil {
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = addressReason(next) })
	err = guard.Settle(ctx, func(done crmguard.Event) error { return a.storeAddresses(ctx, next, done) })
	if errors.Is(err, errSettingChanged) {
		form.Conflict = true
		return notSaved(r, http.StatusConflict, view)
	}
	if err != nil {
		return err
	}
	return a.showSettings(w, r, http.StatusOK, &settingsView{Notice: &notice{"The address rules are in force", "They hold from the next click on, for whoever is signed in too."}})
}

func addressReason(d ipfilter.Document) string {
	reason := "version:" + strconv.FormatInt(d.Version, 10)
	if d.Lockout != nil {
		reason += ":forced"
	}
	return reason
}

// prepareAddresses makes the next version of the rules, with the owners who could
// undo it and where they are signed in from.
func (a *App) prepareAddresses(ctx context.Context, rules ipfilter.Rules, force bool) (ipfilter.Document, error) {
	open, err := a.openOwners(ctx)
	if err != nil {
		return ipfilter.Document{}, err
	}
	var owners []ipfilter.Owner
	for _, login := range open {
		owner := ipfilter.Owner{ID: login}
		sessions, err := a.sessions.List(ctx, tenant, login)
		if err != nil {
			return ipfilter.Document{}, err
		}
		for _, s := range sessions {
			if s.Addr.IsValid() && !slices.Contains(owner.Addrs, s.Addr) {
				owner.Addrs = append(owner.Addrs, s.Addr)
			}
		}
		owners = append(owners, owner)
	}
	return a.addresses.Prepare(ctx, rules, owners, &ipfilter.ChangeOptions{Force: force})
}

// storeAddresses stores the next version over the one in force, together with its
// entry in the journal, and then puts it in force.
func (a *App) storeAddresses(ctx context.Context, next ipfilter.Document, done crmguard.Event) error {
	was, err := a.db.setting(ctx, addressSetting)
	if err != nil {
		return err
	}
	done.Policy = next.Policy()
	err = a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
		return swapSetting(ctx, tx, addressSetting, was, next.JSON)
	})
	if err != nil {
		return err
	}
	return a.addresses.Load(ctx, tenant, next.JSON)
}

// lockoutLines puts into words whom rules would lock out.
func lockoutLines(author string, e *ipfilter.LockoutError) []string {
	var lines []string
	say := func(who string, a ipfilter.Answer) {
		why, _, _ := strings.Cut(a.String(), "; rules ")
		if line := who + ": " + why; !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if e.Author != nil {
		say("You", *e.Author)
	}
	for _, owner := range e.Owners {
		who := owner.ID
		if who == author {
			who = "You"
		}
		for _, answer := range owner.Answers {
			say(who, answer)
		}
		if len(owner.Answers) == 0 {
			lines = append(lines, who+": not signed in, so nobody knows from where")
		}
	}
	if e.Owners != nil {
		lines = append(lines, "No owner is known to get in then")
	}
	return lines
}

// resetAddresses removes all rules: the way back in for whoever holds the keys
// folder. See [SendAddressReset].
func (a *App) resetAddresses(ctx context.Context) (version int64, err error) {
	ctx = crmguard.System(ctx, tenant, "addresses")
	a.settling.Lock()
	defer a.settling.Unlock()
	next, err := a.prepareAddresses(ctx, ipfilter.Rules{}, true)
	if err != nil {
		return 0, err
	}
	e := systemEvent(ctx, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: addressSetting}, a.now())
	e.Reason = "version:" + strconv.FormatInt(next.Version, 10) + ":reset"
	return next.Version, a.storeAddresses(ctx, next, e)
}

// explanation is what would be decided about somebody at some address.
type explanation struct {
	Login, Addr   string
	Answer, Error string
	Allowed       bool
}

// explainAddress says what would be decided, and why.
func (a *App) explainAddress(w http.ResponseWriter, r *http.Request) error {
	asked := &explanation{Login: strings.TrimSpace(r.PostForm.Get("login")), Addr: strings.TrimSpace(r.PostForm.Get("addr"))}
	accounts, err := a.people.accounts(r.Context())
	if err != nil {
		return err
	}
	at := slices.IndexFunc(accounts, func(p account) bool { return p.ID == asked.Login })
	addr, err := netip.ParseAddr(asked.Addr)
	switch {
	case at < 0:
		asked.Error = "There is nobody with this login."
	case err != nil:
		asked.Error = "Type one address, such as 203.0.113.7 or 2001:db8::7."
	default:
		answer, err := a.addresses.Explain(r.Context(), crmguard.Subject{Tenant: tenant, ID: asked.Login, Kind: accounts[at].Kind, Addr: addr})
		if err != nil {
			return err
		}
		asked.Allowed, asked.Answer = answer.Allowed, answer.String()
	}
	return a.showSettings(w, r, http.StatusOK, &settingsView{Explained: asked})
}

// explained is what a request to explain the address rules is about.
func explained(r *http.Request) (crmguard.Resource, error) {
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "explain-addresses" })
	resource, err := section("settings")(r)
	return resource, errors.Join(err, readForm(r))
}
