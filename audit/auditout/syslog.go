package auditout

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	syslogFacility = 13 // log audit
	syslogApp      = "crmguard"
	syslogStamp    = "2006-01-02T15:04:05.000000Z07:00"
	closeTimeout   = 10 * time.Second
)

// Syslog is a [Sink] that sends messages of RFC 5424 over TLS (RFC 5425), each
// counted in octets (RFC 6587, section 3.4.1).
//
// The protocol has no receipts: bytes that the network has taken may never arrive. So
// each batch has a connection of its own, and counts as delivered when the receiver
// has read it to the end and closed its side. Many log servers close without saying so
// under TLS: who controls the network between can then make a batch look delivered
// that is not. Where that matters use [Webhook], whose answers are authenticated.
type Syslog struct {
	address  string
	config   *tls.Config
	format   Format
	hostname string
	dialer   net.Dialer
}

var _ Sink = (*Syslog)(nil)

// NewSyslog returns a sink at host:port, with the given lines as messages. A nil
// config, or one without ServerName, means that the receiver's certificate is for
// that host; it is always checked, by the config's RootCAs or those of the system.
// Certificates of the sender are in the config, too.
func NewSyslog(address string, config *tls.Config, f Format) (*Syslog, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, errors.New("auditout: a log server is host:port")
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if config.InsecureSkipVerify {
		return nil, errors.New("auditout: the certificate of a log server is checked")
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if config.ServerName == "" {
		config.ServerName = host
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	return &Syslog{address: address, config: config, format: f, hostname: name}, nil
}

// Send implements [Sink].
func (s *Syslog) Send(ctx context.Context, records []Record) error {
	var b []byte
	for i := range records {
		message, err := s.message(&records[i])
		if err != nil {
			return err
		}
		b = append(strconv.AppendInt(b, int64(len(message)), 10), ' ')
		b = append(b, message...)
	}
	if err := s.deliver(ctx, b); err != nil {
		return fmt.Errorf("auditout: syslog: %w", err)
	}
	return nil
}

func (s *Syslog) deliver(ctx context.Context, b []byte) error {
	raw, err := s.dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, s.config)
	defer conn.Close() //nolint:errcheck // what counts is that the receiver closed
	// Whatever blocks ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if ctx.Err() == nil {
		_ = raw.SetReadDeadline(time.Now().Add(closeTimeout))
	}
	// A receiver that was killed with something unread resets the connection.
	_, err = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // many close without the alert
		return fmt.Errorf("the receiver does not say that it has read all: %w", err)
	}
	return ctx.Err()
}

// message is one message: everything in its head that a text of an entry decides is
// printable ASCII without spaces, and its text is one line.
func (s *Syslog) message(r *Record) ([]byte, error) {
	e := &r.Event
	at := e.Time
	if at.IsZero() {
		at = r.Recorded
	}
	b := fmt.Appendf(nil, "<%d>1 %s %s %s %d %s - ", syslogFacility*8+syslogSeverity(e.Outcome), syslogTime(at),
		syslogName(s.hostname, 255), syslogApp, os.Getpid(), syslogName(string(e.Action), 32))
	b, err := s.format.Append(b, r)
	if err != nil {
		return nil, err
	}
	return b[:len(b)-1], nil // without the end of the line: messages are counted
}

func syslogTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(syslogStamp)
}

// syslogName makes a text a field of the head (RFC 5424, section 6).
func syslogName(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return '_'
		}
		return c
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

func syslogSeverity(o crmguard.Outcome) int {
	const failure, warning, notice, informational = 3, 4, 5, 6
	switch o {
	case crmguard.Done, crmguard.Attempted:
		return informational
	case crmguard.Denied:
		return notice
	case crmguard.Failed, crmguard.Undecided:
		return warning
	}
	return failure // an entry that cannot be read
}
