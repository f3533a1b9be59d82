package guardgrpc_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgrpc"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// byToken takes each token for a person's name. Hosts have session.Manager.
type byToken struct{}

func (byToken) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	return crmguard.Subject{Tenant: "acme", ID: token, Kind: crmguard.KindEmployee}, nil
}

func (byToken) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return []string{"seller"}, []string{"sales"}, nil
}

// contacts stands for what protoc generates; its messages are strings.
var contacts = grpc.ServiceDesc{ServiceName: "crm.Contacts", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
	MethodName: "Show",
	Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		m := new(wrapperspb.StringValue)
		if err := decode(m); err != nil {
			return nil, err
		}
		show := func(_ context.Context, m any) (any, error) {
			return wrapperspb.String("the card of client " + m.(*wrapperspb.StringValue).GetValue()), nil
		}
		return intercept(ctx, m, &grpc.UnaryServerInfo{FullMethod: "/crm.Contacts/Show"}, show)
	},
}}}

func Example() {
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	journal := crmguardtest.NewRecorder()
	g, err := guard.New(byToken{}, rights, byToken{}, journal, nil)
	if err != nil {
		panic(err)
	}
	contactOf := func(_ context.Context, m *wrapperspb.StringValue) (crmguard.Resource, error) { // owner and department come from the host's own data
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: m.GetValue(), Owner: "anna", Unit: "sales"}, nil
	}
	phoneOf := contactOf

	server := grpc.NewServer(guardgrpc.ServerOptions(g, guardgrpc.Methods{
		"/crm.Contacts/Show":   guardgrpc.Protect(crmguard.View, contactOf),
		"/crm.Contacts/Reveal": guardgrpc.ProtectAct(crmguard.Reveal, phoneOf),
		"/crm.Door/SignIn":     guardgrpc.Open(),
	})...)
	server.RegisterService(&contacts, nil)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()

	for _, person := range []string{"anna", "boris"} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+person)
		answer := new(wrapperspb.StringValue)
		err := conn.Invoke(ctx, "/crm.Contacts/Show", wrapperspb.String("17"), answer)
		fmt.Printf("%s %s %q\n", person, status.Code(err), answer.GetValue())
	}
	for _, e := range journal.Events() {
		fmt.Println(e.Subject.ID, e.Action, e.Resource.ID, e.Outcome)
	}
	// Output:
	// anna OK "the card of client 17"
	// boris NotFound ""
	// anna view 17 done
	// boris view 17 denied
}
