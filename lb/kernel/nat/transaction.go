package nat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/musterdns/muster/lb"
)

// chunk is how many elements go into one message, whose list of elements must
// not be longer than 65,535 octets. An IPv6 slot takes 56.
const chunk = 1000

// transaction collects the messages that make of one table another.
type transaction struct {
	*nftables.Conn
	table        *nftables.Table
	before, next *half
	small        map[string]*nftables.Set
	err          error // the first
}

func newTransaction(c *nftables.Conn, name string, before, next *half) *transaction {
	return &transaction{
		Conn: c, before: before, next: next,
		table: &nftables.Table{Name: name, Family: next.family.table},
	}
}

// write queues all messages; Flush sends them.
func (t *transaction) write() error {
	t.small, t.err = t.next.smallSets(t.table)
	if t.err != nil {
		return t.err
	}
	if !t.before.exists {
		t.create()
	}
	t.reshape()
	t.services()
	for name := range smallNames() {
		if name != setHeld {
			t.elements(name)
		}
	}
	t.graves()
	for service := range t.next.slots {
		t.slots(service)
	}
	t.sweep()
	return t.err
}

// fill queues the slots of one service alone.
func (t *transaction) fill(service string) error {
	t.small, t.err = t.next.smallSets(t.table)
	if t.err != nil {
		return t.err
	}
	if !t.before.exists {
		t.create()
	}
	t.newSlots(service)
	t.slots(service)
	return t.err
}

// note keeps the first error.
func (t *transaction) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

// create makes a table with its sets. What is there by that name was not made by this
// version.
func (t *transaction) create() {
	t.AddTable(t.table) // so that there is one to delete
	t.DelTable(t.table)
	t.AddTable(t.table)
	t.AddChain(&nftables.Chain{Name: layoutVersion, Table: t.table})
	for _, set := range t.small {
		t.note(t.AddSet(set, nil))
	}
}

// reshape makes the chains that every table has with their rules, unless those that
// there are have its shape.
func (t *transaction) reshape() {
	before, next := t.before.shape, t.next.shape
	if before != nil && *before == *next {
		return
	}
	old := map[string]bool{}
	if before != nil {
		t.DelChain(&nftables.Chain{Name: before.String(), Table: t.table})
		for _, c := range t.next.layout(*before) {
			t.FlushChain(&nftables.Chain{Name: c.name, Table: t.table})
			old[c.name] = true
		}
	}
	t.AddChain(&nftables.Chain{Name: next.String(), Table: t.table})
	chains := t.next.layout(*next)
	for _, c := range chains {
		if !old[c.name] {
			t.AddChain(&nftables.Chain{Name: c.name, Table: t.table, Hooknum: c.hook, Type: c.kind, Priority: c.priority})
		}
		delete(old, c.name)
	}
	for name := range old {
		t.DelChain(&nftables.Chain{Name: name, Table: t.table})
	}
	for _, c := range chains {
		t.rules(&nftables.Chain{Name: c.name, Table: t.table}, c.rules)
	}
}

func (t *transaction) rules(chain *nftables.Chain, rules [][]expr.Any) {
	for _, exprs := range rules {
		t.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: exprs})
	}
}

// services makes the maps and the chains of new services.
func (t *transaction) services() {
	for name := range t.next.slots {
		t.newSlots(name)
	}
	for name, service := range t.next.chains {
		if _, ok := t.before.chains[name]; ok {
			continue
		}
		chain := t.AddChain(&nftables.Chain{Name: name, Table: t.table})
		t.rules(chain, t.next.choose(service))
	}
}

// newSlots makes the map of a service that has none.
func (t *transaction) newSlots(service string) {
	if _, ok := t.before.slots[service]; ok {
		return
	}
	set, err := t.next.newSlots(t.table, service)
	t.note(err)
	t.note(t.AddSet(set, nil))
}

// elements changes a small set.
func (t *transaction) elements(name string) {
	was, is := t.before.sets[name], t.next.sets[name]
	var gone, come []nftables.SetElement
	for key, value := range was {
		if now, ok := is[key]; !ok || now != value {
			gone = append(gone, nftables.SetElement{Key: []byte(key)})
		}
	}
	for key, value := range is {
		if old, ok := was[key]; ok && old == value {
			continue
		}
		e := nftables.SetElement{Key: []byte(key)}
		if name == setFronts {
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: value}
		}
		come = append(come, e)
	}
	t.replace(t.small[name], gone, come)
}

