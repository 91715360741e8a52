package admin

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/musterdns/muster/cmd/internal/api"
)

// ProxyQuestion asks which way a request or connection would take.
type ProxyQuestion struct {
	Target string // a URL, a listener's name or its address
	Method string // empty: GET
	Fields [][2]string
	Client netip.Addr
}

// headerMax bounds the fields of a question.
const headerMax = 64

// explainProxy answers GET /v1/proxy/explain.
func (s *Server) explainProxy(r *http.Request) (any, error) {
	q := r.URL.Query()
	out := ProxyQuestion{Target: q.Get(api.ParamTarget), Method: strings.ToUpper(q.Get(api.ParamMethod))}
	if out.Target == "" {
		return nil, badField(api.ParamTarget, "give a URL, or the name or address of a listener", "is missing")
	}
	var err error
	if out.Client, err = clientOf(r); err != nil {
		return nil, err
	}
	fields := q[api.ParamHeader]
	if len(fields) > headerMax {
		return nil, badField(api.ParamHeader, "give fewer", "there are %d, at most %d", len(fields), headerMax)
	}
	for _, f := range fields {
		name, value, ok := strings.Cut(f, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, badField(api.ParamHeader, `write it as "Name: value"`, "%q is no header field", f)
		}
		out.Fields = append(out.Fields, [2]string{name, strings.TrimSpace(value)})
	}
	e, err := s.cfg.ExplainProxy(out)
	if err != nil {
		return nil, badField(api.ParamTarget, "see GET /v1/proxy for the listeners", "%v", err)
	}
	return e, nil
}
