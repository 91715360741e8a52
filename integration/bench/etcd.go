package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// txnOps is the greatest number of operations that etcd takes in one
// transaction by default (--max-txn-ops).
const txnOps = 128

// startEtcd starts a real etcd with the data of l in it.
func (l *lab) startEtcd(ctx context.Context) error {
	path, err := program.Find("etcd")
	if err != nil {
		return fmt.Errorf("muster needs an etcd to read from: %w (apt-get install etcd-server)", err)
	}
	client, err := program.FreePort()
	if err != nil {
		return err
	}
	peer, err := program.FreePort()
	if err != nil {
		return err
	}
	l.etcd = fmt.Sprintf("http://127.0.0.1:%d", client)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", peer)
	p, err := start(loadCore, "etcd", path, "--log-level", "error",
		"--data-dir", filepath.Join(l.dir, "etcd"),
		"--listen-client-urls", l.etcd, "--advertise-client-urls", l.etcd,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
		"--initial-cluster", "default="+peerURL)
	if err != nil {
		return err
	}
	l.started = append(l.started, p)
	if err := ready(ctx, p, func() error { return l.etcdHealthy(ctx) }); err != nil {
		return err
	}
	return l.register(ctx)
}

func (l *lab) etcdHealthy(ctx context.Context) error {
	_, err := call(ctx, http.MethodGet, l.etcd+"/health", nil)
	return err
}

// register puts the data, a transaction at a time, over etcd's JSON gateway.
func (l *lab) register(ctx context.Context) error {
	type put struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	type op struct {
		RequestPut put `json:"requestPut"`
	}
	var ops []op
	flush := func() error {
		body, err := json.Marshal(map[string][]op{"success": ops})
		if err != nil {
			return err
		}
		ops = ops[:0]
		_, err = call(ctx, http.MethodPost, l.etcd+"/v3/kv/txn", body)
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	for key, value := range l.data.records {
		ops = append(ops, op{put{b64([]byte(key)), b64([]byte(value))}})
		if len(ops) == txnOps {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(ops) == 0 {
		return nil
	}
	return flush()
}

// call makes one HTTP request and returns the body of a good response.
func call(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return text, nil
}
