package guardgorm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

type Company struct {
	ID       string `gorm:"primaryKey"`
	Name     string
	Contacts []Contact
}

type Profile struct {
	Born   time.Time
	Likes  []string
	Scores map[string]int
}

type Contact struct {
	ID            string `gorm:"primaryKey" encrypt:",record"`
	CompanyID     *string
	Company       *Company `encrypt:"-"`
	Name          string
	Phone         string          `gorm:"-" encrypt:"phone,index=phone,index=last4"`
	PhoneSealed   []byte          `encrypt:"phone,sealed"`
	Email         *string         `gorm:"-" encrypt:"email,index=email"`
	EmailSealed   []byte          `gorm:"column:mail" encrypt:"email,sealed"`
	Income        sql.Null[int64] `gorm:"-" encrypt:"income"`
	IncomeSealed  []byte          `encrypt:"income,sealed"`
	Profile       *Profile        `gorm:"-" encrypt:"profile,pad=32"`
	ProfileSealed []byte          `encrypt:"profile,sealed"`
	Calls         []Call          `encrypt:"-"`
	UpdatedAt     time.Time
	DeletedAt     gorm.DeletedAt
	Erased        bool `gorm:"-"`
}

func (c *Contact) SetErased(erased bool) { c.Erased = erased }

func (c *Contact) BeforeCreate(*gorm.DB) error {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	return nil
}

// Call is a record of a client's: without a way to show that it was erased.
type Call struct {
	ID         string   `gorm:"primaryKey" encrypt:",record"`
	ContactID  string   `encrypt:",client"`
	Contact    *Contact `encrypt:"-"`
	Minutes    int
	Note       string `gorm:"-" encrypt:"note,index=exact"`
	NoteSealed []byte `encrypt:"note,sealed"`
	Tag        string `gorm:"-" encrypt:"tag"`
	TagSealed  []byte `encrypt:"tag,sealed"`
}

// countingStore counts queries for keys.
type countingStore struct {
	*encrypt.Memory
	loads atomic.Int64
}

func (s *countingStore) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	s.loads.Add(1)
	return s.Memory.Load(ctx, scopes)
}

// crm is a database with the plugin.
type crm struct {
	*gorm.DB // acts for acme
	raw      *gorm.DB
	sql      *sql.DB
	keys     *encrypt.Keyring
	store    *countingStore
	index    encrypt.Index
	plugin   *guardgorm.Plugin
	contacts *encrypt.Table[Contact]
	opened   atomic.Int64 // how often OnOpen was asked
	log      *logged
	dial     gorm.Dialector
	kek      string
}

// logged is what gorm wrote to its log.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.buf, format+"\n", args...)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func as(tenant string) context.Context { return crmguard.System(context.Background(), tenant, "test") }

// each runs a test on a SQLite file and in a schema of its own on PostgreSQL; make test
// starts a server.
func each(t *testing.T, test func(t *testing.T, c *crm)) {
	t.Run("sqlite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "crm.db")
		test(t, open(t, sqlite.Open(file+"?_pragma=secure_delete(1)&_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_txlock=immediate")))
	})
	onPostgres(t, test)
}

// onPostgres is each for what SQLite, with one writer at a time, does not do.
func onPostgres(t *testing.T, test func(t *testing.T, c *crm)) {
	t.Run("postgres", func(t *testing.T) {
		server := os.Getenv("CRMGUARD_TEST_POSTGRES")
		if server == "" {
			t.Skip("CRMGUARD_TEST_POSTGRES is not set; make test starts a server")
		}
		schema := "test_" + strings.ToLower(rand.Text())
		admin, err := gorm.Open(postgres.Open(server))
		require.NoError(t, err)
		require.NoError(t, admin.Exec("CREATE SCHEMA "+schema).Error)
		t.Cleanup(func() {
			require.NoError(t, admin.Exec("DROP SCHEMA "+schema+" CASCADE").Error)
			closeDB(t, admin)
		})
		u, err := url.Parse(server)
		require.NoError(t, err)
		query := u.Query()
		query.Set("search_path", schema)
		u.RawQuery = query.Encode()
		test(t, open(t, postgres.Open(u.String())))
	})
}

func closeDB(t *testing.T, db *gorm.DB) {
	pool, err := db.DB()
	require.NoError(t, err)
	require.NoError(t, pool.Close())
}

