package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/musterdns/muster/cmd/internal/api"
)

// format is a form of output; it is the value of --output.
type format string

// The forms.
const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

func formats() []string {
	return []string{string(formatTable), string(formatWide), string(formatJSON), string(formatYAML)}
}

// String is the form's name.
func (f *format) String() string { return string(*f) }

// Set reads the form's name.
func (f *format) Set(v string) error {
	if !slices.Contains(formats(), v) {
		return fmt.Errorf("must be one of %s", strings.Join(formats(), ", "))
	}
	*f = format(v)
	return nil
}

// Type stands for the value in the help.
func (f *format) Type() string { return "form" }

// print writes v as JSON or YAML, or calls table for the forms for people.
func (s *session) print(v any, table func(w io.Writer, wide bool)) error {
	switch s.output {
	case formatJSON:
		enc := json.NewEncoder(s.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case formatYAML:
		return writeYAML(s.stdout, v)
	case formatTable, formatWide:
	}
	w := tabwriter.NewWriter(s.stdout, 0, 8, 2, ' ', 0)
	table(w, s.output == formatWide)
	return w.Flush()
}

// writeYAML writes the JSON form of v as YAML, members in the same order.
func writeYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil { // JSON is YAML
		return err
	}
	block(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// block takes the one-line style and the quotes of JSON off a node.
func block(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		block(c)
	}
}

// row writes one line of a table.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// ago is a time as a distance from now: "42s", "3h12m".
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return brief(now.Sub(t))
}

// brief is a duration in its two greatest units.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(d.Seconds()*1000, 'f', 1, 64) + "ms"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return trimZero(d.Round(time.Second).String())
	case d < 48*time.Hour:
		return trimZero(trimZero(d.Round(time.Minute).String()))
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

// trimZero takes a last unit off that is zero: "2m0s" is "2m".
func trimZero(s string) string {
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			return s[:len(s)-2]
		}
	}
	return s
}

// count is "1 instance", "2 instances".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// duration is an API duration for people; empty for 0.
func duration(d api.Duration) string {
	if d == 0 {
		return ""
	}
	return brief(time.Duration(d))
}
