package handover

import (
	"net"
	"os"
)

// Notify tells the service manager, if there is one that listens (NOTIFY_SOCKET,
// sd_notify(3)), what state says: "READY=1", "STOPPING=1", "MAINPID=42".
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A leading @ is the abstract name space, which package net spells so too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
