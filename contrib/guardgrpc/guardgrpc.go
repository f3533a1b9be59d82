// Package guardgrpc mounts package guard in gRPC, unary calls and streams. It only
// translates: what is decided, recorded and refused is guard's, as with net/http.
//
//	methods := guardgrpc.Methods{
//		"/crm.Contacts/Show":   guardgrpc.Protect(crmguard.View, contactOf),
//		"/crm.Contacts/Reveal": guardgrpc.ProtectAct(crmguard.Reveal, phoneOf),
//		"/crm.Door/SignIn":     guardgrpc.Open(),
//	}
//	server := grpc.NewServer(guardgrpc.ServerOptions(g, methods)...)
//
// A method that is not in the table is refused. A loader gets the message of the
// call, such as func(ctx context.Context, m *crmpb.Contact) (crmguard.Resource, error). In
// a stream that is the first message, which is read once it is known who asks, before
// the decision, and handed to the handler after it; a loader whose parameter is of type
// any is asked when the stream opens, and gets nil. Handlers are those of the service,
// unchanged.
//
// The session's token comes as metadata "authorization: Bearer TOKEN". Other metadata
// reaches guard.Options.Edge as headers.
//
// # Errors
//
//	answer of guard          code                 details
//	401, nobody signed in    Unauthenticated
//	401, code step-up        FailedPrecondition   ErrorInfo metadata "need"
//	403                      PermissionDenied
//	404, also not visible    NotFound
//	409                      Aborted
//	410, erased              NotFound             ErrorInfo reason "erased"
//	429                      ResourceExhausted    RetryInfo
//	503                      Unavailable          RetryInfo, if known
//	another 4xx              InvalidArgument
//	another 5xx              Internal
//
// Each has an ErrorInfo of the domain "crmguard" with the code of the guard.Problem as
// its reason and the id of the request as metadata "instance". A status that a loader
// or handler returns itself reaches the client as it is, where guard would show a
// *guard.Problem; NotFound becomes guard.ErrNotFound, and Unknown, Internal and
// DataLoss lose their text, as every other error does.
//
// # Security notes
//
//   - Running streams are checked again with [guard.Guard.Recheck] every two seconds,
//     and before a message or the client's end of the stream passes, every 500 messages
//     and when two seconds have passed. A no cancels the handler's context: do the work
//     with it. Those of [Open] methods are not.
//   - Each message of a stream after the first may be about something else: for that
//     the handler calls guard.Guard.Check or Do.
//   - A panic ends the process, unless an interceptor before these recovers. One of a
//     handler was recorded by then; one of a loader was not, as nothing was done yet.
//   - The token is as good as the session: use transport credentials.
package guardgrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Methods says what each method does, by its full name, such as
// "/crm.Contacts/Show".
type Methods map[string]Method

// Method is what one method does and to what. Make one with [Protect], [ProtectAct]
// or [Open].
type Method struct {
	bind       func(g *guard.Guard, h guard.HandlerFunc) http.Handler
	newMessage func() proto.Message // nil: the decision needs no message
}

// Protect is [guard.Guard.Protect]: the method only shows.
func Protect[M any](a crmguard.Action, load func(ctx context.Context, message M) (crmguard.Resource, error)) Method {
	return method(load, func(g *guard.Guard, l guard.Loader, h guard.HandlerFunc) http.Handler { return g.Protect(a, l, h) })
}

// ProtectAct is [guard.Guard.ProtectAct]: the method changes, reveals or takes
// something out.
func ProtectAct[M any](a crmguard.Action, load func(ctx context.Context, message M) (crmguard.Resource, error)) Method {
	return method(load, func(g *guard.Guard, l guard.Loader, h guard.HandlerFunc) http.Handler { return g.ProtectAct(a, l, h) })
}

// Open is a method for everybody, such as signing in. Its context has the subject,
// if there is one, and no act. A stream keeps that subject until it ends, whatever
// becomes of the session: what lasts belongs behind [Protect] or [ProtectAct].
func Open() Method {
	return Method{bind: func(g *guard.Guard, h guard.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				g.WriteError(w, r, err)
			}
		})
	}}
}

