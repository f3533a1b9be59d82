package guardgrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// counter streams numbers until it is told to stop or has sent them all.
type counter struct {
	all     int
	ignores bool // goes on whatever SendMsg says
	between func(sent int)
}

func (n counter) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "export", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			for i := range n.all {
				if n.between != nil {
					n.between(i)
				}
				if err := stream.SendMsg(wrapperspb.String("row")); err != nil && !n.ignores {
					return fmt.Errorf("sending: %w", err)
				}
			}
			return nil
		},
	}}}
}

// export counts the rows that arrive.
func export(ctx context.Context, conn *grpc.ClientConn, m *structpb.Struct) (rows int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/crm.Suite/export")
	if err != nil {
		return 0, err
	}
	if m == nil {
		err = stream.CloseSend()
	} else {
		err = send(stream, m)
	}
	if err != nil {
		return 0, err
	}
	for {
		switch err := stream.RecvMsg(new(wrapperspb.StringValue)); {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return rows, err
		}
		rows++
	}
}

func all(context.Context, any) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts"}, nil
}

// A session that ends while a stream runs ends the stream, after 500 messages or two
// seconds, and the journal does not say that the act was done.
func TestRunningStreams(t *testing.T) {
	base := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		method  Method
		pause   time.Duration // after the tenth message
		ignores bool
		end     bool
		rows    int
		code    codes.Code
		journal []string
	}{
		"left alone":          {ProtectAct(crmguard.Export, all), time.Minute, false, false, 2000, codes.OK, []string{"anna attempted ", "anna done "}},
		"by count":            {ProtectAct(crmguard.Export, all), 0, false, true, 499, codes.Unauthenticated, []string{"anna attempted ", "anna failed error"}},
		"by time":             {ProtectAct(crmguard.Export, all), recheckAfter, false, true, 10, codes.Unauthenticated, []string{"anna attempted ", "anna failed error"}},
		"a little time":       {ProtectAct(crmguard.Export, all), recheckAfter - 1, false, true, 499, codes.Unauthenticated, []string{"anna attempted ", "anna failed error"}},
		"shown only":          {Protect(crmguard.View, contact), recheckAfter, false, true, 10, codes.Unauthenticated, []string{"anna done ", "anna failed error"}},
		"a handler goes on":   {ProtectAct(crmguard.Export, all), recheckAfter, true, true, 10, codes.Unauthenticated, []string{"anna attempted ", "anna failed error"}},
		"an open one goes on": {Open(), time.Minute, false, true, 2000, codes.OK, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newGuard(t, nil)
			s := newServer(c.guard, Methods{"/crm.Suite/export": tt.method})
			clock := crmguardtest.NewClock(base)
			s.now = clock.Now
			conn := serve(t, s, counter{all: 2000, ignores: tt.ignores, between: func(sent int) {
				if sent == 10 {
					clock.Advance(tt.pause)
					if tt.end {
						c.end()
					}
				}
			}}.desc())
			rows, err := export(as(t.Context(), "anna"), conn, message("1", ""))
			require.Equal(t, tt.code, status.Code(err))
			require.Equal(t, tt.rows, rows)
			require.Equal(t, tt.journal, c.short())
		})
	}
}

// What is received is checked, too: an import stops.
func TestReceivingIsChecked(t *testing.T) {
	c := newGuard(t, nil)
	s := newServer(c.guard, Methods{"/crm.Suite/import": ProtectAct(crmguard.Export, contact)})
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	s.now = clock.Now
	var got []string
	conn := serve(t, s, &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "import", ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				m := new(structpb.Struct)
				if err := stream.RecvMsg(m); err != nil {
					require.Error(t, context.Cause(stream.Context()))
					return err
				}
				got = append(got, m.GetFields()["id"].GetStringValue())
				if len(got) == 2 {
					c.end()
					clock.Advance(recheckAfter)
				}
			}
		},
	}}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(as(ctx, "anna"), &grpc.StreamDesc{ClientStreams: true}, "/crm.Suite/import")
	require.NoError(t, err)
	for _, id := range []string{"1", "2", "3"} { // the server may answer before the third
		if err := stream.SendMsg(message(id, "")); err != nil {
			require.ErrorIs(t, err, io.EOF)
		}
	}
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(new(wrapperspb.StringValue))))
	require.Equal(t, []string{"1", "2"}, got)
	require.Equal(t, "1", c.journal.Events()[0].Resource.ID)
}

// A session that ends while the client is silent ends the stream too: an import does
// not take its end for leave to commit.
func TestTheEndIsChecked(t *testing.T) {
	c := newGuard(t, nil)
	s := newServer(c.guard, Methods{"/crm.Suite/import": ProtectAct(crmguard.Export, contact)})
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	s.now = clock.Now
	received, committed := make(chan struct{}), false
	conn := serve(t, s, &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "import", ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			if err := stream.RecvMsg(new(structpb.Struct)); err != nil {
				return err
			}
			close(received)
			if err := stream.RecvMsg(new(structpb.Struct)); !errors.Is(err, io.EOF) {
				return err
			}
			committed = true
			return stream.SendMsg(wrapperspb.String("committed"))
		},
	}}})
	ctx, cancel := context.WithTimeout(as(t.Context(), "anna"), 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/crm.Suite/import")
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(message("1", "")))
	<-received
	c.end()
	clock.Advance(recheckAfter)
	require.NoError(t, stream.CloseSend())
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(new(wrapperspb.StringValue))))
	require.False(t, committed)
	require.Equal(t, []string{"anna attempted ", "anna failed error"}, c.short())
}

