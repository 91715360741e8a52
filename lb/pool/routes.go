package pool

import (
	"maps"
	"slices"

	"github.com/musterdns/muster/registry"
)

// Routes returns the proxy's routes that a source holds, sorted by name. The
// slice is never written again; another one takes its place when a route
// changes. It is nil when there are none.
func (v *View) Routes(source registry.SourceID) []registry.Route {
	s := v.Source(source)
	if s == nil {
		return nil
	}
	if list := s.routes.Load(); list != nil {
		return *list
	}
	return nil
}

// cloneRoutes copies routes of a batch.
func cloneRoutes(from []registry.Route) []registry.Route {
	if len(from) == 0 {
		return nil
	}
	routes := make([]registry.Route, len(from))
	for i, r := range from {
		routes[i] = r.Clone()
	}
	return routes
}

// setRoutes makes the routes of a complete state the only ones.
func (w *writer) setRoutes(src *source, routes map[string]registry.Route) {
	if len(routes) == 0 && len(src.routes) == 0 {
		return
	}
	src.routes = routes
	w.publishRoutes(src)
}

// changeRoutes applies what a batch of changes says of routes.
func (w *writer) changeRoutes(src *source, b *packed) {
	changed := len(b.routes) > 0
	for _, r := range b.routes {
		src.routes[r.Name] = r
	}
	for _, k := range b.deleted {
		if _, there := src.routes[k.Name]; there && k.Kind == registry.KindRoute {
			delete(src.routes, k.Name)
			changed = true
		}
	}
	if changed {
		w.publishRoutes(src)
	}
}

// publishRoutes shows the routes there are to readers of the View.
func (w *writer) publishRoutes(src *source) {
	var list []registry.Route
	for _, name := range slices.Sorted(maps.Keys(src.routes)) {
		list = append(list, src.routes[name])
	}
	src.view.routes.Store(&list)
	w.pool.shown.wake()
}
