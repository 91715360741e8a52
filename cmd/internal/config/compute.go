package config

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/registry"
)

// skydnsPrefix is where SkyDNS's records are unless configured otherwise.
const skydnsPrefix = "/skydns"

// compute fills in the defaults that are not the same everywhere.
func (d *decoder) compute(c *Config) {
	if c.Node == "" {
		c.Node = hostName()
		d.computed("node", c.Node)
	}
	switch c.DNS.NSID {
	case "":
		c.DNS.NSID = c.Node[:min(len(c.Node), dnsserver.NSIDMax)]
		d.computed("dns.nsid", c.DNS.NSID)
	case off:
		c.DNS.NSID = ""
	}
	for i := range c.Zones {
		z := &c.Zones[i]
		if z.Source == "" && z.File != "" {
			z.Source = SourceFile
		}
		switch z.Source {
		case SourceMuster:
			z.Prefix = cmp.Or(z.Prefix, registry.DefaultPrefix)
		case SourceSkyDNS: // each zone has its own subtree
			labels := strings.Split(strings.Trim(z.Name, "."), ".")
			slices.Reverse(labels)
			z.Prefix = cmp.Or(z.Prefix, skydnsPrefix) + "/" + strings.Join(labels, "/")
		case SourceNaming, SourceReverse, SourceFile:
		}
	}
	if only := c.onlyServiceZone(); only != "" {
		for i := range c.Services {
			if c.Services[i].Zone == "" {
				c.Services[i].Zone = only
			}
		}
		for i := range c.Proxy.Listeners {
			l := &c.Proxy.Listeners[i]
			l.Zone = cmp.Or(l.Zone, only)
		}
	}
	if d.throwaway && c.Registry.Snapshot == "" {
		c.Registry.Snapshot = off
	}
	if c.Registry.Mode == RegistryEmbedded && c.Registry.Embedded.Dir == "" && !d.throwaway {
		c.Registry.Embedded.Dir = d.stateFile("etcd", "registry.embedded.dir")
	}
	switch c.Registry.Snapshot {
	case "":
		c.Registry.Snapshot = d.stateFile("snapshot", "registry.snapshot")
	case off:
		c.Registry.Snapshot = ""
	}
}

// computed shows a computed value in the view.
func (d *decoder) computed(key, value string) {
	for i := range d.effective {
		if s := &d.effective[i]; s.Key == key {
			s.node = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
		}
	}
}

// hostName is the host's name as a name of labels, or "muster" when it has
// none that can be one.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "muster"
	}
	folded, err := registry.FoldService(strings.Trim(strings.ReplaceAll(name, "_", "-"), "-."))
	if err != nil {
		return "muster"
	}
	return folded
}

// stateFile is the path of a file that outlives the process: in the directory
// that systemd made for it, or the user's cache directory.
func (d *decoder) stateFile(name, key string) string {
	// systemd gives several directories with colons between them.
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			d.add(Problem{Key: key, Reason: "there is no default: neither STATE_DIRECTORY, XDG_CACHE_HOME nor HOME is set", Mend: "set " + key + " to a path"})
			return ""
		}
		dir = filepath.Join(cache, "muster")
	}
	path := filepath.Join(dir, name)
	d.computed(key, path)
	return path
}

// onlyServiceZone is the name of the service zone when there is
// exactly one, else empty.
func (c *Config) onlyServiceZone() string {
	only := ""
	for _, z := range c.Zones {
		if !z.Source.Services() {
			continue
		}
		if only != "" {
			return ""
		}
		only = z.Name
	}
	return only
}
