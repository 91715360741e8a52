// Package etcd reads and writes the registry in etcd: the native keys of
// package registry under one prefix. A Client is the connection, shared by
// every Source; a Source is one prefix. Registrants written in Go use
// Client.Source and Source.Register and need nothing else of Muster.
//
// Invariant: no server is in this package's import graph; embedding one is
// package registry/etcd/embedded.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/musterdns/muster/registry"
)

const (
	// callTimeout bounds every request but those of a caller's own context. Proofs,
	// watches and leases do not wait so long for a member that is cut off (hedged): with
	// two of three cut off, a half-open watch is left after eight seconds at most, and
	// five of them are the interval of proofs.
	callTimeout = 2 * time.Second
	// retryInterval is how often an etcd that is away is tried again.
	retryInterval = time.Second
	// keepAliveInterval is gRPC's least: pings of a connection that is silent.
	keepAliveInterval = 10 * time.Second
	// messageMax is the greatest request, above etcd's own limit of 1.5 MiB.
	messageMax = 2 << 20
)

var errClosed = errors.New("etcd: the client is closed")

// Config says how etcd is reached.
type Config struct {
	// Endpoints are URLs of the members, as "http://127.0.0.1:2379". At least
	// one. All of them http or all of them https.
	Endpoints []string
	// Username and the file that holds the password (a newline at its end is
	// no part of it); both empty: none. The file is read when connecting.
	Username, PasswordFile string
	// CAFile is the PEM file of the authorities that sign the members'
	// certificates; empty: those of the system.
	CAFile string
	// CertFile and KeyFile are the PEM files of the client's own certificate;
	// both empty: none. They are read again at each connection.
	CertFile, KeyFile string
	// Insecure allows http to other machines.
	Insecure bool
	// Log receives one line for each change of state and for each record that
	// cannot be used; nil: none.
	Log *slog.Logger
	// Mend says what to do about an error of etcd's or of the way to it, in the words
	// of whoever configured the client, for the log; empty: nothing is known. It may
	// be called at any time and must not use the client. nil: none.
	Mend func(err error) string
}

// Client is a connection to an etcd cluster. It is safe for concurrent use.
type Client struct {
	cfg Config
	log *slog.Logger
	tls *tlsFiles

	conns conns
	cause cause

	mu     sync.Mutex
	conn   *clientv3.Client // nil until the first use that could log in
	closed bool
	away   time.Time // since when etcd has not answered; zero while it does
	reason error     // why, from the last attempt; nil while it does
	nudged time.Time // when a connection was last asked for at once
}

// New checks the configuration and reads the files it names. It does not
// connect, so that a server starts while etcd is away.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, log: cfg.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := checkEndpoints(cfg); err != nil {
		return nil, err
	}
	var err error
	if c.tls, err = newTLSFiles(cfg); err != nil {
		return nil, err
	}
	if (cfg.Username == "") != (cfg.PasswordFile == "") {
		return nil, errors.New("etcd: username and password_file: one is set and the other is not")
	}
	if cfg.PasswordFile != "" {
		if _, err := readPassword(cfg.PasswordFile); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends the connection, with every watch and lease upon it. Leases that
// were not closed expire.
func (c *Client) Close() error {
	c.mu.Lock()
	conn := c.conn
	c.conn, c.closed = nil, true
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	if err := conn.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the connection to etcd: %w", err)
	}
	return nil
}

// Source returns the source of one prefix, as registry.DefaultPrefix. Records
// that it delivers carry id.
func (c *Client) Source(id registry.SourceID, prefix string) (*Source, error) {
	space, err := registry.NewKeyspace(prefix)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &Source{feed: feed{client: c, id: id, format: native{space}}, space: space}, nil
}

// dial returns the connection, making it at the first use. With a user's name
// making it is a log-in, which fails while etcd is away.
func (c *Client) dial() (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.conn != nil {
		return c.conn, nil
	}
	cfg := clientv3.Config{
		Endpoints:            c.cfg.Endpoints,
		DialTimeout:          callTimeout,
		DialKeepAliveTime:    keepAliveInterval,
		DialKeepAliveTimeout: callTimeout,
		MaxCallSendMsgSize:   messageMax,
		MaxCallRecvMsgSize:   1 << 30,
		TLS:                  c.tls.config(),
		Username:             c.cfg.Username,
		DialOptions:          []grpc.DialOption{grpc.WithStatsHandler(&c.conns), grpc.WithChainUnaryInterceptor(c.cause.observe)},
		Logger:               zap.NewNop(), // what it has to say, this package says once
	}
	if c.cfg.PasswordFile != "" {
		password, err := readPassword(c.cfg.PasswordFile)
		if err != nil {
			return nil, err
		}
		cfg.Password = password
	}
	conn, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	c.conn = conn
	return conn, nil
}

// observe notes whether etcd answered and logs when that changes.
func (c *Client) observe(err error) {
	err = c.cause.explain(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = err
	switch {
	case err != nil && c.away.IsZero():
		c.away = time.Now()
		log := c.log.With("endpoints", strings.Join(c.cfg.Endpoints, ","), "error", err)
		if c.cfg.Mend != nil {
			log = log.With("mend", c.cfg.Mend(err))
		}
		log.Warn("etcd does not answer")
	case err == nil && !c.away.IsZero():
		c.log.Info("etcd answers again", "away", time.Since(c.away).Round(time.Millisecond))
		c.away = time.Time{}
	}
}

// Err returns why etcd does not answer at present; nil while it does.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// nudge makes the connection try again now: left alone it waits longer each
// time, up to two minutes. However many sources ask, it is done once in
// retryInterval.
func (c *Client) nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || time.Since(c.nudged) < retryInterval {
		return
	}
	c.nudged = time.Now()
	c.conn.ActiveConnection().ResetConnectBackoff()
}

// retryWait waits for about retryInterval, so that many servers do not ask in
// step, and asks for a connection. It returns early with the context's error.
func (c *Client) retryWait(ctx context.Context) error {
	wait := retryInterval + rand.N(retryInterval/4)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		c.nudge()
		return nil
	}
}
