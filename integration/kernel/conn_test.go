package kernel_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// conn is a client's connection, of which each request is asked and answered by
// hand: nothing is tried again.
type conn struct {
	net.Conn

	r        *bufio.Reader
	patience time.Duration
}

// answerTime is how long a connection or an answer may take.
const answerTime = 5 * time.Second

func dial(addr string) (*conn, error) { return dialWithin(addr, answerTime) }

func dialWithin(addr string, patience time.Duration) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c), patience}, nil
}

// ask asks over a connection of its own, and returns who answered.
func ask(addr string) (string, error) {
	c, err := dial(addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ask()
}

// ask returns who answers.
func (c *conn) ask() (string, error) { return c.get("/") }

func (c *conn) get(path string) (string, error) {
	c.SetDeadline(time.Now().Add(c.patience))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
