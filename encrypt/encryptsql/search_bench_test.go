package encryptsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

const searchedContacts = 100_000

type searched struct {
	ID          string `encrypt:",record"`
	Name        string `encrypt:"name"`
	NameSealed  []byte `encrypt:"name,sealed"`
	Phone       string `encrypt:"phone"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
	Email       string `encrypt:"email"`
	EmailSealed []byte `encrypt:"email,sealed"`
}

var (
	firstNames = []string{"Анна", "Ольга", "Пётр", "Иван", "Марина", "Alexandra", "José", "Семён", "Татьяна", "John"}
	lastNames  = []string{"Петрова", "Водкина", "Кузнецов", "Smith", "Королёва", "Лебедева", "García", "Морозов", "Семёнова", "Miller"}
	mailboxes  = []string{"gmail.com", "mail.ru", "yandex.ru", "example.com", "outlook.com"}
)

// contactOf generates one contact; the last is the one that searches look for.
func contactOf(i int, random *rand.Rand) *searched {
	row := &searched{
		ID:    fmt.Sprintf("c-%06d", i),
		Name:  firstNames[random.IntN(len(firstNames))] + " " + lastNames[random.IntN(len(lastNames))],
		Phone: fmt.Sprintf("+7 (9%02d) %03d-%02d-%02d", random.IntN(100), random.IntN(1000), random.IntN(100), random.IntN(100)),
	}
	row.Email = fmt.Sprintf("user%06d@%s", random.IntN(1_000_000), mailboxes[random.IntN(len(mailboxes))])
	if i == searchedContacts-1 {
		row.Name = "Анастасия Зоркальцева"
	}
	return row
}

// searchBench is the same contacts twice: plain, for LIKE, and sealed.
type searchBench struct {
	db    *sql.DB
	kek   tink.AEADWithContext
	store *encryptsql.Store
}

func newSearchBench(b *testing.B) *searchBench {
	ctx := crmguard.System(b.Context(), "default", "import")
	dir := b.TempDir()
	db, err := sqldb.OpenSQLite(ctx, dir+"/crm.db")
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	for _, statement := range []string{
		`CREATE TABLE plain (id TEXT PRIMARY KEY, name TEXT, phone TEXT, email TEXT) WITHOUT ROWID`,
		`CREATE TABLE sealed (id TEXT PRIMARY KEY, name BLOB, phone BLOB, email BLOB) WITHOUT ROWID`,
	} {
		_, err := db.Exec(statement)
		require.NoError(b, err)
	}
	kek, err := encrypt.OpenKeyFile(b.TempDir()+"/kek.json", "", true)
	require.NoError(b, err)
	store, err := encryptsql.OpenSQLite(ctx, b.TempDir()+"/keys.db", true)
	require.NoError(b, err)
	b.Cleanup(func() { _ = store.Close() })
	s := &searchBench{db, kek, store}
	_, table := s.open(b)
	random := rand.New(rand.NewPCG(1, 2))
	for first := 0; first < searchedContacts; first += 500 {
		rows := make([]*searched, 500)
		for i := range rows {
			rows[i] = contactOf(first+i, random)
		}
		_, err := table.Seal(ctx, "default", rows...)
		require.NoError(b, err)
		tx, err := db.Begin()
		require.NoError(b, err)
		for _, row := range rows {
			_, err = tx.Exec(`INSERT INTO plain VALUES ($1, $2, $3, $4)`, row.ID, row.Name, row.Phone, row.Email)
			require.NoError(b, err)
			_, err = tx.Exec(`INSERT INTO sealed VALUES ($1, $2, $3, $4)`, row.ID, row.NameSealed, row.PhoneSealed, row.EmailSealed)
			require.NoError(b, err)
		}
		require.NoError(b, tx.Commit())
	}
	return s
}

// open returns a process of its own, which knows no keys yet.
func (s *searchBench) open(b *testing.B) (*encrypt.Keyring, *encrypt.Table[searched]) {
	keys, err := encrypt.New(s.kek, s.store, &encrypt.Options{
		CacheEntries: 3 * searchedContacts,
		OnOpen:       func(context.Context, string, []string) error { return nil },
	})
	require.NoError(b, err)
	table, err := encrypt.NewTable[searched](keys, "contacts", nil)
	require.NoError(b, err)
	return keys, table
}

// pageRows is what the example in the documentation does.
const pageRows = 500

func (s *searchBench) next(ctx context.Context, after *searched) ([]*searched, error) {
	last := ""
	if after != nil {
		last = after.ID
	}
	rows, err := s.db.QueryContext(ctx, `SELECT id, name, phone, email FROM sealed WHERE id > $1 ORDER BY id LIMIT $2`, last, pageRows)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	page := make([]*searched, 0, pageRows)
	for rows.Next() {
		row := &searched{}
		if err := rows.Scan(&row.ID, &row.NameSealed, &row.PhoneSealed, &row.EmailSealed); err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

func searching(b *testing.B) context.Context {
	ctx := crmguard.WithSubject(b.Context(), crmguard.Subject{Tenant: "default", ID: "anna", Kind: crmguard.KindEmployee})
	return crmguard.WithAct(ctx, crmguard.Search, crmguard.Resource{Tenant: "default", Kind: "contacts"})
}

func (s *searchBench) search(b *testing.B, table *encrypt.Table[searched]) {
	found, err := table.Search(searching(b), "default", encrypt.Query{
		Text: "зоркаль анаст", Fields: []string{"name", "phone", "email"}, Limit: 50,
	}, s.next)
	require.NoError(b, err)
	require.Len(b, found.Rows, 1)
	require.Equal(b, searchedContacts, found.Looked)
	require.Zero(b, found.Skipped)
}

// BenchmarkSearch: warm at most 6 times like, cold at most 25 times.
func BenchmarkSearch(b *testing.B) {
	s := newSearchBench(b)
	b.Run("like", func(b *testing.B) {
		for b.Loop() {
			var id string
			require.NoError(b, s.db.QueryRow(`SELECT id FROM plain WHERE (name LIKE $1 OR phone LIKE $2 OR email LIKE $3) AND (name LIKE $4 OR phone LIKE $5 OR email LIKE $6) LIMIT 50`,
				"%Зоркаль%", "%Зоркаль%", "%Зоркаль%", "%Анаст%", "%Анаст%", "%Анаст%").Scan(&id))
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			for last := (*searched)(nil); ; {
				rows, err := s.next(b.Context(), last)
				require.NoError(b, err)
				if len(rows) == 0 {
					break
				}
				last = rows[len(rows)-1]
			}
		}
	})
	b.Run("warm", func(b *testing.B) {
		keys, table := s.open(b)
		defer func() { require.NoError(b, keys.Close()) }()
		s.search(b, table)
		for b.Loop() {
			s.search(b, table)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			keys, table := s.open(b)
			s.search(b, table)
			require.NoError(b, keys.Close())
		}
	})
}
