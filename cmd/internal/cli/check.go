package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

// stdinMax bounds a configuration that is piped in.
const stdinMax = 8 << 20

func (s *session) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Check the configuration and the zone files, all problems at once", GroupID: groupServer,
		Args: arguments(0, 1),
		Long: `Checks the configuration that muster serve would run with, and every file that it
names: zone files, tokens, certificates. All problems are printed, each with file,
line and column; nothing is started. What cannot be parsed ends the reading of a zone
file. FILE may be - for the standard input. With --zone, FILE is a zone file of that
origin, and nothing else is checked.`,
		Example: `  muster check
  muster check /etc/muster/muster.yaml
  render-config | muster check -
  muster check --zone example.com. example.com.zone`,
	}
	file := configFlags(cmd)
	origin := cmd.Flags().String("zone", "", "check FILE as the zone file of this `origin`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("zone") {
			if len(args) != 1 {
				return usagef("--zone %s: name the zone file, or - for the standard input", *origin)
			}
			return s.checkZone(*origin, args[0])
		}
		o := config.Options{File: *file, Flags: cmd.Flags()}
		if len(args) == 1 {
			o.File = args[0]
		}
		if o.File == "-" {
			data, err := io.ReadAll(io.LimitReader(s.stdin, stdinMax))
			if err != nil {
				return fmt.Errorf("reading the standard input: %w", err)
			}
			o.File, o.Data = "stdin", data
		}
		return s.check(o)
	}
	return cmd
}

// check prints all problems, and fails when one is more than a warning.
func (s *session) check(o config.Options) error {
	cfg, problems := config.Load(o)
	errs, warnings := 0, 0
	for _, p := range problems {
		fmt.Fprintln(s.stdout, p)
		if p.Warning {
			warnings++
		} else {
			errs++
		}
	}
	if cfg != nil {
		records, e, w := s.checkZones(cfg)
		errs, warnings = errs+e, warnings+w
		e, w = s.checkFiles(cfg)
		errs, warnings = errs+e, warnings+w
		if errs == 0 {
			name := cfg.File
			if name == "" {
				name = "the configuration"
			}
			s.printOK(name, fmt.Sprintf("%s, %s in zone files", count(len(cfg.Zones), "zone"), count(records, "record")), warnings)
			return nil
		}
	}
	return fmt.Errorf("%s found", count(errs, "problem"))
}

// checkZones reads the zone files.
func (s *session) checkZones(cfg *config.Config) (records, errs, warnings int) {
	var apexes []wire.Name
	var read, signed []*zones.Zone
	for i, z := range cfg.Zones {
		if apex, err := wire.ParseName(z.Name); err == nil { // else it has been told
			apexes = append(apexes, apex)
		}
		e, w := s.checkKeys(cfg, i)
		errs, warnings = errs+e, warnings+w
		if z.Source != config.SourceFile {
			continue
		}
		zone, warned, err := zonefile.Load(z.File, z.Name, nil)
		s.printWarnings(warned)
		warnings += len(warned)
		if err == nil {
			records += zone.Len()
			read = append(read, zone)
			if z.DNSSEC != "" || zone.Signed() {
				signed = append(signed, zone)
			}
			continue
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			errs += s.missing(cfg, fmt.Sprintf("zones[%d].file", i), z.File, err)
			continue
		}
		errs += s.printLines(err)
	}
	for _, zone := range read {
		for _, text := range zone.Stray(apexes) {
			fmt.Fprintln(s.stdout, "warning:", text)
			warnings++
		}
	}
	for _, zone := range signed {
		for _, text := range zone.Undelegated(apexes) {
			fmt.Fprintln(s.stdout, "warning:", text)
			warnings++
		}
	}
	return records, errs, warnings + s.checkDelegations(cfg, read, apexes)
}

// checkZone prints all problems of one zone file, and fails when one is more
// than a warning.
func (s *session) checkZone(origin, file string) error {
	var zone *zones.Zone
	var warned []zonefile.Warning
	var err error
	if file == "-" {
		zone, warned, err = zonefile.Parse(s.stdin, "stdin", origin)
	} else {
		zone, warned, err = zonefile.Load(file, origin, nil)
	}
	s.printWarnings(warned)
	if err != nil {
		return fmt.Errorf("%s found", count(s.printLines(err), "problem"))
	}
	s.printOK(file, count(zone.Len(), "record"), len(warned))
	return nil
}

// printOK says that what was checked can be used, and what is in it.
func (s *session) printOK(name, holds string, warnings int) {
	if warnings > 0 {
		holds += ", " + count(warnings, "warning")
	}
	fmt.Fprintf(s.stdout, "%s: ok: %s\n", name, holds)
}

func (s *session) printWarnings(warned []zonefile.Warning) {
	for _, w := range warned {
		fmt.Fprintf(s.stdout, "%s:%d: warning: %s\n", w.File, w.Line, w.Text)
	}
}

// printLines prints an error that tells a problem a line, and counts them.
func (s *session) printLines(err error) (lines int) {
	for line := range strings.Lines(err.Error()) {
		lines++
		fmt.Fprintln(s.stdout, strings.TrimRight(line, "\n"))
	}
	return lines
}

// checkFiles sees whether the other files can be used.
func (s *session) checkFiles(cfg *config.Config) (errs, warnings int) {
	if _, err := cfg.ReadKeys(); err != nil {
		errs++
		fmt.Fprintln(s.stdout, config.Problem{Origin: cfg.Where("keys"), Reason: err.Error()})
	}
	_, err := cfg.Admin.Token()
	errs += s.checkSecret(cfg, "admin.token_file", cfg.Admin.TokenFile, err, "")
	_, err = cfg.DNS.CookieSecrets()
	errs += s.checkSecret(cfg, "dns.cookie_secret_file", cfg.DNS.CookieSecretFile, err, "")
	_, err = cfg.Proxy.Secret()
	errs += s.checkSecret(cfg, "proxy.secret_file", cfg.Proxy.SecretFile, err, "write random octets into it")
	c := &pemCheck{s: s, cfg: cfg, errs: errs}
	c.all()
	return c.errs, c.warnings
}

// checkSecret prints the error of reading the file with a secret that a key names,
// if there is one.
func (s *session) checkSecret(cfg *config.Config, key, path string, err error, mend string) (errs int) {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return s.missing(cfg, key, path, err)
	}
	fmt.Fprintln(s.stdout, config.Problem{Origin: cfg.Where(key), Key: key, Reason: err.Error(), Mend: mend})
	return 1
}

// missing prints that the file a key names cannot be read.
func (s *session) missing(cfg *config.Config, key, path string, err error) int {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err // without the operation
	}
	fmt.Fprintln(s.stdout, config.Problem{Origin: cfg.Where(key), Key: key, Reason: fmt.Sprintf("%q: %v", path, err), Mend: "check the path and the permissions"})
	return 1
}
