package config

import (
	"fmt"
	"strings"
)

// referenceWidth is the width of the reference's comments.
const referenceWidth = 88

// Reference is a configuration file with every key, its default and what it
// means. Read as it is, it changes nothing.
func Reference() string {
	var b strings.Builder
	comment(&b, "", "Muster's configuration: every key, its default, and what it means.")
	comment(&b, "", "The file is muster.yaml in the working directory or /etc/muster, or what --config or MUSTER_CONFIG names. "+
		"Flags win over the environment, the environment over the file: dns.tcp.idle_timeout is --dns-tcp-idle-timeout and "+
		"MUSTER_DNS_TCP_IDLE_TIMEOUT. There, elements of a list have commas between them, and a list of mappings is YAML. "+
		"Paths begin at the directory of this file.")
	referenceKeys(&b, keys(), "")
	return b.String()
}

func referenceKeys(b *strings.Builder, keys []key, indent string) {
	for _, k := range keys {
		if indent == "" {
			b.WriteByte('\n')
		}
		comment(b, indent, k.doc+k.note())
		switch k.shape {
		case section:
			fmt.Fprintf(b, "%s%s:\n", indent, k.name)
			referenceKeys(b, k.keys, indent+"  ")
		case objects:
			elements(b, k.keys, indent, "  ")
			fmt.Fprintf(b, "%s%s: %s\n", indent, k.name, k.def)
		case scalar, list, mapping, pairs:
			fmt.Fprintf(b, "%s%s: %s\n", indent, k.name, k.def)
		}
	}
}

// elements describes the keys of a list's mappings, lead spaces into the
// comment.
func elements(b *strings.Builder, keys []key, indent, lead string) {
	for _, k := range keys {
		head := lead + k.name + ": "
		if k.required {
			head += "(required) "
		}
		text := k.doc + k.note()
		if k.def != "" {
			text += " Default " + k.def + "."
		}
		comment(b, indent, head+text)
		if k.shape == objects || k.shape == mapping {
			elements(b, k.keys, indent, lead+"  ")
		}
	}
}

// note is what the reference says of a key's type, limits and default.
func (k key) note() string {
	var notes []string
	switch {
	case k.shape == scalar && strings.HasPrefix(k.noun, "one of "):
		notes = append(notes, upperFirst(k.noun))
	case k.limits != "":
		notes = append(notes, upperFirst(k.limits))
	}
	if k.computed != "" {
		notes = append(notes, "Default: "+k.computed)
	}
	if notes == nil {
		return ""
	}
	return " " + strings.Join(notes, ". ") + "."
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// comment writes text as comment lines; what follows the first is indented
// like it.
func comment(b *strings.Builder, indent, text string) {
	lead := indent + "# "
	hang := strings.Repeat(" ", len(text)-len(strings.TrimLeft(text, " ")))
	if hang != "" {
		hang += "  "
	}
	line := lead + text[:len(text)-len(strings.TrimLeft(text, " "))]
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && len(line)+1+len(word) > referenceWidth {
			b.WriteString(line + "\n")
			line, empty = lead+hang, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(line + "\n")
}
