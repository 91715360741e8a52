package pool

import (
	"context"
	"sync"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// Said is a change of what this server tells the others of an instance.
type Said struct {
	Source registry.SourceID
	Report registry.Report
	// Withdrawn says that it has nothing to say of it any more.
	Withdrawn bool
}

// outbox holds what is to be told, the last word on each instance: its bound is
// the number of instances.
type outbox struct {
	ready chan struct{} // 1-slot: there is something, or Suspect has changed

	mu   sync.Mutex
	said map[saidKey]Said
}

type saidKey struct {
	source            registry.SourceID
	service, instance string
}

func newOutbox() outbox { return outbox{ready: make(chan struct{}, 1), said: map[saidKey]Said{}} }

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// put adds words; with unless, only on instances of which there is none yet.
func (o *outbox) put(unless bool, list ...Said) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, said := range list {
		k := saidKey{said.Source, said.Report.Service, said.Report.Instance}
		if _, there := o.said[k]; !there || !unless {
			o.said[k] = said
		}
	}
	if len(o.said) > 0 {
		o.wake()
	}
}

// SaidReady receives a value when there is something for TakeSaid, and when
// Suspect has changed; 1-slot.
func (p *Pool) SaidReady() <-chan struct{} { return p.outbox.ready }

// TakeSaid takes up to n changes of what this server tells the others, in any
// order. Those that could not be written go back by ReturnSaid.
func (p *Pool) TakeSaid(n int) []Said {
	o := &p.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Said, 0, min(n, len(o.said)))
	for k, said := range o.said {
		if len(list) == n {
			o.wake()
			break
		}
		list = append(list, said)
		delete(o.said, k)
	}
	return list
}

// ReturnSaid puts back what could not be written; newer words stay.
func (p *Pool) ReturnSaid(list []Said) { p.outbox.put(true, list...) }

// SayAgain has everything told again: what was told was lost.
func (p *Pool) SayAgain(ctx context.Context) error {
	return p.ask(ctx, func() {
		for _, src := range p.w.sources {
			for _, s := range src.services {
				for i := range s.insts {
					s.insts[i].said = health.Unknown
				}
				p.w.mark(s)
			}
		}
		p.w.flush(time.Now())
	})
}

// say tells the others what the own checks of an instance find, when that is
// new to them, and why: what the checks say, unless a reason is given. To nobody
// nothing is told, but what was told is kept right.
func (w *writer) say(s *svc, in *inst, own health.State, reason string) {
	sh := &w.sharing
	switch {
	case !sh.member, own == in.said, s.src.away:
		return
	case in.said == health.Unknown && (sh.share == nil || s.src.alone && !w.isAssigned(s, in)):
		return
	}
	in.said = own
	if reason == "" {
		reason = w.output(s, in, own)
	}
	said := Said{
		Source: s.src.cfg.ID, Withdrawn: own == health.Unknown,
		Report: registry.Report{
			Service: s.name, Instance: string(in.rec.id()), Checker: sh.self, Passing: own == health.Passing,
			Reason: reason, Since: time.Now(), Incarnation: in.rec.incarnation(),
		},
	}
	if own == health.Failing {
		_, seen := w.ownSign(in)
		said.Report.FirstSign, said.Report.LastGood = seen.first, seen.good
	}
	w.pool.outbox.put(false, said)
}

// silenceTold is for how long the others are told at most that an instance is
// silent which this server does not check: as long as it is, this is said again.
const silenceTold = 5 * time.Second

// saySilent tells of such an instance, for those who check it to do so sooner: a
// report of who does not check an instance has no say. The next look at the
// service takes it back.
func (w *writer) saySilent(s *svc, in *inst, why string, now time.Time) {
	if s.src.alone || in.mine || !in.watched {
		return
	}
	w.say(s, in, health.Failing, why)
	w.schedule(s, now.Add(silenceTold).UnixNano())
}

// unshare forgets an instance that goes.
func (w *writer) unshare(s *svc, in *inst, now time.Time) {
	w.tally(in, health.Unknown, now.UnixNano())
	if in.said != health.Unknown {
		w.say(s, in, health.Unknown, "")
	}
}
