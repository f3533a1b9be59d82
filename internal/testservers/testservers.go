// Package testservers starts throwaway servers for tests and benchmarks: a
// PostgreSQL on a free loopback port, with its data in a temporary folder and a
// random password, so that other users of the machine cannot enter it.
//
//	server, err := testservers.StartPostgres(ctx)
//	if errors.Is(err, testservers.ErrNotInstalled) { ... }
//	defer server.Stop()
//	os.Setenv(testservers.PostgresVariable, server.URL())
//
// On Linux a server does not outlive the process that started it, even if that
// is killed; its folder is then left behind.
package testservers

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PostgresVariable is the environment variable that names the server for tests.
const PostgresVariable = "CRMGUARD_TEST_POSTGRES"

// ErrNotInstalled means that the programs of the server were not found.
var ErrNotInstalled = errors.New("testservers: not installed")

const (
	user         = "crmguard"
	startTimeout = time.Minute // initdb and start take two seconds on an idle machine
	stopTimeout  = 10 * time.Second
	pollEvery    = 20 * time.Millisecond
	portAttempts = 3 // somebody else may take the port between our finding and our using it
)

// Postgres is a running server.
type Postgres struct {
	bin      string
	own      *account
	settings []string
	port     int
	dir      string
	url      string
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	stop     func() error
}

// StartPostgres makes an empty cluster and starts it. Cancelling ctx ends only
// the start; [Postgres.Stop] ends the server.
func StartPostgres(ctx context.Context) (*Postgres, error) { return startFound(ctx, quick) }

// StartDurablePostgres is StartPostgres for a server that flushes each commit to the
// disk, as one does by default: for measurements.
func StartDurablePostgres(ctx context.Context) (*Postgres, error) { return startFound(ctx, nil) }

// quick are settings of a server whose data nobody misses.
var quick = []string{"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"}

func startFound(ctx context.Context, settings []string) (*Postgres, error) {
	bin, err := FindPostgres()
	if err != nil {
		return nil, err
	}
	return start(ctx, bin, settings)
}

// URL is how clients reach the server. It carries the password.
func (p *Postgres) URL() string { return p.url }

// Stop ends the server and removes its folder. A second call does nothing and
// returns what the first did.
func (p *Postgres) Stop() error { return p.stop() }

// FindPostgres returns the folder that holds initdb and postgres: from PATH, or
// else where Debian installs the newest version.
func FindPostgres() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		// PATH may hold links to some of the programs only.
		if real, err := filepath.EvalSymlinks(path); err == nil && hasPrograms(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("testservers: %w", err)
	}
	best, newest := "", -1
	for _, dir := range found {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err == nil && version > newest && hasPrograms(dir) {
			best, newest = dir, version
		}
	}
	if best == "" {
		return "", fmt.Errorf("%w: PostgreSQL (initdb and postgres, in PATH or /usr/lib/postgresql)", ErrNotInstalled)
	}
	return best, nil
}

func hasPrograms(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

func start(ctx context.Context, bin string, settings []string) (_ *Postgres, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "crmguard-postgres-")
	if err != nil {
		return nil, fmt.Errorf("testservers: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	own, err := unprivileged()
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	if err := initCluster(ctx, bin, dir, password, own); err != nil {
		return nil, err
	}
	for attempt := range portAttempts {
		var p *Postgres
		p, err = serve(ctx, bin, dir, password, own, settings)
		if err == nil {
			return p, nil
		}
		if ctx.Err() != nil || attempt == portAttempts-1 {
			break
		}
	}
	return nil, err
}

func initCluster(ctx context.Context, bin, dir, password string, own *account) error {
	passwordFile := filepath.Join(dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return fmt.Errorf("testservers: %w", err)
	}
	if err := own.give(dir, passwordFile); err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), // #nosec G204 -- the folder was searched by FindPostgres
		"--pgdata="+filepath.Join(dir, "data"), "--username="+user, "--pwfile="+passwordFile, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	initdb.Dir = dir
	own.prepare(initdb)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("testservers: initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Remove(passwordFile); err != nil {
		return fmt.Errorf("testservers: %w", err)
	}
	return nil
}

// serve runs the server on a free port.
func serve(ctx context.Context, bin, dir, password string, own *account, settings []string) (*Postgres, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: address, Path: "/postgres", RawQuery: "sslmode=disable"}
	p := &Postgres{bin: bin, own: own, settings: settings, port: port, dir: dir, url: u.String()}
	p.stop = sync.OnceValue(func() error { return errors.Join(p.end(), os.RemoveAll(dir)) })
	return p, p.launch(ctx)
}

// Crash ends the server in the middle of whatever it does, and starts it again at the
// same address. With synchronous_commit=on in a connection, what was committed there is
// recovered. It must not be called beside Stop.
func (p *Postgres) Crash(ctx context.Context) error {
	if err := p.cmd.Process.Signal(crashSignal); err != nil {
		return fmt.Errorf("testservers: crashing postgres: %w", err)
	}
	<-p.done
	return p.launch(ctx)
}

// launch starts the process and waits until it accepts connections.
func (p *Postgres) launch(ctx context.Context) error {
	var log bytes.Buffer // read only after the process has ended
	data := filepath.Join(p.dir, "data")
	args := []string{"-D", data, "-p", strconv.Itoa(p.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300"}
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), append(args, p.settings...)...) // #nosec G204 -- as above
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.dir, &log, &log, stopTimeout       // children may hold the log open
	p.own.prepare(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("testservers: %w", err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		// The exit status of a server that was told to stop says nothing, and that
		// of one that died early stands in its log.
		_ = cmd.Wait()
		close(done)
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ready, err := isReady(data)
		if ready {
			return nil
		}
		if err != nil {
			return errors.Join(err, p.end())
		}
		select {
		case <-p.done:
			return fmt.Errorf("testservers: postgres ended: %s", bytes.TrimSpace(log.Bytes()))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("testservers: waiting for postgres: %w", ctx.Err()), p.end())
		case <-tick.C:
		}
	}
}

// isReady reads the status line of postmaster.pid, as pg_ctl does, so that no
// client is needed.
func isReady(data string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid")) // #nosec G304 -- in our own temporary folder
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("testservers: %w", err)
	}
	const statusLine = 8
	lines := strings.Split(string(text), "\n")
	return len(lines) >= statusLine && strings.TrimSpace(lines[statusLine-1]) == "ready", nil
}

// end stops the process: fast, then at once, then by force.
func (p *Postgres) end() error {
	for _, sig := range stopSignals {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("testservers: stopping postgres: %w", err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(stopTimeout):
		}
	}
	return fmt.Errorf("testservers: postgres, process %d, does not end", p.cmd.Process.Pid)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("testservers: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("testservers: %w", err)
	}
	return port, nil
}
