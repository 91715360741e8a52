package app

import (
	"io"
	"log/slog"
	"os"

	"github.com/musterdns/muster/cmd/internal/config"
)

// newLogger returns the logger of a configuration, writing to w. level can be
// changed while it is used.
func newLogger(w io.Writer, cfg config.Log, level *slog.LevelVar) *slog.Logger {
	if w == nil {
		return slog.New(slog.DiscardHandler)
	}
	level.Set(cfg.Level)
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	format := cfg.Format
	if format == config.LogAuto {
		format = config.LogJSON
		if isTerminal(w) {
			format = config.LogText
		}
	}
	if format == config.LogText {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// readable has JSON say a duration as text does, "30s": it would be a number of
// nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// isTerminal reports whether w is a character device, which for a standard
// stream means a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
