package app

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
)

// database is where an installation keeps its data.
type database string

const (
	onSQLite   database = "sqlite"
	onPostgres database = "postgres"
)

// each runs a test on both databases: all that the CRM promises holds on both. It
// runs beside other tests.
func each(t *testing.T, test func(t *testing.T, on database)) {
	t.Parallel()
	for _, on := range []database{onSQLite, onPostgres} {
		t.Run(string(on), func(t *testing.T) {
			t.Parallel()
			test(t, on)
		})
	}
}

// eachAlone does so with a test that changes what belongs to the whole process.
func eachAlone(t *testing.T, test func(t *testing.T, on database)) {
	for _, on := range []database{onSQLite, onPostgres} {
		t.Run(string(on), func(t *testing.T) { test(t, on) })
	}
}

// installation is a CRM in temporary folders, with its parts within reach.
type installation struct {
	t    *testing.T
	on   database
	cfg  Config
	app  *App
	web  *httptest.Server
	late atomic.Int64 // how far the clock is ahead

	aging   sync.Once
	aged    atomic.Int64 // how far the time of the process is ahead
	restore func()       // ends that
}

// sample is a file of n contacts that owners of two departments share in turn,
// every value of which can be told from everything else on the disk.
func sample(n int) []byte {
	owners := []struct{ login, department string }{{"seller1", "Sales"}, {"seller3", "Sales / North"}, {"seller5", "Support"}}
	var b bytes.Buffer
	b.WriteString("name,phone,email,company,city,note,owner,department,country\n")
	for i := range n {
		o := owners[i%len(owners)]
		fmt.Fprintf(&b, "Quillfeather%04d Имярек,8 (916) 555-%02d-%02d,quill%04d@example.org,Zanzibar%04d Works,Umbridge%04d,\"Whisper%04d: call 8 916 777-%02d-%02d, card 4111 1111 1111 1111\",%s,%s,RU\n",
			i, i/100, i%100, i, i, i, i, i/100, i%100, o.login, o.department)
	}
	return b.Bytes()
}

func phoneOf(i int) string { return fmt.Sprintf("+7916555%04d", i) }

// newInstallation starts a CRM. Where it can, it copies one that was founded before, with
// its keys: a test of two installations founds the second one by [founded].
func newInstallation(t *testing.T, on database, contacts []byte) *installation {
	t.Helper()
	if on == onPostgres {
		return founded(t, on, contacts)
	}
	in := unstarted(t, on)
	require.NoError(t, copyFounded(in.cfg, contacts))
	in.start()
	return in
}

// founded starts a CRM that is founded just now.
func founded(t *testing.T, on database, contacts []byte) *installation {
	t.Helper()
	in := unstarted(t, on)
	in.cfg.Contacts = contacts
	in.start()
	return in
}

// unstarted is a CRM whose folders and database are empty yet.
func unstarted(t *testing.T, on database) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "crm") // short: a socket's path has little room
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	in := &installation{t: t, on: on, restore: func() {}}
	t.Cleanup(func() { in.restore() })
	in.cfg = Config{
		Data: filepath.Join(dir, "crm-data"), Keys: filepath.Join(dir, "crm-keys"), Loopback: true,
		Logger: slog.New(slog.DiscardHandler),
		Clock:  func() time.Time { return time.Now().Add(time.Duration(in.late.Load())) },
	}
	if on == onPostgres {
		in.cfg.DB = PostgresURL(sqldbtest.PostgresURL(t))
	}
	return in
}

// pass lets time pass, also for what no setting of the clock moves.
func (in *installation) pass(d time.Duration) {
	in.t.Helper()
	in.age(d)
	in.late.Add(int64(d))
}

