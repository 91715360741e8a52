package archtest_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// modulePath is what imports of our own packages begin with.
const modulePath = "github.com/musterdns/muster"

// goFile is one Go file of the repository.
type goFile struct {
	path    string // from the repository's top, with slashes
	pkg     string // the directory; "" is the top
	test    bool   // name ends in _test.go
	lines   int
	syntax  *ast.File
	imports []string
}

// tree is the repository's source, read once for all tests and not changed.
type tree struct {
	fset  *token.FileSet
	gos   []*goFile
	files []string // all files, Go or not, from the repository's top
}

// top is the repository's top directory as seen from this package.
const top = "../.."

// skippedDirs hold nothing that is ours or that git has.
var skippedDirs = []string{".git", ".bin", "dist", "bin", "node_modules"}

var source = sync.OnceValues(readTree)

// load returns the repository's source.
func load(t *testing.T) *tree {
	t.Helper()
	s, err := source()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readTree() (*tree, error) {
	s := &tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			// A file may vanish between the listing and the visit, when an
			// editor replaces it.
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			if slices.Contains(skippedDirs, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		s.files = append(s.files, rel)
		if path.Ext(rel) != ".go" || strings.Contains(rel, "/testdata/") {
			return nil
		}
		f, err := s.parse(name, rel)
		if err != nil {
			return err
		}
		s.gos = append(s.gos, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the repository: %w", err)
	}
	if len(s.gos) == 0 {
		return nil, errors.New("reading the repository: no Go files found")
	}
	return s, nil
}

// parse reads one Go file.
func (s *tree) parse(name, rel string) (*goFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(s.fset, name, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	f := &goFile{
		path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
		lines: strings.Count(string(text), "\n"), syntax: syntax,
	}
	if f.pkg == "." {
		f.pkg = ""
	}
	for _, i := range syntax.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		f.imports = append(f.imports, p)
	}
	return f, nil
}

// product yields the files that end up in a binary or a library.
func (s *tree) product(yield func(*goFile) bool) {
	for _, f := range s.gos {
		if !f.test && !yield(f) {
			return
		}
	}
}

// line is the line of pos.
func (s *tree) line(pos token.Pos) int { return s.fset.Position(pos).Line }

// under reports whether the package is dir or below it.
func under(pkg, dir string) bool {
	return dir == "" || pkg == dir || strings.HasPrefix(pkg, dir+"/")
}

// exemptions are files that need not obey a rule, each with its reason.
type exemptions map[string]string

// used remembers which exemptions were needed.
type used map[string]bool

// check fails for an exemption that nothing needed.
func (e exemptions) check(t *testing.T, u used) {
	t.Helper()
	for file, why := range e {
		if !u[file] {
			t.Errorf("%s is exempt (%s) but no longer needs it: remove the row", file, why)
		}
	}
}