// open makes the tables, which the plugin-less connection raw sees, too.
func open(t *testing.T, dial gorm.Dialector) *crm {
	t.Helper()
	c := &crm{log: &logged{}, dial: dial, store: &countingStore{Memory: encrypt.NewMemory()}, kek: filepath.Join(t.TempDir(), "kek.json")}
	config := func() *gorm.Config {
		return &gorm.Config{Logger: logger.New(c.log, logger.Config{LogLevel: logger.Info})}
	}
	var err error
	c.raw, err = gorm.Open(dial, config())
	require.NoError(t, err)
	t.Cleanup(func() { closeDB(t, c.raw) })
	c.sql, err = c.raw.DB()
	require.NoError(t, err)
	require.NoError(t, c.raw.AutoMigrate(&Company{}, &Contact{}, &Call{}))
	c.index, err = encryptsql.NewIndex(t.Context(), c.sql, nil)
	require.NoError(t, err)

	db, err := gorm.Open(dial, config())
	require.NoError(t, err)
	t.Cleanup(func() { closeDB(t, db) })
	c.connect(t, db)
	return c
}

// connect puts a plugin with an empty cache of keys into a database.
func (c *crm) connect(t *testing.T, db *gorm.DB) {
	t.Helper()
	kek, err := encrypt.OpenKeyFile(c.kek, "data", c.keys == nil)
	require.NoError(t, err)
	c.keys, err = encrypt.New(kek, c.store, &encrypt.Options{Index: c.index, OnOpen: func(context.Context, string, []string) error {
		c.opened.Add(1)
		return nil
	}})
	require.NoError(t, err)
	keys := c.keys
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	o := &encrypt.TableOptions{Region: "RU"}
	c.contacts, err = encrypt.NewTable[Contact](c.keys, "contacts", o)
	require.NoError(t, err)
	c.plugin, err = guardgorm.New(c.keys, guardgorm.Kinds{"contacts": {Contact{}}, "calls": {&Call{}}}, o)
	require.NoError(t, err)
	require.NoError(t, db.Use(c.plugin))
	c.DB = db.WithContext(as("acme"))
}

// cold is the same database in a process that has just started.
func (c *crm) cold(t *testing.T) {
	t.Helper()
	db, err := gorm.Open(c.dial, &gorm.Config{Logger: logger.New(c.log, logger.Config{LogLevel: logger.Info})})
	require.NoError(t, err)
	t.Cleanup(func() { closeDB(t, db) })
	c.connect(t, db)
}

// found returns the ids of contacts with a phone.
func (c *crm) found(t *testing.T, phone string) []string {
	t.Helper()
	ids, err := c.contacts.Find(as("acme"), "acme", "phone", "phone", phone)
	require.NoError(t, err)
	return ids
}

func (c *crm) mailed(t *testing.T, email string) []string {
	t.Helper()
	ids, err := c.contacts.Find(as("acme"), "acme", "email", "email", email)
	require.NoError(t, err)
	return ids
}

// column reads a sealed column past the plugin.
func (c *crm) column(t *testing.T, table, column, id string) []byte {
	t.Helper()
	var b []byte
	require.NoError(t, c.sql.QueryRow("SELECT "+column+" FROM "+table+" WHERE id = $1", id).Scan(&b))
	return b
}

// null says whether a column is NULL, which drivers do not tell from no bytes.
func (c *crm) null(t *testing.T, table, column, id string) (null bool) {
	t.Helper()
	require.NoError(t, c.sql.QueryRow("SELECT "+column+" IS NULL FROM "+table+" WHERE id = $1", id).Scan(&null))
	return null
}

// get reads a contact through the plugin.
func (c *crm) get(t *testing.T, id string) Contact {
	t.Helper()
	var found Contact
	require.NoError(t, c.First(&found, "id = ?", id).Error)
	return found
}

func (c *crm) use(t *testing.T, kind string, rows ...any) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(c.dial, &gorm.Config{Logger: logger.New(c.log, logger.Config{LogLevel: logger.Info})})
	require.NoError(t, err)
	t.Cleanup(func() { closeDB(t, db) })
	plugin, err := guardgorm.New(c.keys, guardgorm.Kinds{kind: rows}, nil)
	require.NoError(t, err)
	require.NoError(t, db.Use(plugin))
	return db
}
