package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
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
	handler := a.handler
	if certificates == nil && len(a.cfg.Proxies) == 0 {
		handler = byOwnName(listener.Addr(), handler)
	}
	web := &http.Server{
		Handler:           handler,
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

// byOwnName refuses requests that do not call this machine by its own name. With
// TLS the certificate does that; without, another site could point its name here
// and its pages would read ours as their own.
func byOwnName(at net.Addr, next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(at.String()) // a TCP listener's has both
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwnName(r.Host, port) {
			http.Error(w, "This CRM answers on http://127.0.0.1:"+port+" only.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isOwnName(hostPort, port string) bool {
	host, asked, err := net.SplitHostPort(hostPort)
	if err != nil && port == "80" { // browsers leave it out
		host, asked = strings.Trim(hostPort, "[]"), port
	}
	if asked != port {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}
