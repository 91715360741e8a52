package fault

import "time"

// Crashed is one death as clients saw it, and as the server told of it. Times count from
// the kill.
type Crashed struct {
	Saw    time.Duration   // to the last wrong answer
	Others []time.Duration // to those of the witnesses, in their order
	Told   Told
	TTL    time.Duration // the greatest that was sent with the instance
	Lost   time.Duration // to etcd's event that the registration is gone; 0: there was none
}

// Crashes are deaths, run by run.
type Crashes []Crashed

// Saw is what a client saw.
func (c Crashes) Saw() Times {
	return c.times(func(one *Crashed) time.Duration { return one.Saw })
}

// Other is what a client of the i-th witness saw.
func (c Crashes) Other(i int) Times {
	return c.times(func(one *Crashed) time.Duration { return one.Others[i] })
}

// Beyond is for how much longer a client of the i-th witness saw it.
func (c Crashes) Beyond(i int) Times {
	return c.times(func(one *Crashed) time.Duration { return one.Others[i] - one.Saw })
}

// Bound is the most that Beyond may be of a cache: the TTL sent, or what the cache keeps
// an answer for at least, and what it rounds by.
func (c Crashes) Bound(w Witness) time.Duration { return max(c.TTL(), w.Floor) + w.Round }

// TTL is the greatest that was sent.
func (c Crashes) TTL() time.Duration {
	return c.times(func(one *Crashed) time.Duration { return one.TTL }).Max()
}

// Lost are the times to etcd's event.
func (c Crashes) Lost() Times {
	return c.times(func(one *Crashed) time.Duration { return one.Lost })
}

// AfterLost are the times from etcd's event to the last wrong answer: below zero where
// the answer had changed when another client of etcd heard of it.
func (c Crashes) AfterLost() Times {
	return c.times(func(one *Crashed) time.Duration { return one.Saw - one.Lost })
}

// Unseen is by how much the client saw more than the server counts from the
// first sign: until then nothing could be known.
func (c Crashes) Unseen() Times {
	return c.times(func(one *Crashed) time.Duration { return one.Saw - one.Told.Wrong })
}

// Spare is by how much the client saw less than the server's bound. Runs without
// a bound are left out.
func (c Crashes) Spare() Times {
	var bounded Crashes
	for _, one := range c {
		if one.Told.Bound > 0 {
			bounded = append(bounded, one)
		}
	}
	return bounded.times(func(one *Crashed) time.Duration { return one.Told.Bound - one.Saw })
}

func (c Crashes) times(of func(*Crashed) time.Duration) Times {
	var t Times
	for i := range c {
		t = append(t, of(&c[i]))
	}
	return t
}
