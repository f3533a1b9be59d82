package app

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/rbac"
)

// client is a contact as the tests of searches know it.
type client struct {
	id, owner, unit string
	values          map[string]string
	gone            bool // erased or damaged
}

// clientele imports a few clients whose values are alike in what searches fold, and more
// that fill pages. They are returned as the list shows them, newest first.
func clientele(t *testing.T, on database) (*installation, []*client) {
	t.Helper()
	var file bytes.Buffer
	file.WriteString("name,phone,email,company,city,owner\n")
	for i, line := range []string{
		"Anna Petrova,8 (495) 123-45-67,Anna.Petrova@Example.org,Petrova Bakery,Moscow",
		"Анна Петрова,+7 495 123 45 67,anna@example.com,ООО Ромашка,Королёв",
		"Артём Королев,+7 916 495-12-34,artem@romashka.example,Ромашка,Тверь",
		"Zoë Ångström,+46 8 495 12 34,zoe@example.se,Café Ångström,Malmö",
		"Joanna Smith,+44 20 7946 0958,joanna@example.com,Studio 495 12,London",
		"Пётр Аннин,8 926 000-11-22,anna@example.com.example,Anna & Co,Орёл",
	} {
		for _, owner := range []string{"seller1", "seller3", "seller5"} {
			fmt.Fprintf(&file, "%s,%s\n", strings.Replace(line, ",", fmt.Sprintf(" %d%s,", i, owner[:1]), 1), owner)
		}
	}
	for i := range 60 {
		fmt.Fprintf(&file, "Filler%03d,+7 903 000 %04d,filler%03d@example.net,Anna Works,Tula,%s\n", i, i, i, []string{"seller1", "seller3", "seller5"}[i%3])
	}
	in := newInstallation(t, on, file.Bytes())
	contacts, err := in.app.db.queryContacts(t.Context(), `SELECT `+listColumns+` FROM contacts ORDER BY seq DESC`)
	require.NoError(t, err)
	require.NoError(t, in.app.openContacts(crmguard.System(t.Context(), tenant, "test"), contacts))
	clients := make([]*client, len(contacts))
	for i, c := range contacts {
		clients[i] = &client{id: c.ID, owner: c.Owner, unit: c.Unit, values: map[string]string{}}
		for _, field := range searched {
			clients[i].values[field] = *c.text(field)
		}
	}
	return in, clients
}

var (
	folded    = strings.NewReplacer("ё", "е", "ë", "e", "å", "a", "ö", "o", "é", "e")
	numbersIn = regexp.MustCompile(`[0-9][0-9 ()+./-]*`)
	onlyDigit = regexp.MustCompile(`[^0-9]`)
	isNumber  = regexp.MustCompile(`^[0-9 ()+./-]*[0-9][0-9 ()+./-]*$`)
)

// contains is the slow model of a search: each word, or number, occurs somewhere.
func contains(query string, values []string) bool {
	var digits string
	occurs := func(wanted string, in func(value string) []string) bool {
		return slices.ContainsFunc(values, func(value string) bool {
			return slices.ContainsFunc(in(value), func(part string) bool { return strings.Contains(part, wanted) })
		})
	}
	numbers := func(value string) (found []string) {
		for _, n := range numbersIn.FindAllString(value, -1) {
			found = append(found, onlyDigit.ReplaceAllString(n, ""))
		}
		return found
	}
	flush := func() bool {
		wanted := digits
		digits = ""
		if wanted == "" || occurs(wanted, numbers) {
			return true
		}
		other := map[byte]string{'7': "8", '8': "7"}[wanted[0]]
		return len(wanted) >= 5 && other != "" && occurs(other+wanted[1:], numbers)
	}
	for word := range strings.FieldsSeq(folded.Replace(strings.ToLower(query))) {
		if isNumber.MatchString(word) {
			digits += onlyDigit.ReplaceAllString(word, "")
			continue
		}
		if !flush() || !occurs(strings.Trim(word, ","), func(value string) []string { return []string{folded.Replace(strings.ToLower(value))} }) {
			return false
		}
	}
	return flush()
}

