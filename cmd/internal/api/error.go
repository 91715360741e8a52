package api

import "strings"

// ErrorBody is the body of every response with a status of 400 or above.
type ErrorBody struct {
	Error Error `json:"error"`
}

// Error is why a request failed. The server makes it; the client returns it.
type Error struct {
	// Status is the HTTP status; it is not part of the body.
	Status  int    `json:"-"`
	Message string `json:"message"`         // what is wrong, with the value
	Mend    string `json:"mend,omitempty"`  // what to do about it
	Field   string `json:"field,omitempty"` // the member or parameter that is wrong: "ttl"
}

// Error says field, message and mend in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Mend != "" {
		b.WriteString(": ")
		b.WriteString(e.Mend)
	}
	return b.String()
}
