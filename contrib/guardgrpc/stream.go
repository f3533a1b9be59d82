package guardgrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crmguard/crmguard"
)

// A stream is checked again when one of these has passed.
const (
	recheckMessages = 500
	recheckAfter    = 2 * time.Second
)

func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m, ok := s.methods[info.FullMethod]
	if !ok {
		return errNotInTable
	}
	c := &call{}
	var first proto.Message
	if m.newMessage != nil {
		first = m.newMessage()
		switch err := ss.RecvMsg(first); {
		case errors.Is(err, io.EOF):
			return status.Error(codes.InvalidArgument, "guardgrpc: the stream has no message")
		case err != nil:
			return err
		}
		c.message = first
	}
	c.handle = func(ctx context.Context) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		checked := &checkedStream{ServerStream: ss, ctx: ctx, cancel: cancel, server: s, first: first, last: s.now()}
		err := handler(srv, checked)
		if ended := checked.ended(); ended != nil {
			return ended // whatever the handler made of it
		}
		return err
	}
	return s.serve(ss.Context(), m, info.FullMethod, c)
}

// checkedStream is a stream that asks again whether it may go on.
type checkedStream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelCauseFunc
	server *server

	mu       sync.Mutex // a handler may send and receive at the same time
	first    proto.Message
	messages int       // since the last check
	last     time.Time // when it was
	err      error     // why the stream has ended
}

// Context returns the context of the act.
func (s *checkedStream) Context() context.Context { return s.ctx }

// SendMsg sends a message if the stream may go on.
func (s *checkedStream) SendMsg(m any) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg receives a message and hands it over if the stream may go on.
func (s *checkedStream) RecvMsg(m any) error {
	if first := s.takeFirst(); first != nil {
		into, ok := m.(proto.Message)
		if !ok || into.ProtoReflect().Descriptor() != first.ProtoReflect().Descriptor() {
			return fmt.Errorf("guardgrpc: the handler wants %T, the loader had %T", m, first)
		}
		proto.Reset(into)
		proto.Merge(into, first)
		return nil
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.check()
}

func (s *checkedStream) takeFirst() proto.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first
	s.first = nil
	return first
}

func (s *checkedStream) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// check is asked for each message.
func (s *checkedStream) check() error {
	if crmguard.ActFrom(s.ctx) == nil { // an open method
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.messages++
	now := s.server.now()
	if s.messages < recheckMessages && now.Sub(s.last) < recheckAfter {
		return nil
	}
	if s.err = s.server.guard.Recheck(s.ctx); s.err != nil {
		s.cancel(s.err)
		return s.err
	}
	s.messages, s.last = 0, now
	return nil
}