// model is what a person should find, in this order: exactly what was typed, then what
// contains it.
func model(clients []*client, query string, sees func(c *client) (visible bool, clear, exact []string)) (ids []string) {
	var behind []string
	for _, c := range clients {
		visible, clear, exact := sees(c)
		if !visible || c.gone {
			continue
		}
		equal := func(field string) bool {
			wanted, is := strings.ToLower(query), strings.ToLower(c.values[field])
			if field == "phone" {
				wanted, is = strings.TrimPrefix(onlyDigit.ReplaceAllString(wanted, ""), "8"), onlyDigit.ReplaceAllString(is, "")
				return !strings.ContainsAny(query, "@") && len(wanted) >= 10 && (is == wanted || is == "7"+wanted)
			}
			return is == wanted
		}
		var values []string
		for _, field := range clear {
			values = append(values, c.values[field])
		}
		if slices.ContainsFunc(exact, equal) {
			ids = append(ids, c.id)
		} else if contains(query, values) {
			behind = append(behind, c.id)
		}
	}
	return append(ids, behind...)
}

var (
	rowLink  = regexp.MustCompile(`<th scope="row"><a href="/contacts/([a-z2-7]{20})">`)
	moreLink = regexp.MustCompile(`href="(/contacts/search\?q=[A-Z2-7]+&after=[a-z]+-\d+)"`)
)

// searchPages goes through all pages of a search and returns the ids on each. Between is
// called after each page.
func (b *browser) searchPages(query string, between func()) (pages [][]string) {
	b.t.Helper()
	status, page := b.post("/contacts/search", "query", query)
	for {
		require.Equal(b.t, http.StatusOK, status, query)
		var ids []string
		for _, row := range rowLink.FindAllStringSubmatch(page, -1) {
			ids = append(ids, row[1])
		}
		pages = append(pages, ids)
		more := moreLink.FindStringSubmatch(page)
		if more == nil {
			return pages
		}
		if between != nil {
			between()
		}
		status, page = b.get(more[1])
	}
}

// searchFor returns the address to which the form of a search leads.
func (b *browser) searchFor(path, input, typed string) string {
	b.t.Helper()
	answer := b.do(http.MethodPost, path, fields(input, typed))
	require.Equal(b.t, http.StatusOK, answer.StatusCode, typed)
	return answer.Request.URL.RequestURI()
}

var (
	everything = []string{"name", "phone", "email", "company", "city"}
	plainly    = []string{"name", "company", "city"}
	whole      = []string{"phone", "email"}
)

// TestSearchFindsWhatAModelFinds: what each role finds is what a slow model finds in what
// that role sees, in the same order; nothing of another department, nothing by a part of
// what is masked, and nothing of an erased or damaged client.
func TestSearchFindsWhatAModelFinds(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in, clients := clientele(t, on)
		var rules [][]string
		for _, rule := range [][3]string{
			{"contacts", "view", "all"}, {"contacts", "list", "all"}, {"contacts", "search", "all"},
			{"contacts#name", "read", "all"}, {"contacts#name", "unmask", "own"}, {"contacts#company", "read", "all"}, {"contacts#company", "unmask", "all"},
			{"contacts#phone", "read", "all"}, {"contacts#phone", "unmask", "own"}, {"contacts#phone", "search", "all"},
			{"contacts#email", "read", "all"}, {"contacts#email", "unmask", "own"}, {"contacts#email", "search", "own"},
		} {
			rules = append(rules, []string{"role:mixed", tenant, rule[0], rule[1], rule[2], "allow"})
		}
		in.allow(rules...)
		in.atNoon()
		owner := in.signedIn("owner")
		status, _ := owner.post("/staff/seller5/role", "role", "mixed")
		require.Equal(t, http.StatusOK, status)

		// One of each kind of client that nobody finds any more.
		erased, damaged := clients[len(clients)-1], clients[len(clients)-5]
		require.Equal(t, "seller1", erased.owner)
		status, _ = owner.post("/contacts/"+erased.id+"/forget", "reason", "client-request")
		require.Equal(t, http.StatusOK, status)
		in.tamper(`UPDATE contacts SET name = phone WHERE id = $1`, damaged.id)
		erased.gone, damaged.gone = true, true

		roles := map[string]func(c *client) (bool, []string, []string){
			"owner":   func(*client) (bool, []string, []string) { return true, everything, whole },
			"head":    func(c *client) (bool, []string, []string) { return c.owner != "seller5", plainly, whole },
			"seller1": func(c *client) (bool, []string, []string) { return c.owner == "seller1", plainly, whole },
			"seller5": func(c *client) (bool, []string, []string) {
				if c.owner == "seller5" {
					return true, []string{"name", "phone", "email", "company"}, whole
				}
				return true, []string{"company"}, []string{"phone"}
			},
		}
		found := map[string]int{}
		for login, sees := range roles {
			b := in.signedIn(login)
			for _, query := range []string{"anna", "8 495 123 45 67", "anna@example.com"} { // with all that is around a search
				require.Equal(t, model(clients, query, sees), slices.Concat(b.searchPages(query, nil)...), "%s: %q", login, query)
			}
			ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: login, Kind: employee, Addr: netip.MustParseAddr("127.0.0.1")})
			ctx = crmguard.WithAct(ctx, crmguard.Search, crmguard.Resource{Tenant: tenant, Kind: kind})
			for _, query := range []string{
				"PETROVA anna", "Petrova, Anna", "АННА ромашка", "Королёв", "zoe", "ANGSTROM cafe", "495 12", "(495) 123", "+7 495 123-45-67", "74951234",
				"926 000 1122", "+46 8 495 12 34", "ANNA@EXAMPLE.COM", "anna@example", "example.se", "studio 495", "filler01 works", "+7 903 000 0007", "903 000", "anna@example.com petrova",
			} {
				var got []string
				for from, more := (position{}), true; more; more = from != (position{}) {
					page, err := in.app.find(ctx, query, from)
					require.NoError(t, err)
					for _, c := range page.contacts {
						if c.ID != damaged.id { // the page leaves it out
							got = append(got, c.ID)
						}
					}
					from = page.more
				}
				require.Equal(t, model(clients, query, sees), got, "%s: %q", login, query)
				found[login] += len(got)
			}
		}
		for login, n := range found {
			require.Positive(t, n, login)
		}

		// The planted fault: a search that looks into what is masked finds parts of it.
		ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee})
		within, err := in.app.within(ctx, crmguard.Search)
		require.NoError(t, err)
		for faulty, want := range map[bool]int{false: 0, true: 20} {
			s := &scan{a: in.app, within: within, rights: fieldRights{a: in.app, ctx: ctx}, left: 1000, until: time.Now().Add(time.Hour)}
			if faulty {
				unmask := map[string]rbac.FieldRights{"phone": {Read: true, Unmask: true}}
				s.rights.known = map[[2]string]map[string]rbac.FieldRights{{"seller1", "sales"}: unmask}
			}
			hits, err := in.app.table.Search(crmguard.WithAct(ctx, crmguard.Search, crmguard.Resource{Tenant: tenant, Kind: kind}), tenant,
				encrypt.Query{Text: "903 000", Fields: searched, Limit: 100}, s.next)
			require.NoError(t, err)
			require.Len(t, hits.Rows, want)
		}
	})
}

