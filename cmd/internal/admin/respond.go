package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/registry"
)

// reader answers a GET with a value or an error.
type reader func(r *http.Request) (any, error)

// get makes a handler of a reader.
func (s *Server) get(f reader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if e := s.sameOrigin(r); e != nil {
			s.fail(w, e)
			return
		}
		s.answer(w, r, f)
	}
}

// post makes a handler of a function that writes what the request's body asks.
func post[T any](s *Server, f func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if e := s.sameOrigin(r); e != nil {
			s.fail(w, e)
			return
		}
		if e := s.authorize(r); e != nil {
			s.fail(w, e)
			return
		}
		in, e := decodeBody[T](w, r)
		if e != nil {
			s.fail(w, e)
			return
		}
		s.answer(w, r, func(r *http.Request) (any, error) { return f(r, in) })
	}
}

// answer writes what f returns.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, f reader) {
	out, err := f(r)
	if err != nil {
		s.fail(w, asError(err))
		return
	}
	s.write(w, http.StatusOK, out)
}

// write sends v as JSON.
func (s *Server) write(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.log.Error("encoding a response failed", "error", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":{"message":"the response could not be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that went away is its own matter
}

// fail sends an error.
func (s *Server) fail(w http.ResponseWriter, e *api.Error) {
	s.write(w, e.Status, api.ErrorBody{Error: *e})
}

// asError finds the status and words of an error for a client.
func asError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, registry.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, registry.ErrExists):
		status = http.StatusConflict
	}
	return &api.Error{Status: status, Message: err.Error()}
}

// badField is the error of a member or parameter that cannot be used.
func badField(field, mend, format string, args ...any) *api.Error {
	return &api.Error{Status: http.StatusBadRequest, Field: field, Message: fmt.Sprintf(format, args...), Mend: mend}
}

// quote quotes a client's text, cut to a length that fits a message.
func quote(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return strconv.Quote(s)
}

// decodeBody reads a request's body strictly: JSON by name, of bounded size, no
// unknown members, nothing behind it.
func decodeBody[T any](w http.ResponseWriter, r *http.Request) (T, *api.Error) {
	var in T
	// A page of another site cannot send this type without being asked first.
	if ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/json" {
		return in, &api.Error{
			Status:  http.StatusUnsupportedMediaType,
			Message: "the body's type is " + quote(r.Header.Get("Content-Type")),
			Mend:    "send JSON with `Content-Type: application/json`",
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.BodyMax))
	if err != nil {
		return in, &api.Error{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body is larger than %d octets", api.BodyMax)}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return in, bodyError(err, members[T]())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return in, &api.Error{Status: http.StatusBadRequest, Message: "something stands behind the JSON object", Mend: "send one object"}
	}
	return in, nil
}

// members are the names that a body of the type may have, for people.
func members[T any]() string {
	var names []string
	for field := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// checkMembers refuses a record in which a member, or a member of a check, is
// not one that is read: what reads records passes over it, and a slip would be
// noticed by nobody. What is no object is refused by what reads it.
func checkMembers(field string, record []byte, known []string) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(record, &members) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(known, name) {
			mend := "there are " + strings.Join(known, ", ")
			if meant := registry.Meant(strings.ToLower(name), known); meant != "" {
				mend = "did you mean " + quote(meant) + "? " + mend
			}
			return badField(field+"."+name, mend, "there is no such member")
		}
	}
	var checks []json.RawMessage
	if json.Unmarshal(members["checks"], &checks) != nil {
		return nil
	}
	for i, check := range checks {
		if err := checkMembers(fmt.Sprintf("%s.checks[%d]", field, i), check, registry.CheckMembers()); err != nil {
			return err
		}
	}
	return nil
}

// bodyError names the member of a body that is wrong, and those that there are.
func bodyError(err error, known string) *api.Error {
	e := &api.Error{Status: http.StatusBadRequest, Mend: "send an object of " + known}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		e.Field = te.Field
		e.Message = fmt.Sprintf("a JSON %s stands where %s belongs (offset %d)", te.Value, kindName(te.Type), te.Offset)
		return e
	}
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		e.Message = fmt.Sprintf("the body is not JSON: %v (offset %d)", se, se.Offset)
		return e
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		e.Field = strings.Trim(name, `"`)
		e.Message, e.Mend = "there is no such member", "there are "+known
		return e
	}
	e.Message = "reading the body: " + err.Error()
	return e
}

// kindName says to people what a value of the type is in JSON.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Uint16:
		return "a whole number, 0 to 65535,"
	case reflect.Float64:
		return "a number"
	default:
		return "an object"
	}
}
