package guardgrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// crm is a small host: every token is the name of its person, as long as the session
// is not ended; records are anna's.
type crm struct {
	guard   *guard.Guard
	journal *crmguardtest.Recorder

	asked chan struct{} // has one after each question about a token

	mu     sync.Mutex
	ended  bool
	panics bool
	edge   *http.Request
}

func (c *crm) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.asked <- struct{}{}:
	default:
	}
	if c.panics {
		panic("planted")
	}
	if c.ended {
		return crmguard.Subject{}, &crmguard.Denial{By: "session", Code: "ended", Status: crmguard.Unauthenticated}
	}
	return crmguard.Subject{Tenant: "acme", ID: token, Kind: crmguard.KindEmployee}, nil
}

func (c *crm) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
}

func (*crm) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return nil, nil, nil
}

func newGuard(t *testing.T, o *guard.Options) *crm {
	c := &crm{journal: crmguardtest.NewRecorder(), asked: make(chan struct{}, 1)}
	if o == nil {
		o = &guard.Options{}
	}
	o.Logger = slog.New(slog.DiscardHandler)
	o.Edge = func(r *http.Request) (netip.Addr, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.edge = r
		return netip.MustParseAddr("192.0.2.1"), nil
	}
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts").Allow("anna", crmguard.Export, "contacts")
	g, err := guard.New(c, rights, c, c.journal, o)
	require.NoError(t, err)
	c.guard = g
	return c
}

func contact(_ context.Context, m *structpb.Struct) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: m.GetFields()["id"].GetStringValue()}, nil
}

func yes(context.Context, *structpb.Struct) (*wrapperspb.StringValue, error) {
	return wrapperspb.String("yes"), nil
}

// short is the journal in words.
func (c *crm) short() (short []string) {
	for _, e := range c.journal.Events() {
		short = append(short, fmt.Sprintf("%s %s %s", e.Subject.ID, e.Outcome, e.Reason))
	}
	return short
}

func TestMethodsThatAreNotInTheTable(t *testing.T) {
	for _, k := range []kind{unary, serverStream, bidi} {
		c := newGuard(t, nil)
		conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Open()}), service(k, map[string]handler{
			"hidden": func(context.Context, *structpb.Struct) (*wrapperspb.StringValue, error) {
				t.Error("the handler ran")
				return nil, nil
			},
		}))
		_, err := invoke(as(t.Context(), "anna"), conn, k, "hidden", message("1", ""))
		require.Equal(t, codes.PermissionDenied, status.Code(err))
	}
}

func TestTokens(t *testing.T) {
	c := newGuard(t, nil)
	conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Protect(crmguard.View, contact)}), service(unary, map[string]handler{"show": yes}))
	for _, tt := range []struct {
		name string
		md   metadata.MD
		want codes.Code
	}{
		{"bearer", metadata.Pairs("authorization", "Bearer anna"), codes.OK},
		{"in another case", metadata.Pairs("Authorization", "bEARER  anna"), codes.OK},
		{"none", nil, codes.Unauthenticated},
		{"two", metadata.Pairs("authorization", "Bearer anna", "authorization", "Bearer boris"), codes.Unauthenticated},
		{"basic", metadata.Pairs("authorization", "Basic anna"), codes.Unauthenticated},
		{"empty", metadata.Pairs("authorization", "Bearer "), codes.Unauthenticated},
		{"bare", metadata.Pairs("authorization", "anna"), codes.Unauthenticated},
		{"with another in it", metadata.Pairs("authorization", "Bearer anna; __Host-session=boris"), codes.Unauthenticated},
		{"quoted", metadata.Pairs("authorization", `Bearer "anna"`), codes.Unauthenticated},
		{"a cookie", metadata.Pairs("cookie", "__Host-session=anna"), codes.Unauthenticated},
		{"a cookie beside", metadata.Pairs("cookie", "__Host-session=boris", "authorization", "Bearer anna"), codes.OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := invoke(metadata.NewOutgoingContext(t.Context(), tt.md), conn, unary, "show", message("1", ""))
			require.Equal(t, tt.want, status.Code(err))
		})
	}
	for _, e := range c.journal.Events() {
		require.Equal(t, "anna", e.Subject.ID)
	}
}

// What the edge decides on arrives: the connection's address and every value.
func TestEdge(t *testing.T) {
	c := newGuard(t, nil)
	conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Protect(crmguard.View, contact)}), service(unary, map[string]handler{"show": yes}))
	ctx := metadata.AppendToOutgoingContext(as(t.Context(), "anna"),
		"x-forwarded-for", "198.51.100.1", "X-Forwarded-For", "203.0.113.7", "x-trace-bin", "\x00", "accept", "text/html")
	_, err := invoke(ctx, conn, unary, "show", message("1", ""))
	require.NoError(t, err)
	require.Equal(t, []string{"198.51.100.1", "203.0.113.7"}, c.edge.Header.Values("X-Forwarded-For"))
	require.True(t, netip.MustParseAddrPort(c.edge.RemoteAddr).Addr().IsLoopback())
	require.Equal(t, conn.Target(), c.edge.Host)
	require.Equal(t, "/crm.Suite/show", c.edge.URL.Path)
	for _, name := range []string{"Authorization", "Accept", "X-Trace-Bin", ":authority"} {
		require.NotContains(t, c.edge.Header, name)
	}
	require.Equal(t, "192.0.2.1", c.journal.Events()[0].Subject.Addr.String())
}