// age moves only that time: the leases of keys, and how old the last look for a lockdown
// is. It passes for the whole process, so that the test cannot run beside others.
func (in *installation) age(d time.Duration) {
	in.t.Helper()
	in.aging.Do(func() {
		in.t.Setenv("CRM_TEST_TIME", "passes") // panics in a test that runs beside others
		began, before := time.Now(), uptime.Now()
		in.restore = uptime.Move(func() time.Duration { return before + time.Since(began) + time.Duration(in.aged.Load()) })
	})
	in.aged.Add(int64(d))
}

// alter changes the database of an installation that is not running.
func alter(t *testing.T, cfg Config, query string, args ...any) {
	t.Helper()
	db, err := openStore(t.Context(), cfg)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
	require.NoError(t, db.close())
}

// diskFull returns the statements that make the insertion of rows fail, and that
// undo it.
func (on database) diskFull(table, when string) (fail, repair string) {
	if when != "" {
		when = " WHEN (" + when + ")"
	}
	if on == onPostgres {
		return `CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''disk full''; END';
			CREATE TRIGGER disk_full BEFORE INSERT ON ` + table + ` FOR EACH ROW` + when + ` EXECUTE FUNCTION disk_full()`,
			`DROP FUNCTION disk_full() CASCADE`
	}
	return `CREATE TRIGGER disk_full BEFORE INSERT ON ` + table + when + ` BEGIN SELECT RAISE(ABORT, 'disk full'); END`, `DROP TRIGGER disk_full`
}

func (in *installation) start() {
	in.t.Helper()
	var err error
	in.app, err = New(in.t.Context(), in.cfg)
	require.NoError(in.t, err)
	in.web = httptest.NewServer(in.app.Handler())
	in.t.Cleanup(in.stop)
}

func (in *installation) stop() {
	if in.app == nil {
		return
	}
	in.web.Close()
	require.NoError(in.t, in.app.Close())
	in.app = nil
}

func (in *installation) password() string {
	in.t.Helper()
	password, err := in.app.DemoPassword(in.t.Context())
	require.NoError(in.t, err)
	return password
}

// idOf returns the id of the i-th contact of the sample.
func (in *installation) idOf(i int) string {
	in.t.Helper()
	var id string
	require.NoError(in.t, in.app.db.QueryRowContext(in.t.Context(), `SELECT id FROM contacts ORDER BY seq LIMIT 1 OFFSET $1`, i).Scan(&id))
	return id
}

// browser is somebody at a browser that follows redirects and keeps cookies.
type browser struct {
	t    *testing.T
	http *http.Client
	base string
}

func (in *installation) browser() *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(in.t, err)
	return &browser{in.t, &http.Client{Jar: jar}, in.web.URL}
}

// signedIn is somebody who came in just now, with a code. It makes the session
// itself, because each code works once: the way in has tests of its own.
func (in *installation) signedIn(login string) *browser {
	in.t.Helper()
	return in.session(login, crmguard.AssuranceSecondFactor, 0)
}

// session is somebody who proved this much, that long ago.
func (in *installation) session(login string, proved crmguard.Assurance, ago time.Duration) *browser {
	in.t.Helper()
	token, err := in.app.sessions.Start(in.t.Context(), crmguard.Subject{
		Tenant: tenant, ID: login, Kind: employee, Addr: netip.MustParseAddr("127.0.0.1"),
		Assurance: proved, AuthenticatedAt: in.app.now().Add(-ago),
	})
	require.NoError(in.t, err, login)
	b := in.browser()
	b.bring(token)
	return b
}

// enter goes through the sign-in page with a demo account.
func (in *installation) enter(login string) *browser {
	in.t.Helper()
	b := in.browser()
	status, page := b.post("/sign-in", "login", login, "password", in.password(), "code", in.code(login))
	require.Equal(in.t, http.StatusOK, status, login)
	has(in.t, page, "Sign out")
	return b
}

