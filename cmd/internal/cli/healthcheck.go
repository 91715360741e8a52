package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) healthcheckCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Ask whether the server is ready, for containers and scripts", GroupID: groupServer, Args: arguments(0, 0),
		Long: `Asks the server's /readyz. The exit code is 0 when it is ready, 3 when it is not yet,
and 1 when it does not answer.`,
		Example: `  HEALTHCHECK CMD ["muster", "healthcheck"]
  muster healthcheck --wait 10s && run-the-tests`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), max(wait, healthcheckTimeout))
			defer cancel()
			err = c.Ready(ctx)
			for wait > 0 && err != nil && sleep(ctx, healthcheckInterval) {
				if again := c.Ready(ctx); ctx.Err() == nil {
					err = again
				}
			}
			if notReady, ok := errors.AsType[*api.Error](err); ok && notReady.Status == http.StatusServiceUnavailable {
				return &codeError{code: exitNotReady, err: errors.New(strings.ReplaceAll(notReady.Message, "\n", ": "))}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.stdout, "ready")
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "ask again for this `time` until it is ready")
	return s.online(cmd)
}

// healthcheckTimeout bounds the question; a container's runtime has a limit of
// its own, 30 s by default.
const healthcheckTimeout = 5 * time.Second

// healthcheckInterval is how often --wait asks.
const healthcheckInterval = 50 * time.Millisecond

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
