package archtest_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// mutableVars are files with a package variable that something writes.
var mutableVars = exemptions{}

func TestCode_PackageVariablesAreNeverWritten(t *testing.T) {
	s := load(t)
	needed := used{}
	report := func(f *goFile, pos token.Pos, name, what string) {
		if _, ok := mutableVars[f.path]; ok {
			needed[f.path] = true
			return
		}
		t.Errorf("%s:%d: package variable %s %s; only errors, tables that are never written and `var _ I` may be package variables", f.path, s.line(pos), name, what)
	}
	vars := map[string]map[string]bool{} // package to the names of its variables
	for f := range s.product {
		if vars[f.pkg] == nil {
			vars[f.pkg] = map[string]bool{}
		}
		for spec := range packageVars(f) {
			for _, n := range spec.Names {
				vars[f.pkg][n.Name] = true
				if what := mutableSpec(f, spec); what != "" && n.Name != "_" {
					report(f, n.Pos(), n.Name, what)
				}
			}
		}
	}
	for f := range s.product {
		for id := range written(f) {
			if id.Name != "_" && vars[f.pkg][id.Name] && packageLevel(f, id) {
				report(f, id.Pos(), id.Name, "is written")
			}
		}
	}
	mutableVars.check(t, needed)
}

// packageVars yields the declarations of f's package variables that carry no
// compiler directive (go:embed fills a variable before anything runs).
func packageVars(f *goFile) func(yield func(*ast.ValueSpec) bool) {
	return func(yield func(*ast.ValueSpec) bool) {
		for _, d := range f.syntax.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR || embeds(gen.Doc) {
				continue
			}
			for _, s := range gen.Specs {
				spec, ok := s.(*ast.ValueSpec)
				if ok && !embeds(spec.Doc) && !yield(spec) {
					return
				}
			}
		}
	}
}

// embeds reports whether a comment holds a go:embed directive.
func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// mutableSpec says why a variable can only be meant to be written; "" if not.
func mutableSpec(f *goFile, spec *ast.ValueSpec) string {
	if len(spec.Values) == 0 {
		return "has no value"
	}
	for _, pkg := range []string{"sync", "sync/atomic"} {
		name := localName(f, pkg)
		for _, e := range append([]ast.Expr{spec.Type}, spec.Values...) {
			if lit, ok := e.(*ast.CompositeLit); ok {
				e = lit.Type
			}
			sel, ok := e.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			if x, ok := sel.X.(*ast.Ident); ok && name != "" && x.Name == name {
				return "is a " + pkg + "." + sel.Sel.Name
			}
		}
	}
	return ""
}

// written yields the leftmost identifiers of what f assigns to or counts up or
// down.
func written(f *goFile) func(yield func(*ast.Ident) bool) {
	return func(yield func(*ast.Ident) bool) {
		for n := range ast.Preorder(f.syntax) {
			var targets []ast.Expr
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					targets = n.Lhs
				}
			case *ast.IncDecStmt:
				targets = []ast.Expr{n.X}
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					targets = []ast.Expr{n.Key, n.Value}
				}
			}
			for _, e := range targets {
				if id := leftmost(e); id != nil && !yield(id) {
					return
				}
			}
		}
	}
}

// leftmost is the variable that an expression is stored in; nil if none.
func leftmost(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// packageLevel reports whether an identifier that has the name of a package
// variable means it: it is declared in f's package block, or not in f at all.
func packageLevel(f *goFile, id *ast.Ident) bool {
	return id.Obj == nil || f.syntax.Scope.Lookup(id.Name) == id.Obj
}
