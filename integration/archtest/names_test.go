package archtest_test

import (
	"go/ast"
	"strings"
)

// selectors yields the uses of names of the imported package in f.
func selectors(f *goFile, imported string) func(yield func(*ast.SelectorExpr) bool) {
	return func(yield func(*ast.SelectorExpr) bool) {
		name := localName(f, imported)
		if name == "" {
			return
		}
		for n := range ast.Preorder(f.syntax) {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			// The parser leaves the names of imports unresolved.
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && x.Obj == nil && !yield(sel) {
				return
			}
		}
	}
}

// localName is how f calls an imported package; "" if it does not import it.
func localName(f *goFile, imported string) string {
	for _, i := range f.syntax.Imports {
		if strings.Trim(i.Path.Value, `"`) != imported {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return imported[strings.LastIndex(imported, "/")+1:]
	}
	return ""
}

// methods yields the uses of members of the variables or parameters that are
// called receiver in f.
func methods(f *goFile, receiver string) func(yield func(*ast.SelectorExpr) bool) {
	return func(yield func(*ast.SelectorExpr) bool) {
		for n := range ast.Preorder(f.syntax) {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == receiver && x.Obj != nil && !yield(sel) {
				return
			}
		}
	}
}