// Errors are no pages, also where the host has some.
func TestPagesAreForBrowsers(t *testing.T) {
	c := newGuard(t, &guard.Options{Page: func(http.ResponseWriter, *http.Request, guard.Problem) { t.Error("called") }})
	conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Protect(crmguard.View, contact)}), service(unary, map[string]handler{"show": yes}))
	ctx := metadata.AppendToOutgoingContext(as(t.Context(), "boris"), "accept", "text/html")
	_, err := invoke(ctx, conn, unary, "show", message("1", ""))
	require.Equal(t, codes.NotFound, status.Code(err))
}

// A status of the handler is shown with its details, one that is the server's is not.
func TestStatusOfHandlers(t *testing.T) {
	detailed, err := status.New(codes.InvalidArgument, "no such date").WithDetails(&errdetails.ErrorInfo{Reason: "date"})
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		err  error
		want codes.Code
		text string
	}{
		"a client's mistake": {detailed.Err(), codes.InvalidArgument, "no such date"},
		"a limit":            {status.Error(codes.ResourceExhausted, "too many"), codes.ResourceExhausted, "too many"},
		"absent":             {status.Error(codes.NotFound, "boom"), codes.NotFound, "Not Found"},
		"a rule":             {status.Error(codes.FailedPrecondition, "closed books"), codes.FailedPrecondition, "closed books"},
		"not there":          {status.Error(codes.Unavailable, "dial tcp 10.0.0.1:5432: connect: connection refused"), codes.Unavailable, "Unavailable"},
		"late":               {status.Error(codes.DeadlineExceeded, "boom"), codes.DeadlineExceeded, "DeadlineExceeded"},
		"gone":               {status.Error(codes.Canceled, "boom"), codes.Canceled, "Canceled"},
		"not made":           {status.Error(codes.Unimplemented, "unknown method Boom"), codes.Unimplemented, "Unimplemented"},
		"a new code":         {status.Error(codes.Code(99), "boom"), codes.Internal, "Internal Server Error"},
		"data loss":          {status.Error(codes.DataLoss, "boom"), codes.Internal, "Internal Server Error"},
		"internal":           {status.Error(codes.Internal, "boom"), codes.Internal, "Internal Server Error"},
		"unknown":            {status.Error(codes.Unknown, "boom"), codes.Internal, "Internal Server Error"},
		"wrapped":            {fmt.Errorf("boom: %w", detailed.Err()), codes.Internal, "Internal Server Error"},
		"plain":              {errors.New("boom"), codes.Internal, "Internal Server Error"},
		"a problem of guard": {&guard.Problem{Status: 422, Title: "Short", Detail: "Too short"}, codes.InvalidArgument, "Too short"},
		"a planted marker":   {&guard.Problem{Status: 422, Title: "Short", Code: codeStatus}, codes.InvalidArgument, "Short"},
	} {
		for _, k := range []kind{unary, bidi} {
			for _, m := range []Method{Protect(crmguard.View, contact), Open()} {
				c := newGuard(t, nil)
				conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": m}), service(k, map[string]handler{
					"show": func(context.Context, *structpb.Struct) (*wrapperspb.StringValue, error) { return nil, tt.err },
				}))
				_, err := invoke(as(t.Context(), "anna"), conn, k, "show", message("1", ""))
				require.Equal(t, tt.want, status.Code(err), name)
				require.Equal(t, tt.text, status.Convert(err).Message(), name)
				if name == "a client's mistake" {
					require.Len(t, status.Convert(err).Details(), 1)
				}
			}
		}
	}
}

// What the client is not told of a status is in the log, unless the client has hung up.
func TestStatusInTheLog(t *testing.T) {
	for code, logged := range map[codes.Code]bool{codes.Unavailable: true, codes.DeadlineExceeded: true, codes.Unimplemented: true, codes.Internal: true, codes.Canceled: false} {
		var c call
		var log bytes.Buffer
		g, err := guard.New(&crm{}, crmguardtest.NewChecker(), &crm{}, crmguardtest.NewRecorder(), &guard.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		g.WriteError(&recorder{header: http.Header{}}, &http.Request{}, c.shown(status.Error(code, "connection refused")))
		require.Equal(t, logged, strings.Contains(log.String(), "connection refused"), code)
	}
}

// A loader's status about a record is shown to who may do the act, and to nobody else.
func TestStatusOfLoaders(t *testing.T) {
	for person, want := range map[string]codes.Code{"anna": codes.Aborted, "boris": codes.NotFound} {
		c := newGuard(t, nil)
		conflict := func(ctx context.Context, m *structpb.Struct) (crmguard.Resource, error) {
			r, _ := contact(ctx, m)
			return r, status.Error(codes.Aborted, "changed meanwhile")
		}
		conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Protect(crmguard.View, conflict)}), service(unary, map[string]handler{"show": yes}))
		_, err := invoke(as(t.Context(), person), conn, unary, "show", message("1", ""))
		require.Equal(t, want, status.Code(err))
	}
}

func TestMountingNonsensePanics(t *testing.T) {
	g := newGuard(t, nil).guard
	var none func(context.Context, *structpb.Struct) (crmguard.Resource, error)
	require.Panics(t, func() { ServerOptions(g, Methods{"/a/b": Protect(crmguard.Delete, contact)}) })
	require.Panics(t, func() { ServerOptions(g, Methods{"/a/b": {}}) })
	require.Panics(t, func() { ProtectAct(crmguard.Delete, none) })
	require.Panics(t, func() {
		Protect(crmguard.View, func(context.Context, string) (crmguard.Resource, error) { return crmguard.Resource{}, nil })
	})
	require.Len(t, ServerOptions(g, Methods{"/a/b": ProtectAct(crmguard.Delete, contact)}), 2)
}