// A handler that works without a message is told through its context.
func TestSilentHandlersAreChecked(t *testing.T) {
	for name, m := range map[string]Method{"an act": ProtectAct(crmguard.Export, contact), "shown only": Protect(crmguard.View, contact)} {
		t.Run(name, func(t *testing.T) {
			c := newGuard(t, nil)
			s := newServer(c.guard, Methods{"/crm.Suite/export": m})
			s.every = time.Millisecond
			conn := serve(t, s, &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
				StreamName: "export", ServerStreams: true, ClientStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error {
					c.end()
					<-stream.Context().Done()
					denial, ok := errors.AsType[*crmguard.Denial](context.Cause(stream.Context()))
					if !ok || denial.Code != "ended" {
						t.Error("the handler was not told why:", context.Cause(stream.Context()))
					}
					return nil
				},
			}}})
			_, err := export(as(t.Context(), "anna"), conn, message("1", ""))
			require.Equal(t, codes.Unauthenticated, status.Code(err))
			require.Equal(t, "anna failed error", c.short()[1])
		})
	}
}

// Checks that find nothing wrong leave a stream alone, and one that panics refuses.
func TestChecksInTheBackground(t *testing.T) {
	for name, panics := range map[string]bool{"nothing wrong": false, "panic": true} {
		t.Run(name, func(t *testing.T) {
			c := newGuard(t, nil)
			s := newServer(c.guard, Methods{"/crm.Suite/export": ProtectAct(crmguard.Export, contact)})
			s.every = time.Millisecond
			conn := serve(t, s, &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
				StreamName: "export", ServerStreams: true, ClientStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error {
					c.mu.Lock()
					c.panics = panics
					c.mu.Unlock()
					for range 3 {
						select {
						case <-c.asked:
						case <-stream.Context().Done():
						}
					}
					return nil
				},
			}}})
			_, err := export(as(t.Context(), "anna"), conn, message("1", ""))
			if panics {
				require.Equal(t, codes.Internal, status.Code(err))
				require.Equal(t, []string{"anna attempted ", "anna failed error"}, c.short())
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"anna attempted ", "anna done "}, c.short())
		})
	}
}

func TestFirstMessage(t *testing.T) {
	c := newGuard(t, nil)
	conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/export": ProtectAct(crmguard.Export, contact)}), counter{all: 1}.desc())
	_, err := export(as(t.Context(), "anna"), conn, nil)
	require.Equal(t, codes.InvalidArgument, status.Code(err), "no message")
	require.Empty(t, c.journal.Events())

	other := func(context.Context, *wrapperspb.BytesValue) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}, nil
	}
	for _, k := range []kind{unary, bidi} {
		conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/show": Protect(crmguard.View, other)}), service(k, map[string]handler{"show": yes}))
		_, err := invoke(as(t.Context(), "anna"), conn, k, "show", message("1", ""))
		require.Equal(t, codes.Internal, status.Code(err), "the loader is for another message")
	}
}

// closed is an emergency switch that is on.
type closed struct{}

func (closed) LockDown(context.Context, string) error           { return nil }
func (closed) Reopen(context.Context, string) error             { return nil }
func (closed) LockedDown(context.Context, string) (bool, error) { return true, nil }

// Whoever is not let in holds no stream open by sending nothing.
func TestStrangersAreNotWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		method Method
		person string
		ended  bool
		sw     guard.Switch
		want   codes.Code
	}{
		"nobody":           {ProtectAct(crmguard.Export, contact), "", false, nil, codes.Unauthenticated},
		"a session's end":  {ProtectAct(crmguard.Export, contact), "anna", true, nil, codes.Unauthenticated},
		"only to be shown": {Protect(crmguard.View, contact), "", false, nil, codes.Unauthenticated},
		"locked down":      {Protect(crmguard.View, contact), "anna", false, closed{}, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			c := newGuard(t, &guard.Options{Switch: tt.sw})
			if tt.ended {
				c.end()
			}
			conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/export": tt.method}), counter{all: 1}.desc())
			ctx, cancel := context.WithTimeout(as(t.Context(), tt.person), 10*time.Second)
			defer cancel()
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/crm.Suite/export")
			require.NoError(t, err)
			require.Equal(t, tt.want, status.Code(stream.RecvMsg(new(wrapperspb.StringValue))))
			require.Empty(t, c.journal.Events())
		})
	}
}

// Who took long to send the first message is asked again who they are before the
// loader sees it.
func TestSlowFirstMessage(t *testing.T) {
	c := newGuard(t, nil)
	loaded := func(ctx context.Context, m *structpb.Struct) (crmguard.Resource, error) {
		t.Error("the loader ran")
		return contact(ctx, m)
	}
	conn := serve(t, newServer(c.guard, Methods{"/crm.Suite/export": ProtectAct(crmguard.Export, loaded)}), counter{all: 1}.desc())
	ctx, cancel := context.WithTimeout(as(t.Context(), "anna"), 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/crm.Suite/export")
	require.NoError(t, err)
	select {
	case <-c.asked:
	case <-ctx.Done():
		require.Fail(t, "nobody was asked before the message")
	}
	c.end()
	require.NoError(t, stream.SendMsg(message("1", "")))
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(new(wrapperspb.StringValue))))
	require.Empty(t, c.journal.Events())
}
