package embedded

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a zap logger that writes to an slog one. A start of etcd says
// sixty things at its information level, so those become debugging; and while
// serving is not set everything does: a start that fails returns its error, and
// a stop complains of every listener that it closes.
func newZap(log *slog.Logger, serving *atomic.Bool) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	return zap.New(&slogCore{log: log.With("component", "etcd"), serving: serving})
}

// slogCore is a zapcore.Core on an slog.Logger. It is immutable.
type slogCore struct {
	log     *slog.Logger
	serving *atomic.Bool
}

// settling are complaints of etcd that mean nothing: its first look at the version
// of its storage may come before its first entry is written there, and it looks
// again after a few seconds (server/etcdserver: monitorStorageVersion).
func settling() []string {
	return []string{"Failed to detect schema version", "failed to update storage version"}
}

// level is what an entry of etcd is to the server around it.
func (c *slogCore) level(level zapcore.Level) slog.Level {
	switch {
	case !c.serving.Load() || level < zapcore.WarnLevel:
		return slog.LevelDebug
	case level == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled reports whether an entry of the level would be written.
func (c *slogCore) Enabled(level zapcore.Level) bool {
	return c.log.Enabled(context.Background(), c.level(level))
}

// With returns a core whose entries carry the fields too.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	log := c.log
	for _, attr := range attributes(fields) {
		log = log.With(attr)
	}
	return &slogCore{log: log, serving: c.serving}
}

// Check adds the core to an entry that it would write.
func (c *slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write writes an entry.
func (c *slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := c.level(entry.Level)
	if slices.Contains(settling(), entry.Message) {
		level = slog.LevelDebug
	}
	c.log.LogAttrs(context.Background(), level, entry.Message, attributes(fields)...) //nolint:sloglint // the message is etcd's
	return nil
}

// Sync does nothing: slog keeps nothing back.
func (c *slogCore) Sync() error { return nil }

// attributes turns zap's fields into slog's.
func attributes(fields []zapcore.Field) []slog.Attr {
	attrs := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for key, value := range enc.Fields {
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	return attrs
}
