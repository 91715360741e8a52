package etcd_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestSource_Share/all_who_make_a_value_at_once_end_up_with_one.
func TestSource_Share(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name+"/all who make a value at once end up with one", func(t *testing.T) {
			url, _ := b.start(t, t.TempDir(), "127.0.0.1:0")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var made [4]string
			var servers sync.WaitGroup
			for i := range made {
				src := newSource(t, 1, "/muster/v1", url)
				servers.Go(func() {
					value, err := src.Share(ctx, "cookies", func(old []byte) ([]byte, error) {
						if old != nil {
							return nil, nil
						}
						return fmt.Appendf(nil, "server %d", i), nil
					})
					if err != nil {
						t.Error(err)
					}
					made[i] = string(value)
				})
			}
			servers.Wait()
			for _, v := range made {
				if v == "" || v != made[0] {
					t.Errorf("the servers have %q", made)
				}
			}
			value, err := newSource(t, 1, "/muster/v1", url).Share(ctx, "cookies", func(old []byte) ([]byte, error) { return append(old, '!'), nil })
			if err != nil || string(value) != made[0]+"!" {
				t.Errorf("changed to %q, %v", value, err)
			}
		})
	}
}