// graves changes the set of the dead. The kernel may have forgotten one of its
// own accord, and to delete what is not there would fail: it is added first.
func (t *transaction) graves() {
	var gone, come []nftables.SetElement
	for key := range t.before.dead {
		if _, ok := t.next.dead[key]; !ok {
			gone = append(gone, nftables.SetElement{Key: []byte(key)})
		}
	}
	for key, since := range t.next.dead {
		if before, ok := t.before.dead[key]; ok && before.Equal(since) {
			continue
		} else if ok {
			gone = append(gone, nftables.SetElement{Key: []byte(key)})
		}
		come = append(come, nftables.SetElement{Key: []byte(key)})
	}
	t.replace(t.small[setDead], nil, gone)
	t.replace(t.small[setDead], gone, come)
}

// slots rewrites the slots of a service that have changed. There are so many that
// they are queued chunk by chunk in one place.
func (t *transaction) slots(service string) {
	set := &nftables.Set{Table: t.table, Name: slotsName(service), IsMap: true}
	was, is, size := t.before.slots[service], t.next.slots[service], t.next.targetSize()
	moved := differences(t.before, t.next, service)
	keys := make([]byte, 0, 4*min(chunk, len(moved)))
	elements := make([]nftables.SetElement, 0, min(chunk, len(moved)))
	for part := range slices.Chunk(moved, chunk) {
		keys, elements = keys[:0], elements[:0]
		for i, slot := range part {
			keys = appendSlotKey(keys, slot)
			elements = append(elements, nftables.SetElement{Key: keys[4*i : 4*i+4]})
		}
		if was != nil {
			t.note(t.SetDeleteElements(set, elements))
		}
		if is == nil {
			continue
		}
		for i, slot := range part {
			elements[i].Val = is[int(slot)*size:][:size]
		}
		t.note(t.SetAddElements(set, elements))
	}
}

// differences lists the slots of a service that change.
func differences(before, next *half, service string) []uint32 {
	was, is := before.slots[service], next.slots[service]
	if len(was) > 0 && len(is) > 0 && &was[0] == &is[0] || len(was) == 0 && len(is) == 0 {
		return nil // carried over, or none
	}
	size := next.targetSize()
	out := make([]uint32, 0, lb.MaglevSlots/16)
	for slot := range lb.MaglevSlots {
		at := slot * size
		if len(was) != len(is) || string(was[at:at+size]) != string(is[at:at+size]) {
			out = append(out, uint32(slot))
		}
	}
	return out
}

// changed counts the slots that change.
func changed(before, next *half) int {
	n := 0
	for service := range next.slots {
		n += len(differences(before, next, service))
	}
	return n
}

// replace deletes and then adds elements.
func (t *transaction) replace(set *nftables.Set, gone, come []nftables.SetElement) {
	for part := range slices.Chunk(gone, chunk) {
		t.note(t.SetDeleteElements(set, part))
	}
	for part := range slices.Chunk(come, chunk) {
		t.note(t.SetAddElements(set, part))
	}
}

// sweep removes the chains and maps of services that are gone; nothing refers to
// them any more.
func (t *transaction) sweep() {
	for name := range t.before.chains {
		if _, ok := t.next.chains[name]; !ok {
			chain := &nftables.Chain{Name: name, Table: t.table}
			t.FlushChain(chain)
			t.DelChain(chain)
		}
	}
	for name := range t.before.slots {
		if _, ok := t.next.slots[name]; !ok {
			t.DelSet(&nftables.Set{Table: t.table, Name: slotsName(name)})
		}
	}
}

// explainError adds to what the kernel says what most often is behind it.
func explainError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (nftables needs CAP_NET_ADMIN)", err)
	case errors.Is(err, syscall.EMSGSIZE), errors.Is(err, syscall.ENOBUFS):
		return fmt.Errorf("%w (the transaction is larger than the socket's buffer)", err)
	case errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w (more than %d instances)", err, setSizeMax)
	default:
		return err
	}
}
