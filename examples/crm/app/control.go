package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/crmguard/crmguard"
)

// The control socket lies in the keys folder: whoever can reach it could open all
// the data anyway, so that it asks for no password. It speaks HTTP.

// maxImport is the size of the largest file that is imported.
const maxImport = 256 << 20

func socketPath(keys string) string { return filepath.Join(keys, "control.sock") }

// listenControl opens the socket. The vault holds the lock on the keys folder, so
// that no other process serves there: a socket that is there was left by a crash.
func (a *App) listenControl() (net.Listener, error) {
	path := socketPath(a.cfg.Keys)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("control socket: the path %s is too long for a socket: use a keys folder with a shorter path", path)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // the folder is 0700, so there was no moment to slip in
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// controlLine is one line of an answer: JSON, the last one with Done or Error.
type controlLine struct {
	Import   *ImportReport `json:"import,omitempty"`
	Password string        `json:"password,omitempty"`
	Wait     time.Duration `json:"wait,omitempty"` // until there is a code
	Code     string        `json:"code,omitempty"`
	Version  int64         `json:"version,omitempty"` // of the rules that are in force now
	Done     bool          `json:"done,omitempty"`
	Error    string        `json:"error,omitempty"`
}

func (a *App) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /import", command(func(w http.ResponseWriter, r *http.Request, say func(controlLine)) (controlLine, error) {
		file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxImport))
		if err != nil {
			return controlLine{}, fmt.Errorf("the file was not read: %w", err)
		}
		mapping := map[string]string{}
		for column := range r.URL.Query() {
			mapping[column] = r.URL.Query().Get(column)
		}
		ctx := crmguard.System(r.Context(), tenant, "import")
		report, err := a.Import(ctx, file, mapping, func(report ImportReport) {
			report.Bad = nil // they come once, at the end
			say(controlLine{Import: &report})
		})
		return controlLine{Import: &report}, err
	}))
	mux.HandleFunc("POST /accounts", command(func(w http.ResponseWriter, r *http.Request, _ func(controlLine)) (controlLine, error) {
		var n NewAccount
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForm)).Decode(&n); err != nil {
			return controlLine{}, err
		}
		secret, err := a.AddAccount(r.Context(), n)
		return controlLine{Password: secret}, err
	}))
	mux.HandleFunc("POST /codes", command(func(_ http.ResponseWriter, r *http.Request, say func(controlLine)) (controlLine, error) {
		code, err := a.DemoCode(r.Context(), r.URL.Query().Get("login"), func(wait time.Duration) { say(controlLine{Wait: wait}) })
		return controlLine{Code: code}, err
	}))
	mux.HandleFunc("POST /reopen", command(func(_ http.ResponseWriter, r *http.Request, _ func(controlLine)) (controlLine, error) {
		return controlLine{}, a.reopenHere(r.Context())
	}))
	mux.HandleFunc("POST /addresses/reset", command(func(_ http.ResponseWriter, r *http.Request, _ func(controlLine)) (controlLine, error) {
		version, err := a.resetAddresses(r.Context())
		return controlLine{Version: version}, err
	}))
	return mux
}

// command answers with the lines that do says, and with the one that it returns, which
// tells whether it was done.
func command(do func(w http.ResponseWriter, r *http.Request, say func(controlLine)) (last controlLine, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		say := lines(w)
		last, err := do(w, r, say)
		if last.Done = err == nil; err != nil {
			last.Error = err.Error()
		}
		say(last)
	}
}

// lines writes and flushes one line at a time.
func lines(w http.ResponseWriter) func(controlLine) {
	encoder := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	return func(line controlLine) {
		_ = encoder.Encode(line) //nolint:gosec // to whoever may see it; they may be gone
		_ = flush.Flush()
	}
}

// SendImport has the running CRM whose keys folder this is import a file, and
// returns what became of its rows.
func SendImport(ctx context.Context, keys string, file []byte, mapping map[string]string, progress func(ImportReport)) (ImportReport, error) {
	columns := url.Values{}
	for column, header := range mapping {
		columns.Set(column, header)
	}
	var report ImportReport
	err := control(ctx, keys, "/import?"+columns.Encode(), file, func(line controlLine) {
		if line.Import != nil {
			report = *line.Import
			if !line.Done && line.Error == "" {
				progress(report)
			}
		}
	})
	return report, err
}

// SendAccount has the running CRM create an account, and returns its password.
func SendAccount(ctx context.Context, keys string, n NewAccount) (secret string, err error) {
	body, err := json.Marshal(n) //nolint:gosec // through the socket, to the CRM itself
	if err != nil {
		return "", err
	}
	err = control(ctx, keys, "/accounts", body, func(line controlLine) { secret = line.Password })
	return secret, err
}

// SendCode asks the running CRM for a code of a demo account: see [App.DemoCode].
func SendCode(ctx context.Context, keys, login string, waits func(time.Duration)) (code string, err error) {
	err = control(ctx, keys, "/codes?"+url.Values{"login": {login}}.Encode(), nil, func(line controlLine) {
		if line.Wait > 0 {
			waits(line.Wait)
		}
		code = line.Code
	})
	return code, err
}

// SendAddressReset has the running CRM remove all address rules, so that people come
// in from anywhere again, and returns the version of the rules after that.
func SendAddressReset(ctx context.Context, keys string) (version int64, err error) {
	err = control(ctx, keys, "/addresses/reset", nil, func(line controlLine) { version = line.Version })
	return version, err
}

// SendReopen has the running CRM end a lockdown.
func SendReopen(ctx context.Context, keys string) error {
	return control(ctx, keys, "/reopen", nil, func(controlLine) {})
}

// control sends a request through the socket and hands over the answer's lines.
func control(ctx context.Context, keys, path string, body []byte, each func(controlLine)) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath(keys))
		},
	}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://crm"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no CRM is running with the keys in %s: start it, or name its folder with -keys (%w)", keys, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	decoder := json.NewDecoder(answer.Body)
	for {
		var line controlLine
		if err := decoder.Decode(&line); err != nil {
			return fmt.Errorf("the CRM stopped before it was done; what it had done is kept, and the same command goes on from there: %w", err)
		}
		each(line)
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.Done:
			return nil
		}
	}
}
