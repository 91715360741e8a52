package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// arguments accepts so many arguments, and else says how the command is written.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		problem := "too few arguments"
		switch {
		case len(args) > most:
			problem = "too many arguments"
		case len(args) >= least:
			return nil
		}
		return usagef("%s: write `%s`", problem, cmd.UseLine())
	}
}

// uint16Var defines a flag of a number from least to 65535, which out of range
// is refused with the range.
func uint16Var(fs *pflag.FlagSet, p *uint16, name string, value, least uint16, usage string) {
	*p = value
	fs.Var(&uint16Flag{p, least}, name, usage)
}

type uint16Flag struct {
	value *uint16
	least uint16
}

// String is the value (pflag.Value).
func (f *uint16Flag) String() string {
	if f.value == nil { // pflag makes a zero flag to find out what is the default
		return "0"
	}
	return strconv.Itoa(int(*f.value))
}

// Set takes the value, when it is in range (pflag.Value).
func (f *uint16Flag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || uint16(n) < f.least {
		return fmt.Errorf("must be a whole number, %d to 65535", f.least)
	}
	*f.value = uint16(n)
	return nil
}

// Type is what help calls the value (pflag.Value).
func (f *uint16Flag) Type() string { return "number" }
