package api

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text in JSON: "1m30s".
type Duration time.Duration

// String is as of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes d as time.Duration's String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("bad duration %q: write it with a unit, as in 30s or 5m", text)
	}
	*d = Duration(v)
	return nil
}
