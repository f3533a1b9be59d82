package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// TestMain also is the child process that a test kills while it imports.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CRM_TEST_IMPORT"); dir != "" {
		_, err := New(context.Background(), Config{
			Data: filepath.Join(dir, "crm-data"), DB: PostgresURL(os.Getenv("CRM_TEST_DB")), Keys: filepath.Join(dir, "crm-keys"),
			Loopback: true, Contacts: sample(3000),
			Progress: func(r ImportReport) { fmt.Println(r.Added) }, Logger: slog.New(slog.DiscardHandler),
		})
		fmt.Println("end", err)
		os.Exit(0)
	}
	os.Exit(withFoundings(m.Run))
}

func (in *installation) count() (n int) {
	in.t.Helper()
	require.NoError(in.t, in.app.db.QueryRowContext(in.t.Context(), `SELECT COUNT(*) FROM contacts`).Scan(&n))
	return n
}

func (in *installation) importing() context.Context {
	return crmguard.System(in.t.Context(), tenant, "import")
}

func TestImportTwice(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1100))
		require.Equal(t, 1100, in.count())
		report, err := in.app.Import(in.importing(), sample(1100), nil, nil)
		require.NoError(t, err)
		require.Equal(t, ImportReport{Rows: 1100, Duplicates: 1100}, report)
		require.Equal(t, 1100, in.count())

		// The same rows in other words: another order of columns, another separator,
		// other headers, another spelling of a phone.
		other := "Телефон;Клиент;email;company;city;note;owner;department;country\n" +
			"+79165550000;Quillfeather0000 Имярек;quill0000@example.org;Zanzibar0000 Works;Umbridge0000;Whisper0000: call 8 916 777-00-00, card 4111 1111 1111 1111;seller1;Sales;ru\n"
		report, err = in.app.Import(in.importing(), []byte(other), map[string]string{"name": "Клиент", "phone": "Телефон"}, nil)
		require.NoError(t, err)
		require.Equal(t, ImportReport{Rows: 1, Duplicates: 1}, report)

		// One entry in the journal for each batch, with its count.
		require.Eventually(t, func() bool { return in.imported() == 1100 }, 10*time.Second, 20*time.Millisecond)
		page, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Action: crmguard.Import})
		require.NoError(t, err)
		require.Len(t, page.Entries, 3)
	})
}

// imported is how many rows the journal says were imported. Entries of a
// transaction are found moments after it.
func (in *installation) imported() (rows int) {
	in.t.Helper()
	for q := (audit.Query{Tenant: tenant, Action: crmguard.Import, Limit: 100}); ; {
		page, err := in.app.journal.Find(in.t.Context(), q)
		require.NoError(in.t, err)
		for _, e := range page.Entries {
			rows += e.Event.Count
		}
		if q.Before = page.Next; q.Before == 0 {
			return rows
		}
	}
}

// TestForgottenLeavesNoKey: after a client was forgotten nothing is left that was
// made from the row, so that the row can come in again as a new client.
func TestForgottenLeavesNoKey(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		in.signedIn("owner").post("/contacts/"+in.idOf(1)+"/forget", "reason", "client-request")
		report, err := in.app.Import(in.importing(), sample(3), nil, nil)
		require.NoError(t, err)
		require.Equal(t, ImportReport{Rows: 3, Added: 1, Duplicates: 2}, report)
	})
}

func TestImportOfDirtyRows(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		lines := []string{
			"\ufeffname,phone,email,note,owner,department,country",
			"Good One,8 916 123-45-67,one@example.org,,seller1,,RU",   // 2
			",8 916 123-45-68,,,seller1,,RU",                          // 3: no name
			"Bad Mail,,spoilt,,seller1,,",                             // 4: address
			"Bad Phone,12,,,seller1,,",                                // 5
			"Few Columns,8 916 123-45-69",                             // 6
			"Unknown,,,,stranger,,",                                   // 7
			"Elsewhere,,,,,Mars,",                                     // 8
			"Stray \"Quote,,,,seller1,,",                              // 9
			"Good Two,,,\"two\nlines\",seller1,,",                     // 10 and 11
			"Stray \"Again,8 916,,,seller1,,",                         // 12
			"Good Three,,three@example.org,,,Support,",                // 13
			"Bytes \xc0\xd0,,,,seller1,,",                             // 14
			"Good One,+79161234567,one@example.org,,seller1,Sales,RU", // 15: the first again
			"Nobody's,,,,,,",                                          // 16: no department
			"Long,,," + strings.Repeat("x", 4001) + ",seller1,,",      // 17
			"Formula,=1+1,,,seller1,,",                                // 18
			"Starred,,a***@gmail.com,,seller1,,",                      // 19: masked elsewhere
			"Masked &bull;&bull;&bull;,,,,seller1,,",                  // 20: masked here
			"Good Four,,,\"=cmd|' /C calc'!A0\",seller1,,",            // 21: text stays text
		}
		report, err := in.app.Import(in.importing(), []byte(strings.Join(lines, "\n")), nil, nil)
		require.NoError(t, err)
		require.Equal(t, 4, report.Added)
		require.Equal(t, 1, report.Duplicates)
		require.Equal(t, 4, in.count())
		var bad []int
		for _, b := range report.Bad {
			bad = append(bad, b.Line)
			require.NotEmpty(t, b.Reason)
			for _, value := range []string{"916", "spoilt", "stranger", "Mars", "Stray"} {
				require.NotContains(t, b.Reason, value, "reasons go to a terminal and name no values")
			}
		}
		require.Equal(t, []int{3, 4, 5, 6, 7, 8, 9, 12, 14, 16, 17, 18, 19, 20}, bad)
		require.Equal(t, 19, report.Rows)

		for name, file := range map[string]string{
			"empty": "", "no name": "phone,email\n1,2\n", "twice": "name,name\na,b\n", "not UTF-8": "\xc8\xec\xff,phone\na,b\n",
		} {
			_, err := in.app.Import(in.importing(), []byte(file), nil, nil)
			require.Error(t, err, name)
		}
		_, err = in.app.Import(in.importing(), []byte("Anna Petrova,+79161234567\nBoris,12\n"), nil, nil)
		require.ErrorContains(t, err, "header")
		require.NotContains(t, err.Error(), "Petrova", "a first line may be somebody's data")
		_, err = in.app.Import(in.importing(), []byte("name\nx\n"), map[string]string{"phone": "Телефон"}, nil)
		require.ErrorContains(t, err, "Телефон")
		require.Equal(t, 4, in.count())
	})
}