func method[M any](load func(context.Context, M) (crmguard.Resource, error), protect func(*guard.Guard, guard.Loader, guard.HandlerFunc) http.Handler) Method {
	if load == nil {
		panic("guardgrpc: a loader is required")
	}
	m := Method{bind: func(g *guard.Guard, h guard.HandlerFunc) http.Handler {
		return protect(g, func(r *http.Request) (crmguard.Resource, error) {
			call := callOf(r)
			var message M
			if call.message != nil {
				var ok bool
				if message, ok = call.message.(M); !ok {
					return crmguard.Resource{}, fmt.Errorf("guardgrpc: the loader wants %T, the call has %T", message, call.message)
				}
			}
			resource, err := load(r.Context(), message)
			return resource, call.shown(err)
		}, h)
	}}
	t := reflect.TypeFor[M]()
	if t.Kind() == reflect.Interface {
		return m
	}
	if _, ok := reflect.TypeAssert[proto.Message](reflect.Zero(t)); !ok || t.Kind() != reflect.Pointer {
		panic(fmt.Sprintf("guardgrpc: a loader takes a message or any, not %s", t))
	}
	m.newMessage = func() proto.Message { return reflect.New(t.Elem()).Interface().(proto.Message) }
	return m
}

// ServerOptions are the interceptors that protect a server. It panics on what
// [guard.Guard.Protect] panics on. Interceptors in options before these run outside.
func ServerOptions(g *guard.Guard, methods Methods) []grpc.ServerOption {
	return newServer(g, methods).options()
}

func newServer(g *guard.Guard, methods Methods) *server {
	s := &server{guard: g, cookie: cookieName(g), methods: map[string]served{}, now: time.Now, every: recheckAfter}
	s.door = g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r)
		if _, c.ok = crmguard.SubjectFrom(r.Context()); !c.ok {
			g.WriteError(w, r, g.Check(r.Context(), crmguard.Access, crmguard.Resource{})) // says why there is none
		}
	}))
	for name, m := range methods {
		if m.bind == nil {
			panic(fmt.Sprintf("guardgrpc: %s: make a Method with Protect, ProtectAct or Open", name))
		}
		s.methods[name] = served{
			handler:    g.Handler(m.bind(g, func(_ http.ResponseWriter, r *http.Request) error { return callOf(r).run(r.Context()) })),
			newMessage: m.newMessage,
		}
	}
	return s
}

type server struct {
	guard   *guard.Guard
	cookie  string       // name under which guard looks for a session
	door    http.Handler // lets in whom guard knows
	methods map[string]served
	now     func() time.Time
	every   time.Duration // a running stream is checked again so often, whatever it does
}

func (s *server) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream)}
}

// served is a method that is mounted.
type served struct {
	handler    http.Handler
	newMessage func() proto.Message
}

var errNotInTable = status.Error(codes.PermissionDenied, "guardgrpc: the method is not in the table of what is protected how")

func (s *server) unary(ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m, ok := s.methods[info.FullMethod]
	if !ok {
		return nil, errNotInTable
	}
	var answer any
	err := s.serve(ctx, m.handler, info.FullMethod, &call{message: message, handle: func(ctx context.Context) (err error) {
		answer, err = handler(ctx, message)
		return err
	}})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// call is one call on its way through guard.
type call struct {
	message any
	handle  func(ctx context.Context) error

	ok     bool           // the handler ran and succeeded
	status *status.Status // what a loader or handler wants the client to be told
}

type callKey struct{}

func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) } // serve has put it there

func (c *call) run(ctx context.Context) error {
	err := c.shown(c.handle(ctx))
	c.ok = err == nil
	return err
}

// codeStatus marks the guard.Problem that stands for a status.
const codeStatus = "guardgrpc.status"

// shown makes a status that a client may be told of something that guard shows, where
// it shows anything.
func (c *call) shown(err error) error {
	told, ok := err.(interface{ GRPCStatus() *status.Status }) //nolint:errorlint // what wraps a status tells something else
	if !ok {
		return err
	}
	s := told.GRPCStatus()
	switch s.Code() {
	case codes.NotFound:
		return guard.ErrNotFound
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.AlreadyExists, codes.Aborted,
		codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated: // about the client
		c.status = s
		return &guard.Problem{Status: http.StatusBadRequest, Code: codeStatus}
	case codes.Unavailable, codes.DeadlineExceeded, codes.Unimplemented, codes.Canceled: // names what is behind the server
		c.status = status.New(s.Code(), s.Code().String())
		bare := &guard.Problem{Status: http.StatusServiceUnavailable, Code: codeStatus}
		if s.Code() == codes.Canceled { // mostly a client that hung up: nothing for the log
			return fmt.Errorf("%s: %w: %w", s.Message(), context.Canceled, bare)
		}
		return fmt.Errorf("%s: %w", s.Message(), bare) // for the log
	}
	return errors.New(s.Message()) // for the log
}
