package app

import (
	"context"
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
func (a *App) addressForm(ctx context.Context, d ipfilter.Document) (*addressForm, error) {
	roles, err := a.rights.Roles(ctx, tenant)
	if err != nil {
		return nil, err
	}
	form := &addressForm{Version: d.Version}
	add := func(key, title string, list ipfilter.List) {
		form.Lists = append(form.Lists, &addressList{
			Key: key, Title: title, Allow: prefixLines(list.Allow), Deny: prefixLines(list.Deny),
			Open: key == companyKey || list.Allow != nil || list.Deny != nil,
		})
	}
	add(companyKey, "The company", d.Rules.Company)
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
	return form, nil
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

// fields are the names of the form's fields.
func (f *addressForm) fields() []string {
	names := []string{"person"}
	for _, l := range f.Lists {
		names = append(names, "allow-"+l.Key, "deny-"+l.Key)
	}
	return names
}

// typed takes over what was typed, and returns it as rules. A field that an older form
// does not have stays as it is.
func (f *addressForm) typed(posted url.Values, logins []string) ipfilter.Rules {
	rules := ipfilter.Rules{Roles: map[string]ipfilter.List{}, People: map[string]ipfilter.List{}}
	for _, l := range f.Lists {
		typedOr(posted, "allow-"+l.Key, &l.Allow)
		typedOr(posted, "deny-"+l.Key, &l.Deny)
		var list ipfilter.List
		list.Allow, l.AllowErrors = readPrefixes(l.Allow)
		list.Deny, l.DenyErrors = readPrefixes(l.Deny)
		if l.AllowErrors != nil || l.DenyErrors != nil {
			f.Problems, l.Open = true, true
			continue
		}
		if l.New {
			l.Person = strings.TrimSpace(posted.Get("person"))
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

// changeAddresses puts the rules of the form in force. A change that locks people out
// is first shown for what it is.
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
	form, err := a.addressForm(ctx, was)
	if err != nil {
		return err
	}
	if form.Conflict, err = stale(r.PostForm, was.Version, form.fields()); err != nil {
		return err
	}
	rules := form.typed(r.PostForm, logins)
	view := &settingsView{Addresses: form}
	if form.Conflict {
		return notSaved(r, http.StatusConflict, view)
	}
	if form.Problems {
		return notSaved(r, http.StatusUnprocessableEntity, view)
	}
	next, lockout, err := a.prepareAddresses(ctx, rules, r.PostForm.Get("force") == "yes")
	if err != nil {
		return err
	}
	if lockout != nil {
		form.Lockout, form.MayForce = lockout, a.may(r, crmguard.Grant, ownersResource)
		return notSaved(r, http.StatusConflict, view)
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
	return a.showSettings(w, r, http.StatusOK, &settingsView{Saved: "addresses", Notice: &notice{"The address rules are in force", "They hold from the next click on, for whoever is signed in too."}})
}

func addressReason(d ipfilter.Document) string {
	reason := "version:" + strconv.FormatInt(d.Version, 10)
	if d.Lockout != nil {
		reason += ":forced"
	}
	return reason
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