// TestSearchPages: pages of a search have no gap and no repetition while others add
// contacts; who has exactly the number that was typed comes first, and rows that somebody
// may not see take nobody's place.
func TestSearchPages(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		var file strings.Builder
		file.WriteString("name,phone,owner\n")
		for i := range 70 {
			fmt.Fprintf(&file, "Mine%d,+79160000000,seller1\nForeign%d,+79160000000,seller5\n", i, i)
		}
		for i := range 60 {
			fmt.Fprintf(&file, "Ask for 8 916 000-00-00 %d,+79161110000,seller1\n", i)
		}
		in := newInstallation(t, on, []byte(file.String()))
		seller, added := in.signedIn("seller1"), 0
		ctx := crmguard.System(t.Context(), tenant, "test")
		add := func() {
			report, err := in.app.Import(ctx, fmt.Appendf(nil, "name,phone,owner\nAdded%d 89160000000,+79160000000,seller1\n", added), nil, nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Added)
			added++
		}
		var want []string
		for _, name := range []string{"+79160000000", "+79161110000"} {
			ids, err := in.app.table.Find(ctx, tenant, "phone", "phone", name)
			require.NoError(t, err)
			contacts, err := in.app.db.among(ctx, func(int) (string, []any, error) { return "owner = 'seller1'", nil, nil }, ids)
			require.NoError(t, err)
			for _, c := range contacts {
				want = append(want, c.ID)
			}
		}
		require.Len(t, want, 130)
		pages := seller.searchPages("+7 (916) 000-00-00", add)
		require.Equal(t, []int{50, 50, 30}, []int{len(pages[0]), len(pages[1]), len(pages[2])})
		require.Equal(t, want, slices.Concat(pages...))
		require.Equal(t, 2, added)

		status, page := seller.post("/contacts/search", "query", "added")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "2 contacts found")
		hasNot(t, page, `after=`)
		address := seller.searchFor("/contacts/search", "query", "added")
		for _, wrong := range []string{"exact-0", "exact-", "other-x", "other--1", "-", "both-1", "other-99999999999999999999", "exact-1 OR 1=1"} {
			status, _ = seller.get(address + "&after=" + url.QueryEscape(wrong))
			require.Equal(t, http.StatusBadRequest, status, wrong)
		}
		_, page = seller.get(address + "&after=other-1")
		has(t, page, "Nothing more")
	})
}