// code is what the app of a demo account shows. When two were used, the clock moves
// on to the next.
func (in *installation) code(login string) string {
	in.t.Helper()
	code, err := in.app.DemoCode(in.t.Context(), login, func(wait time.Duration) { in.late.Add(int64(wait)) })
	require.NoError(in.t, err)
	return code
}

// bring puts a session's token into the browser.
func (b *browser) bring(token string) {
	b.t.Helper()
	at, err := url.Parse(b.base)
	require.NoError(b.t, err)
	b.http.Jar.SetCookies(at, []*http.Cookie{{Name: "session", Value: token, Path: "/"}})
}

// token is what the browser holds.
func (b *browser) token() string {
	b.t.Helper()
	at, err := url.Parse(b.base)
	require.NoError(b.t, err)
	cookies := b.http.Jar.Cookies(at)
	require.Len(b.t, cookies, 1)
	return cookies[0].Value
}

func (b *browser) do(method, path string, form url.Values, headers ...string) *http.Response {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := b.http.Do(r)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

func (b *browser) get(path string) (int, string) {
	b.t.Helper()
	return read(b.t, b.do(http.MethodGet, path, nil))
}

func (b *browser) post(path string, form ...string) (int, string) {
	b.t.Helper()
	return read(b.t, b.do(http.MethodPost, path, fields(form...)))
}

func fields(form ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return values
}

func read(t *testing.T, answer *http.Response) (int, string) {
	t.Helper()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, html.UnescapeString(string(body))
}

// has and hasNot look for a text in a page, which is too long to be printed.
func has(t *testing.T, page, text string, why ...any) {
	t.Helper()
	require.True(t, strings.Contains(page, text), "the page %q lacks %q %v", heading(page), text, why)
}

func hasNot(t *testing.T, page, text string, why ...any) {
	t.Helper()
	require.False(t, strings.Contains(page, text), "the page %q holds %q %v", heading(page), text, why)
}

func heading(page string) string {
	_, rest, _ := strings.Cut(page, "<h1>")
	text, _, _ := strings.Cut(rest, "</h1>")
	return text
}

var (
	requestID  = regexp.MustCompile(`<code>[A-Z2-7]{26}</code>`)
	hiddenForm = regexp.MustCompile(`name="version" value="(\d+)"`)
)

// version is the version that a form carries.
func version(t *testing.T, page string) string {
	t.Helper()
	match := hiddenForm.FindStringSubmatch(page)
	require.NotNil(t, match, heading(page))
	return match[1]
}

// TestTooManyAttempts: a guesser is slowed down, with a page that says so.
func TestTooManyAttempts(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil) // attempts are counted in the process
	b := in.browser()
	last := 0
	for range 10 {
		last, _ = b.post("/sign-in", "login", "seller1", "password", "guess")
		if last == http.StatusTooManyRequests {
			break
		}
		require.Equal(t, http.StatusUnauthorized, last)
	}
	require.Equal(t, http.StatusTooManyRequests, last)
	_, page := b.post("/sign-in", "login", "seller1", "password", in.password())
	has(t, page, "Too many attempts")
	has(t, page, `value="seller1"`)
}

// TestProgramsGetProblems: whoever does not ask for HTML gets problem+json.
func TestProgramsGetProblems(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		answer := in.signedIn("seller1").do(http.MethodGet, "/contacts/missing", nil, "Accept", "application/json")
		require.Equal(t, "application/problem+json", answer.Header.Get("Content-Type"))
		_, body := read(t, answer)
		has(t, body, `"code":"not-found"`)
	})
}

func TestHeaders(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		for _, path := range []string{"/sign-in", "/contacts", "/static/style.css", "/nothing"} {
			h := in.browser().do(http.MethodGet, path, nil).Header
			require.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'", path)
			require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
			require.Equal(t, "no-referrer", h.Get("Referrer-Policy"), path)
		}
		require.Contains(t, in.browser().do(http.MethodGet, "/static/app.js", nil).Header.Get("Content-Type"), "javascript")
	})
}
