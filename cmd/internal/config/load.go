package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Options says where a configuration comes from.
type Options struct {
	// File is the file to read; it must exist. Empty: the first of Paths that
	// exists, and none at all is fine.
	File string
	// Data, when not nil, are the contents to use instead of reading File.
	Data []byte
	// Flags has the flags that AddFlags added; nil: none.
	Flags *pflag.FlagSet
	// Throwaway makes nothing outlive the process unless a key says where: no
	// snapshot is kept, and the embedded etcd has a temporary directory.
	Throwaway bool
}

// Paths are where a file is looked for, in order.
func Paths() []string { return []string{"muster.yaml", "/etc/muster/muster.yaml"} }

// fileMax bounds the file: thousands of zones and services fit.
const fileMax = 4 << 20

// AddFlags adds a flag for every key to fs.
func AddFlags(fs *pflag.FlagSet) {
	for _, l := range leaves(keys(), "") {
		help, _, _ := strings.Cut(l.doc, ". ")
		// A word in back quotes would stand for the value.
		help = strings.ReplaceAll(strings.TrimSuffix(help, "."), "`", "") + " [" + l.path + "]"
		f := fs.VarPF(&flag{metavar: l.metavar()}, l.flag(), "", help)
		if l.noun == boolean().noun {
			f.NoOptDefVal = "true"
			f.Value = &flag{metavar: "bool"} // as pflag calls those that need no value
		}
	}
}

// flag is a key's flag. Its text is read where that of the file is.
type flag struct{ metavar, text string }

// String is the text (pflag.Value).
func (f *flag) String() string { return f.text }

// Set takes any text (pflag.Value).
func (f *flag) Set(text string) error { f.text = text; return nil }

// Type stands for the value in the help (pflag.Value).
func (f *flag) Type() string { return f.metavar }

// metavar stands for the value in a flag's help.
func (l leaf) metavar() string {
	switch l.shape {
	case list:
		return "a,b,..."
	case objects:
		return "yaml"
	case scalar, section, mapping, pairs:
	}
	return "value"
}

// Load reads a configuration. The Config is nil when one of the problems is
// more than a warning.
func Load(o Options) (*Config, Problems) {
	d := &decoder{where: map[string]Origin{}, throwaway: o.Throwaway}
	if wd, err := os.Getwd(); err == nil {
		d.cwd = wd
	} // else relative paths stay relative
	v := viper.New()
	cfg := &Config{}
	root := d.read(&o)
	if d.file != "" && o.Data == nil {
		cfg.File = filepath.Join(d.base, filepath.Base(d.file))
	}
	if root != nil {
		if err := v.MergeConfigMap(d.settings(root, keys(), "")); err != nil {
			d.add(Problem{Origin: Origin{Source: d.file, Line: 1, Col: 1}, Reason: err.Error()})
		}
	}
	all := leaves(keys(), "")
	for _, l := range all {
		// Neither can fail: the names are given and the flag is there.
		_ = v.BindEnv(l.path, l.env())
		if o.Flags != nil && o.Flags.Changed(l.flag()) {
			_ = v.BindPFlag(l.path, o.Flags.Lookup(l.flag()))
		}
	}
	d.unknownEnv(all)
	d.fill(v, o.Flags, cfg)
	cfg.settings = d.effective
	cfg.where = d.where
	d.compute(cfg)
	d.problems = append(d.problems, d.problems.unrelated(cfg.Validate())...)
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Origin.Source, b.Origin.Source),
			a.Origin.Line-b.Origin.Line, a.Origin.Col-b.Origin.Col)
	})
	if d.problems.Err() != nil {
		return nil, d.problems
	}
	return cfg, d.problems
}

// read returns the root mapping of the file, or nil.
func (d *decoder) read(o *Options) *yaml.Node {
	data, name := o.Data, o.File
	if data == nil {
		var err error
		if data, name, err = readFile(o.File); err != nil {
			d.add(Problem{Origin: Origin{Source: name}, Reason: err.Error()})
			return nil
		}
	}
	if data == nil {
		return nil
	}
	if name == "" {
		name = "stdin"
	}
	d.file, d.source = name, name
	d.base = filepath.Join(d.cwd, filepath.Dir(name))
	if filepath.IsAbs(name) {
		d.base = filepath.Dir(name)
	}
	if len(data) > fileMax {
		d.add(Problem{Origin: Origin{Source: name, Line: 1, Col: 1}, Reason: fmt.Sprintf("is larger than %d MiB", fileMax>>20)})
		return nil
	}
	return d.parse(data)
}

// readFile reads the file named, or the first of Paths that is there.
func readFile(name string) ([]byte, string, error) {
	candidates := []string{name}
	if name == "" {
		candidates = Paths()
	}
	for _, c := range candidates {
		data, err := os.ReadFile(c)
		if err == nil {
			return data, c, nil
		}
		if name != "" || !errors.Is(err, fs.ErrNotExist) {
			if pe, ok := errors.AsType[*fs.PathError](err); ok {
				err = pe.Err
			}
			return nil, c, fmt.Errorf("cannot be read: %w", err)
		}
	}
	return nil, "", nil
}

// fill decodes, for every key, what viper says wins.
func (d *decoder) fill(v *viper.Viper, flags *pflag.FlagSet, cfg *Config) {
	d.choose = func(l leaf) (*yaml.Node, Origin) {
		switch got := v.Get(l.path).(type) {
		case *yaml.Node:
			return got, d.at(got)
		case string:
			o := Origin{Source: l.env()}
			if flags != nil && flags.Changed(l.flag()) {
				o.Source = "--" + l.flag()
			}
			return d.fromText(l, got, o), o
		}
		return defaultNode(l.def), Origin{}
	}
	d.sectionOf(keys(), "", cfg)
}

// fromText makes the node of a value given in the environment or a flag: lists
// with commas, lists of mappings as YAML.
func (d *decoder) fromText(l leaf, text string, o Origin) *yaml.Node {
	scalarOf := func(s string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(s)}
	}
	switch l.shape {
	case objects:
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			reason, mend := yamlProblem(err)
			d.add(Problem{Origin: o, Key: l.path, Reason: reason, Mend: mend})
			return nil
		}
		if len(doc.Content) == 0 {
			return scalarOf("")
		}
		return doc.Content[0]
	case list:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		if strings.TrimSpace(text) != "" {
			for s := range strings.SplitSeq(text, ",") {
				n.Content = append(n.Content, scalarOf(s))
			}
		}
		return n
	case scalar, section, mapping, pairs:
	}
	return scalarOf(text)
}

// defaultNode parses a default of the table; the table's test reads them all.
func defaultNode(text string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		panic(fmt.Sprintf("config: the table's default %q is no YAML", text))
	}
	return doc.Content[0]
}

// unknownEnv warns of variables that are nearly a key's name. Others are let
// be: an orchestrator sets MUSTER_PORT and the like for a service of this name.
func (d *decoder) unknownEnv(all []leaf) {
	names := []string{"MUSTER_CONFIG", "MUSTER_ADDR", "MUSTER_TOKEN_FILE", "MUSTER_ETCD"}
	for _, l := range all {
		names = append(names, l.env())
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix+"_") || slices.Contains(names, name) {
			continue
		}
		if hint := Suggest(name, names); hint != "" {
			d.add(Problem{Origin: Origin{Source: name}, Reason: "no such setting", Mend: hint, Warning: true})
		}
	}
}
