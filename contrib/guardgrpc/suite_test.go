package guardgrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

// The services of these tests are written by hand, on messages that come with
// protobuf: what protoc would generate calls the same functions of grpc.

// exchange is guardtest.Exchange for gRPC.
type exchange struct {
	ctx     context.Context //nolint:containedctx // it is the handler's
	message *structpb.Struct
	answer  *wrapperspb.StringValue
}

func (x exchange) Context() context.Context { return x.ctx }
func (x exchange) ID() string               { return x.message.GetFields()["id"].GetStringValue() }

func (x exchange) Body(limit int64) ([]byte, error) {
	body := x.message.GetFields()["body"].GetStringValue()
	if int64(len(body)) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return []byte(body), nil
}

func (x exchange) Answer(text string) error {
	x.answer.Value = text
	return nil
}

// kind is one of the ways to serve a call.
type kind int

const (
	unary kind = iota
	serverStream
	bidi
)

// handler is a service's method, whatever the kind.
type handler func(ctx context.Context, m *structpb.Struct) (*wrapperspb.StringValue, error)

// service makes handlers a service of one kind.
func service(k kind, handlers map[string]handler) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: "crm.Suite", HandlerType: (*any)(nil)}
	for name, h := range handlers {
		if k == unary {
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
				m := new(structpb.Struct)
				if err := decode(m); err != nil {
					return nil, err
				}
				info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/crm.Suite/" + name}
				return intercept(ctx, m, info, func(ctx context.Context, m any) (any, error) { return h(ctx, m.(*structpb.Struct)) })
			}})
			continue
		}
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: name, ServerStreams: true, ClientStreams: k == bidi,
			Handler: func(_ any, stream grpc.ServerStream) error {
				m := new(structpb.Struct)
				if err := stream.RecvMsg(m); err != nil {
					return err
				}
				answer, err := h(stream.Context(), m)
				if err != nil {
					return err
				}
				return stream.SendMsg(answer)
			},
		})
	}
	return desc
}

// serve serves a protected service on a loopback address and returns a connection.
func serve(t testing.TB, s *server, desc *grpc.ServiceDesc) *grpc.ClientConn {
	t.Helper()
	recovered := status.Error(codes.Internal, "panic")
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, m any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			defer func() {
				if recover() != nil {
					err = recovered
				}
			}()
			return next(ctx, m)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer func() {
				if recover() != nil {
					err = recovered
				}
			}()
			return next(srv, ss)
		}),
	}
	listening := grpc.NewServer(append(options, s.options()...)...)
	listening.RegisterService(desc, nil)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- listening.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		listening.Stop()
		require.NoError(t, <-served)
	})
	return conn
}

// invoke sends one message and returns the one answer.
func invoke(ctx context.Context, conn *grpc.ClientConn, k kind, name string, m *structpb.Struct) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer := new(wrapperspb.StringValue)
	if k == unary {
		err := conn.Invoke(ctx, "/crm.Suite/"+name, m, answer)
		return answer.GetValue(), err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/crm.Suite/"+name)
	if err != nil {
		return "", err
	}
	if err := send(stream, m); err != nil {
		return "", err
	}
	err = stream.RecvMsg(answer)
	return answer.GetValue(), err
}

// send sends the one message. That the server has already answered (io.EOF) is no
// failure: RecvMsg says what it answered.
func send(stream grpc.ClientStream, m *structpb.Struct) error {
	if err := stream.SendMsg(m); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return stream.CloseSend()
}

func message(id, body string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"id": structpb.NewStringValue(id), "body": structpb.NewStringValue(body)}}
}

func as(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// answerOf translates a status back to what guard answered.
func answerOf(text string, err error) guardtest.Answer {
	s := status.Convert(err)
	if s.Code() == codes.OK {
		return guardtest.Answer{Status: http.StatusOK, Text: text}
	}
	a := guardtest.Answer{Raw: s.Code().String() + ": " + s.Message()}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			a.Code, a.Instance, a.Need = d.GetReason(), d.GetMetadata()["instance"], d.GetMetadata()["need"]
			a.Raw += " " + d.GetDomain() + " " + d.GetReason() + " " + a.Instance + " " + a.Need
		case *errdetails.RetryInfo:
			a.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	a.Status = map[codes.Code]int{
		codes.Unauthenticated: 401, codes.FailedPrecondition: 401, codes.PermissionDenied: 403, codes.NotFound: 404,
		codes.Aborted: 409, codes.ResourceExhausted: 429, codes.Unavailable: 503, codes.InvalidArgument: 422, codes.Internal: 500,
	}[s.Code()]
	switch {
	case s.Code() == codes.NotFound && a.Code == "erased":
		a.Status = 410
	case s.Code() == codes.InvalidArgument && a.Code == "too-large":
		a.Status = 413
	}
	return a
}

func TestAdapter(t *testing.T) {
	for name, k := range map[string]kind{"unary": unary, "server stream": serverStream, "bidi stream": bidi} {
		t.Run(name, func(t *testing.T) {
			guardtest.RunCalls(t, func(t testing.TB, g *guard.Guard, routes []guardtest.Route) guardtest.Client {
				methods, handlers := Methods{}, map[string]handler{}
				for _, route := range routes {
					handlers[route.Name] = func(ctx context.Context, m *structpb.Struct) (*wrapperspb.StringValue, error) {
						answer := new(wrapperspb.StringValue)
						return answer, route.Handle(exchange{ctx, m, answer})
					}
					load := func(ctx context.Context, m *structpb.Struct) (crmguard.Resource, error) {
						return route.Load(exchange{ctx, m, nil})
					}
					m := Open()
					switch {
					case route.Open():
					case route.Acts:
						m = ProtectAct(route.Action, load)
					default:
						m = Protect(route.Action, load)
					}
					methods["/crm.Suite/"+route.Name] = m
				}
				conn := serve(t, newServer(g, methods), service(k, handlers))
				return func(ctx context.Context, c guardtest.Call) (guardtest.Answer, error) {
					text, err := invoke(as(ctx, c.Token), conn, k, c.Route, message(c.ID, c.Body))
					if ctx.Err() != nil {
						return guardtest.Answer{}, ctx.Err()
					}
					return answerOf(text, err), nil
				}
			})
		})
	}
}
