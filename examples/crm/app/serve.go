package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve answers on the listener, and on the control socket in the keys folder,
// until ctx ends; then it lets requests under way finish. With certificates it
// speaks TLS.
func (a *App) Serve(ctx context.Context, listener net.Listener, certificates *tls.Config) error {
	control, err := a.listenControl()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	web := &http.Server{
		Handler:           a.handler,
		TLSConfig:         certificates,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	local := &http.Server{Handler: a.controlHandler(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- local.Serve(control) }()
	go func() {
		if certificates != nil {
			failed <- web.ServeTLS(listener, "", "")
		} else {
			failed <- web.Serve(listener)
		}
	}()
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return errors.Join(err, web.Shutdown(patience), local.Shutdown(patience))
}
