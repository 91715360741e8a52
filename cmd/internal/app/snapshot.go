package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

const (
	// snapshotInterval is how often a changed state is written: what a restart
	// without etcd can lose.
	snapshotInterval = 10 * time.Second
	// snapshotRefresh is how often an unchanged one is, so that the age that a
	// restart states is not much too old.
	snapshotRefresh = 5 * time.Minute
)

// snapshots keeps the snapshot file.
type snapshots struct {
	path   string   // empty: none is kept
	stores []string // what the records come from, by storesOf
	server *server
	first  registry.Snapshot // as read at the start

	written atomic.Int64 // when the file was last written, unix nanoseconds
	failed  atomic.Uint64
}

// newSnapshots reads the configured file. What it returns is usable also with an
// error, which says that there was a file and it cannot be used. The directory
// is made where it is the default: a path that somebody has written may be below
// a disk that is to be mounted.
func newSnapshots(cfg *config.Config, s *server) (*snapshots, error) {
	sn := &snapshots{path: cfg.Registry.Snapshot, stores: storesOf(&cfg.Registry), server: s}
	if sn.path == "" {
		return sn, nil
	}
	var err error
	if cfg.Where("registry.snapshot") == (config.Origin{}) {
		if err = os.MkdirAll(filepath.Dir(sn.path), 0o700); err != nil {
			return sn, err
		}
	}
	if sn.first, err = registry.ReadSnapshot(sn.path); errors.Is(err, fs.ErrNotExist) {
		return sn, nil
	}
	known := func(store string) bool { return slices.Contains(sn.stores, store) }
	if err == nil && !slices.ContainsFunc(sn.first.Stores, known) {
		// The serial numbers stay: they must not go back for a zone's followers.
		sn.first.Zones, sn.first.Health = nil, nil
		err = fmt.Errorf("%s: its records are of %s, none of which is configured", sn.path, strings.Join(sn.first.Stores, ", "))
	}
	return sn, err
}

// storesOf tells one store from another. A cluster that is given other URLs is
// the same while it keeps one of them.
func storesOf(cfg *config.Registry) []string {
	if cfg.Mode == config.RegistryEmbedded {
		return []string{"the embedded etcd in " + cfg.Embedded.Dir}
	}
	return cfg.Etcd.Endpoints
}

// serial is a zone's serial number in the snapshot that was read; 0: none.
func (sn *snapshots) serial(zone string) uint32 { return sn.first.Serials[zone] }

// seedAgeMax is the age from which on what checks had found is no longer where
// they begin: by then a checker that had stayed would have found out anew.
const seedAgeMax = 30 * time.Second

// seeds returns what the checks of a zone's instances had found when the
// snapshot was written; nil when that is too long ago.
func (sn *snapshots) seeds(zone string) func(service, instance string) health.State {
	marks := sn.first.Health[zone]
	if len(marks) == 0 || time.Since(sn.first.Written) > seedAgeMax {
		return nil
	}
	states := make(map[[2]string]health.State, len(marks))
	for _, m := range marks {
		states[[2]string{m.Service, m.Instance}] = health.State(m.State)
	}
	return func(service, instance string) health.State { return states[[2]string{service, instance}] }
}

// applySnapshot hands the snapshot that was read to the pool, each zone's to
// its present source.
func (s *server) applySnapshot(ctx context.Context) error {
	sink := s.pool.Sink(ctx)
	for zone, pages := range s.snapshots.first.Zones {
		id := s.sourceID(zone)
		if id == 0 {
			continue // the zone is no longer configured
		}
		for _, b := range pages {
			b.Source = id
			if tree := s.skyTree(zone); tree != nil {
				if err := tree.Restore(b); err != nil {
					return fmt.Errorf("zone %s: %w", zone, err)
				}
			}
			if err := sink(b); err != nil {
				return err
			}
		}
		s.log.Info("the snapshot is served until etcd answers", "zone", zone, "of", pages[len(pages)-1].AsOf)
	}
	s.snapshots.first.Zones, s.snapshots.first.Health = nil, nil // applied: nobody needs it twice
	return nil
}

// run writes the file when the state has changed, at most each
// snapshotInterval, and at the end. A write that fails leaves the old file as
// it was, is logged once until one succeeds, and is tried again.
func (sn *snapshots) run(ctx context.Context) error {
	if sn.path == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	var last map[string]int64
	failing := false
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-tick.C:
		}
		now, err := sn.write(context.WithoutCancel(ctx), last, !running)
		if err != nil {
			sn.failed.Add(1) // before the log line: whoever reads that finds it counted
		}
		switch {
		case err != nil && !failing:
			sn.server.log.Error("writing the snapshot failed; the one before is kept", "path", sn.path, "error", err)
		case err == nil && failing:
			sn.server.log.Info("the snapshot is written again", "path", sn.path)
		}
		if failing = err != nil; !failing {
			last = now
		}
	}
	return nil
}

// write writes the file unless it has all of the state already, and returns the
// revisions that it has.
func (sn *snapshots) write(ctx context.Context, last map[string]int64, always bool) (map[string]int64, error) {
	status, err := sn.server.pool.Status(ctx)
	if err != nil {
		return last, err
	}
	now := make(map[string]int64, len(status))
	due := always || time.Since(time.Unix(0, sn.written.Load())) > snapshotRefresh
	for i := range status {
		if !status[i].Ready || status[i].Snapshot {
			return last, nil // there is nothing newer than what the file has
		}
		now[status[i].Zone] = status[i].Revision
		due = due || last[status[i].Zone] != status[i].Revision
	}
	if !due || len(now) == 0 {
		return now, nil
	}
	out := registry.Snapshot{
		Stores: sn.stores,
		Zones:  map[string][]registry.Batch{}, Serials: map[string]uint32{}, Health: map[string][]registry.HealthMark{},
	}
	for i := range status {
		pages, marks, err := sn.server.pool.State(ctx, status[i].ID)
		if errors.Is(err, pool.ErrNotFound) {
			continue
		}
		if err != nil {
			return last, err
		}
		zone := status[i].Zone
		if tree := sn.server.skyTree(zone); tree != nil && len(pages) > 0 {
			if pages[len(pages)-1].Notes, err = tree.Notes(); err != nil {
				return last, err
			}
		}
		out.Zones[zone], out.Serials[zone], out.Health[zone] = pages, status[i].Serial, marks
	}
	if err := registry.WriteSnapshot(sn.path, out); err != nil {
		return last, err
	}
	sn.written.Store(time.Now().UnixNano())
	return now, nil
}
