package admin

import (
	"embed"
	"io/fs"
	"net/http"
)

// consoleFiles are what the console is made of: as they are, without a build.
//
//go:embed console
var consoleFiles embed.FS

// consolePolicy lets the console load its own files and read the API, and nothing else:
// no inline script or style, no other host, no frame around it.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// console serves the operator's page at / and its files below /console/. What it shows
// comes from the API, which has its own rules; it changes nothing.
func console(mux *http.ServeMux) {
	files := http.FileServerFS(consoleFiles)
	headers := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Security-Policy", consolePolicy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cache-Control", "no-cache")
			next.ServeHTTP(w, r)
		})
	}
	index, err := fs.ReadFile(consoleFiles, "console/index.html")
	if err != nil {
		panic("admin: the console is not embedded: " + err.Error()) // unreachable: the compiler has seen it
	}
	mux.Handle("GET /{$}", headers(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(index) // the client may have gone
	})))
	for _, name := range []string{"app.js", "style.css"} {
		mux.Handle("GET /console/"+name, headers(files))
	}
}
