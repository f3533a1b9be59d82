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

// A stream is checked again when one of these has passed, at the latest.
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
		// Nobody waits for the message of a stranger. It may take its time: the decision
		// then asks anew who sends it.
		if err := s.serve(ss.Context(), s.door, info.FullMethod, &call{}); err != nil {
			return err
		}
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
		if crmguard.ActFrom(ctx) != nil { // not an open method
			go checked.watch()
		}
		err := handler(srv, checked)
		if ended := checked.ended(); ended != nil {
			return ended // whatever the handler made of it
		}
		return err
	}
	return s.serve(ss.Context(), m.handler, info.FullMethod, c)
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

// RecvMsg receives a message, or the end of the stream, and hands it over if the
// stream may go on: a handler takes the end for leave to commit.
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
	err := s.ServerStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if ended := s.check(); ended != nil {
		return ended
	}
	return err
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
	if s.messages < recheckMessages && s.server.now().Sub(s.last) < recheckAfter {
		return nil
	}
	return s.recheck()
}

// watch checks a stream while its handler works or waits, until it returns.
func (s *checkedStream) watch() {
	ticker := time.NewTicker(s.server.every)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
			if s.tick() != nil {
				return
			}
		}
	}
}

func (s *checkedStream) tick() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // no interceptor of the host can recover this one
			err = s.end(fmt.Errorf("guardgrpc: panic in a check: %v", p))
		}
	}()
	if s.err != nil || s.ctx.Err() != nil {
		return context.Canceled // nothing is left to check
	}
	return s.recheck()
}

// recheck is called with mu held.
func (s *checkedStream) recheck() error {
	now := s.server.now()
	switch err := s.server.guard.Recheck(s.ctx); {
	case err == nil:
		s.messages, s.last = 0, now
		return nil
	case s.ctx.Err() != nil: // the client hung up meanwhile, which decides nothing
		return err
	default:
		return s.end(err)
	}
}

func (s *checkedStream) end(err error) error {
	s.err = err
	s.cancel(err)
	return err
}
