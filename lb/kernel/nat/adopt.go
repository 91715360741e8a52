package nat

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb"
)

// smallNames yields the names of the sets that every table has, but the dead.
func smallNames() iter.Seq[string] {
	return slices.Values([]string{
		setFronts, setVIPs, setInstances, setMasquerade, setConnections, setSent, setReplied, setFenced, setHeld,
	})
}

// read fills the half with what the kernel has: what an earlier process left, or
// what a failed transaction did not change.
func (h *half) read(c *nftables.Conn, name string) error {
	*h = *newHalf(h.family)
	tables, err := c.ListTablesOfFamily(h.table)
	if err != nil {
		return fmt.Errorf("listing tables: %w", explainError(err))
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	table := tables[i]
	chains, err := c.ListChainsOfTableFamily(h.table)
	if err != nil {
		return fmt.Errorf("listing chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name != name {
			continue
		}
		h.exists = h.exists || chain.Name == layoutVersion
		for _, s := range shapes() {
			if chain.Name == s.String() {
				h.shape = &s
			}
		}
		if strings.HasPrefix(chain.Name, choosePrefix) {
			h.chains[chain.Name] = nil
		}
	}
	if !h.exists { // another layout: it will be replaced
		*h = *newHalf(h.family)
		h.strange = true
		return nil
	}
	sets, err := c.GetSets(table)
	if err != nil {
		return fmt.Errorf("listing sets: %w", err)
	}
	for _, set := range sets {
		elements, err := c.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("reading set %s: %w", set.Name, err)
		}
		if !h.take(set.Name, elements) { // somebody else has written here: begin anew
			*h = *newHalf(h.family)
			h.strange = true
			return nil
		}
	}
	return nil
}

// take enters what a set contains. It reports whether Muster can have left it so.
func (h *half) take(name string, elements []nftables.SetElement) bool {
	if service, ok := strings.CutPrefix(name, slotsPrefix); ok {
		return h.takeSlots(service, elements)
	}
	if name == setDead {
		for _, e := range elements {
			h.dead[string(e.Key)] = time.Now()
		}
		return true
	}
	if !slices.Contains(slices.Collect(smallNames()), name) {
		return false
	}
	set := map[string]string{}
	for _, e := range elements {
		set[string(e.Key)] = chainOf(e.Val)
	}
	h.sets[name] = set
	return true
}

// takeSlots enters a service's slots: all or none.
func (h *half) takeSlots(service string, elements []nftables.SetElement) bool {
	h.slots[service] = nil
	if len(elements) == 0 {
		return true
	}
	size := h.targetSize()
	slots := make([]byte, lb.MaglevSlots*size)
	for _, e := range elements {
		if len(e.Key) != 4 || len(e.Val) != size {
			return false
		}
		slot := int(binary.NativeEndian.Uint32(e.Key))
		if slot >= lb.MaglevSlots {
			return false
		}
		copy(slots[slot*size:], e.Val)
	}
	h.slots[service] = slots
	return len(elements) == lb.MaglevSlots // no key is there twice
}

// chainOf is the chain that a verdict names; "" for what is no verdict.
func chainOf(verdict []byte) string {
	d, err := netlink.NewAttributeDecoder(verdict)
	if err != nil {
		return ""
	}
	for d.Next() {
		if d.Type() == unix.NFTA_VERDICT_CHAIN {
			return d.String()
		}
	}
	return ""
}
