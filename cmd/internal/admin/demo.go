package admin

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/demo"
	"github.com/musterdns/muster/registry"
)

// demoStates are the API's words for what was last done to a sample.
var demoStates = map[demo.Action]string{
	demo.Revive: "well", demo.Kill: "killed", demo.Slow: "slow", demo.Fail: "failing",
}

// demoList answers GET /v1/demo.
func (s *Server) demoList(*http.Request) (any, error) {
	out := []api.DemoInstance{}
	for _, in := range s.cfg.Demo.Instances() {
		out = append(out, s.sample(in))
	}
	return out, nil
}

// sample is a sample instance as the API shows it.
func (s *Server) sample(in registry.Instance) api.DemoInstance {
	return api.DemoInstance{
		Service: in.Service, ID: in.ID,
		Address: netip.AddrPortFrom(in.Addresses[0], in.Port).String(),
		State:   demoStates[s.cfg.Demo.Mode(in.ID)],
	}
}

// demoDo answers POST /v1/demo.
func (s *Server) demoDo(r *http.Request, in api.DemoRequest) (any, error) {
	if err := s.cfg.Demo.Do(r.Context(), in.Instance, demo.Action(in.Action), time.Duration(in.Delay)); err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, demo.ErrUnknown) {
			status = http.StatusNotFound
		}
		return nil, &api.Error{Status: status, Field: "instance", Message: err.Error()}
	}
	all := s.cfg.Demo.Instances()
	return s.sample(all[slices.IndexFunc(all, func(i registry.Instance) bool { return i.ID == in.Instance })]), nil
}