// TestNoteIsNoRow: whatever is wrong with the quotes of a row, no line of a note,
// its own or another row's, is taken for a row.
func TestNoteIsNoRow(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		const head = "name,phone,note,owner\nAbove,,,seller1\n"
		const inside = "\nPlanted,+79160000000,,seller1\n"
		for name, file := range map[string]string{
			"stray quote below":       head + "Anna,,\"one" + inside + "a \"stray\" one\",seller1\nBelow,,,seller1\n",
			"text after the quote":    head + "Anna,,\"one" + inside + "\"x,seller1\nBelow,,,seller1\n",
			"never closed":            head + "Anna,,\"one" + inside + "Below,,,seller1\n",
			"opened by the row above": head + "\"Anna,,,seller1\nBoris,,\"one" + inside + "two\",seller1\n",
			"closed by the row below": head + "\"Anna,,,seller1\nBoris,,\"" + inside + "\",seller1\n",
			"stray and then opened":   head + "Stray \"Anna,,\"one" + inside + "two\",seller1\n",
			"blank before the quote":  head + "Anna,, \"one" + inside + "two\",seller1\n",
			"a column too many":       head + "Anna,,,\"one" + inside + "two\",seller1\n",
		} {
			t.Run(name, func(t *testing.T) {
				report, err := in.app.Import(in.importing(), []byte(file), nil, nil)
				require.ErrorContains(t, err, "line 3")
				require.NotContains(t, err.Error(), "Anna")
				require.Len(t, report.Bad, 1)
				require.Equal(t, 3, report.Bad[0].Line)
				require.Equal(t, 1, in.count(), "what stands above, and nothing else")
			})
		}
	})
}

func TestParseMapping(t *testing.T) {
	mapping, err := ParseMapping("name=Имя клиента, phone=Телефон")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"name": "Имя клиента", "phone": "Телефон"}, mapping)
	for _, text := range []string{"name", "name=", "age=Возраст"} {
		_, err := ParseMapping(text)
		require.Error(t, err, text)
	}
}

// TestKilledWhileImporting: a process that is killed in the middle leaves whole
// batches, and the next start adds what is missing, nothing twice.
func TestKilledWhileImporting(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		child := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test itself
		child.Env = append(os.Environ(), "CRM_TEST_IMPORT="+filepath.Dir(in.cfg.Data), "CRM_TEST_DB="+string(in.cfg.DB))
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			require.NotContains(t, lines.Text(), "end", "it came to its end before it was killed")
			if lines.Text() >= "1000" && len(lines.Text()) >= 4 {
				break
			}
		}
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())

		ctx := t.Context()
		db, err := openStore(ctx, in.cfg)
		require.NoError(t, err)
		var rows, indexed int
		require.NoError(t, db.QueryRowContext(ctx, `SELECT COUNT(*) FROM contacts`).Scan(&rows))
		require.NoError(t, db.QueryRowContext(ctx, `SELECT COUNT(DISTINCT record) FROM crmguard_index`).Scan(&indexed))
		require.NoError(t, db.close())
		require.GreaterOrEqual(t, rows, 1000)
		require.Less(t, rows, 3000)
		require.Zero(t, rows%maxBatch, "whole batches only")
		require.Equal(t, rows, indexed, "each row with its index entries")

		in.cfg.Contacts = sample(3000)
		in.start()
		require.Equal(t, 3000, in.count())
		require.Eventually(t, func() bool { return in.imported() == 3000 }, 10*time.Second, 20*time.Millisecond,
			"the journal knows of each row, once")
		_, page := in.signedIn("owner").post("/contacts/search", "query", phoneOf(2999))
		has(t, page, "1 contact found")
		report, err := in.app.journal.Verify(ctx, in.app.vault.verifier, nil)
		require.NoError(t, err)
		require.True(t, report.OK(), report.Detail)
	})
}

// FuzzCSV: no file makes the reader panic, stop before the end, or name a line
// that the file does not have.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("name,phone\na,b\n"))
	f.Add([]byte("name;phone\r\n\"a\"\"b\";c\r\n"))
	f.Add([]byte("name\n\"a\nb\nc"))
	f.Add([]byte("name\n\n\n\"\n\"x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := openCSV(data, nil)
		if err != nil {
			return
		}
		last := bytes.Count(data, []byte("\n")) + 1
		previous := 0
		for range last + 1 {
			row, err := file.next()
			if errors.Is(err, io.EOF) {
				return
			}
			line := row.line
			if bad, ok := errors.AsType[*csvError](err); ok {
				if line = bad.line; bad.lost {
					_, err := file.next()
					require.ErrorIs(t, err, io.EOF)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if line <= previous || line > last {
				t.Fatalf("line %d after %d of %d", line, previous, last)
			}
			previous = line
		}
		t.Fatal("more rows than lines")
	})
}
