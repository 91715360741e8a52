package registry

import (
	"strconv"
	"strings"
)

// NewIgnored makes the Problem of a record that is used without the fields in ignored,
// as decoding found them. It names the fields that may have been meant.
func NewIgnored(rawKey string, revision int64, kind Kind, ignored string) Problem {
	p := Problem{RawKey: rawKey, Revision: revision, Used: true}
	var quoted, meant []string
	for field := range strings.SplitSeq(ignored, "\n") {
		quoted = append(quoted, excerpt(field))
		if near := nearField(kind, field); near != "" {
			meant = append(meant, strconv.Quote(near))
		}
	}
	switch verb := " are not known, and are ignored"; len(quoted) {
	case 1:
		p.Reason = "field " + quoted[0] + " is not known, and is ignored"
	case ignoredMax:
		p.Reason = "fields " + strings.Join(quoted, ", ") + ", and perhaps others," + verb
	default:
		p.Reason = "fields " + strings.Join(quoted, ", ") + verb
	}
	if p.Mend = "did you mean " + strings.Join(meant, ", ") + "?"; len(meant) == 0 {
		p.Mend = "take it out, unless it is for a later version of Muster"
	}
	return p
}

// nearField is the known field that one of a record was meant for; empty: none is near.
func nearField(kind Kind, field string) string {
	place, name := "", field
	if i := strings.LastIndexByte(field, '.'); i >= 0 {
		place, name = field[:i+1], field[i+1:]
	}
	known := fieldsOf(kind)
	switch list, _, _ := strings.Cut(place, "["); list {
	case "":
	case "checks":
		known = CheckMembers()
	case "limit.":
		known = limitFields[:]
	case "headers", "query":
		known = matchFields[:]
	default: // a name with a dot in it
		place, name = "", field
	}
	if meant := Meant(lower(name), known); meant != "" {
		return place + meant
	}
	return ""
}

// fieldsOf are the names of the fields of a record.
func fieldsOf(kind Kind) []string {
	switch kind {
	case KindInstance:
		return InstanceMembers()
	case KindService:
		return ServiceMembers()
	case KindRoute:
		return routeFields[:]
	case KindAdmin:
		return adminMembers()
	case KindLoad:
		return loadMembers()
	case KindUnknown, KindMember, KindHealth:
	}
	return nil
}
