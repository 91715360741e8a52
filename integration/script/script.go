// Package script tests what people type, on the built binary as server and as
// command. testdata/script has scripts of testscript, a story each.
//
// And it replays transcripts: the fenced console blocks of a document
// that stand behind the line `<!-- replay -->` are run against a real server and
// must print what the document says.
//
// A line that begins with "$ " is a command for bash; the lines up to the next
// one, or the end of the block, are its output. In an expected line `...` stands
// for anything. A command is run again until its output is as expected or
// patience has run out, since a reader too looks again.
package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// patience is how long a command may take to print what is expected: longer
// than any check and TTL of the samples.
const patience = 10 * time.Second

// again is how long after a failed try the next one comes.
const again = 100 * time.Millisecond

// mark stands before a block that is to be replayed.
const mark = "<!-- replay -->"

// Step is one command and the output that is expected of it.
type Step struct {
	File    string
	Line    int // of the command
	Command string
	Want    []string
}

// Steps reads the steps of a document. It is an error when there is none: a
// test of nothing would pass.
func Steps(file string) ([]Step, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var steps []Step
	marked, inside := false, false
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case inside && line == "```":
			inside = false
		case inside && strings.HasPrefix(line, "$ "):
			steps = append(steps, Step{File: file, Line: i + 1, Command: line[2:]})
		case inside && len(steps) > 0:
			last := &steps[len(steps)-1]
			last.Want = append(last.Want, line)
		case line == mark:
			marked = true
		case marked && strings.HasPrefix(line, "```"):
			marked, inside = false, true
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("%s: no command behind %s", file, mark)
	}
	return steps, nil
}

// Replace changes a text in all commands, for a server that is not where the
// document has it, and in what is expected.
func Replace(steps []Step, r *strings.Replacer) {
	for i := range steps {
		steps[i].Command = r.Replace(steps[i].Command)
		for j := range steps[i].Want {
			steps[i].Want[j] = r.Replace(steps[i].Want[j])
		}
	}
}

// Run runs the step's command with the environment until it prints what is
// expected. The error names the step's place and shows both.
func (s *Step) Run(ctx context.Context, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		cmd := exec.CommandContext(ctx, "bash", "-c", s.Command)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err == nil && !s.matches(string(out)) {
			err = errors.New("not what is expected")
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s:%d: $ %s\nprints (%w):\n%swant:\n%s", s.File, s.Line, s.Command, err, out, strings.Join(s.Want, "\n"))
		case <-tick.C:
		}
	}
}

// matches compares line by line, without white space at the ends of lines.
func (s *Step) matches(out string) bool {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if out == "" {
		lines = nil
	}
	if len(lines) != len(s.Want) {
		return false
	}
	for i, want := range s.Want {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(want, " ")), `\.\.\.`, ".*")
		if ok, err := regexp.MatchString("^"+pattern+"$", strings.TrimRight(lines[i], " ")); err != nil || !ok {
			return false
		}
	}
	return true
}
