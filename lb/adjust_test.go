package lb_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

func TestSlowStart(t *testing.T) {
	const window = 30 * time.Second
	for _, c := range []struct {
		elapsed, window time.Duration
		aggression      float64
		want            float64
	}{
		{window / 2, window, 1, 0.5},
		{window / 4, window, 2, 0.5},
		{0, window, 1, 0.1},
		{time.Second, window, 1, 0.1},
		{window, window, 1, 1},
		{2 * window, window, 1, 1},
		{0, 0, 1, 1},
		{window / 2, window, 0, 0.5},
		{-time.Second, window, 1, 0.1},
	} {
		if got := lb.SlowStart(c.elapsed, c.window, c.aggression); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("SlowStart(%v, %v, %v) = %v, want %v", c.elapsed, c.window, c.aggression, got, c.want)
		}
	}
}

// fleet is a model of instances behind caches: each carries the part of the
// traffic that its factor had at the last step.
type fleet struct {
	capacity, factors, smoothed []float64
	traffic                     float64
}

func newFleet(traffic float64, capacity ...float64) *fleet {
	f := &fleet{capacity: capacity, traffic: traffic}
	for range capacity {
		f.factors = append(f.factors, 1)
		f.smoothed = append(f.smoothed, math.NaN())
	}
	return f
}

// loads is each instance's utilisation under the present factors.
func (f *fleet) loads() []float64 {
	var sum float64
	for _, factor := range f.factors {
		sum += factor
	}
	loads := make([]float64, len(f.factors))
	for i, factor := range f.factors {
		loads[i] = f.traffic * factor / sum / f.capacity[i]
	}
	return loads
}

// step lets one TTL go by.
func (f *fleet) step() {
	const ttl = 5 * time.Second
	for i, load := range f.loads() {
		f.smoothed[i] = lb.SmoothLoad(f.smoothed[i], load, ttl, 2*ttl)
	}
	lb.StepLoadFactors(f.factors, f.smoothed)
}

func TestStepLoadFactors(t *testing.T) {
	t.Run("unequal instances reach equal utilisation and stay there", func(t *testing.T) {
		f := newFleet(3, 1, 2, 4, 0.5)
		for range 30 {
			f.step()
		}
		for range 50 {
			f.step()
			want := f.traffic / 7.5
			for i, load := range f.loads() {
				if math.Abs(load-want) > 0.02*want {
					t.Fatalf("instance %d at %.3f, want %.3f within 2 %%: %v", i, load, want, f.factors)
				}
			}
		}
	})
	t.Run("a step is at most half or double", func(t *testing.T) {
		factors := []float64{1, 1, 1}
		lb.StepLoadFactors(factors, []float64{0.001, 100, 0.5})
		if factors[0] > 2 || factors[1] < 0.5 {
			t.Errorf("factors %v", factors)
		}
	})
	t.Run("without fresh reports the factors return to 1", func(t *testing.T) {
		factors := []float64{16, 1. / 16, 3}
		none := []float64{math.NaN(), -1, math.NaN()}
		for range 5 {
			lb.StepLoadFactors(factors, none)
		}
		for i, f := range factors {
			if f != 1 {
				t.Errorf("factor %d is %v, want 1", i, f)
			}
		}
	})
	t.Run("whatever is reported, factors stay within 16 of 1", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			factors := []float64{1, 1, 1, 1}
			for range rapid.IntRange(1, 30).Draw(t, "steps") {
				loads := make([]float64, len(factors))
				for i := range loads {
					loads[i] = rapid.OneOf(rapid.Float64Range(0, 2), rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), 1e300})).Draw(t, "load")
				}
				lb.StepLoadFactors(factors, loads)
				for i, f := range factors {
					if !(f >= 1./16 && f <= 16) {
						t.Fatalf("factor %d is %v after %v", i, f, loads)
					}
				}
			}
		})
	})
	t.Run("noise does not let all factors drift to one end", func(t *testing.T) {
		words := newWords(8)
		f := newFleet(2, 1, 1, 1, 1)
		for range 2_000 {
			for i, load := range f.loads() {
				f.smoothed[i] = load * (0.5 + float64(words.below(1000))/1000)
			}
			lb.StepLoadFactors(f.factors, f.smoothed)
		}
		product := 1.0
		for _, factor := range f.factors {
			product *= factor
		}
		if product < 0.25 || product > 4 {
			t.Errorf("product of the factors %v, want about 1: %v", product, f.factors)
		}
	})
}

func TestSmoothLoad(t *testing.T) {
	for _, c := range []struct {
		name              string
		smoothed, report  float64
		elapsed, halfLife time.Duration
		want              float64
	}{
		{"the first report counts whole", math.NaN(), 0.7, 0, time.Second, 0.7},
		{"after a half-life, half", 1, 0, 10 * time.Second, 10 * time.Second, 0.5},
		{"after two, three quarters", 1, 0, 20 * time.Second, 10 * time.Second, 0.25},
		{"at once, nothing", 1, 0, 0, 10 * time.Second, 1},
		{"a clock that went back counts as at once", 1, 0, -time.Second, 10 * time.Second, 1},
		{"no smoothing", 1, 0.25, time.Second, 0, 0.25},
	} {
		if got := lb.SmoothLoad(c.smoothed, c.report, c.elapsed, c.halfLife); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
