package health

import "slices"

// Several servers that check the same instance come to one verdict by Quorum.
// Which servers check it is a Share's matter. Both are pure: every server that
// knows the same members and reports finds the same.

// Vote is what one server's checks say of an instance.
type Vote struct {
	State State // Unknown: it has no say
	// Suspect says that the server doubts its own checks, see Guard. Its
	// successes count like any other's: nothing passes by a broken network.
	Suspect bool
}

// Quorum returns the verdict on an instance which was in the state before. It
// changes by a majority of the votes alone: with as many for as against, it
// stays, so that a server which joins, leaves or has not found out yet flips
// nothing.
//
// Failures that suspects see do not make an instance fail while another sees
// it at all, but they keep one that failed from passing again by fewer
// successes than there are suspects: what looks like the failure of one
// server's network while it begins may turn out to be that of the instances.
// Where all who have a say are suspects, they are believed.
func Quorum(before State, votes []Vote) State {
	var passes, failures, doubtful int
	for _, v := range votes {
		switch {
		case v.State == Passing:
			passes++
		case v.State == Failing && v.Suspect:
			doubtful++
		case v.State == Failing:
			failures++
		}
	}
	if passes == 0 && failures == 0 {
		failures, doubtful = doubtful, 0
	}
	switch {
	case failures > passes:
		return Failing
	case passes > failures && (before != Failing || passes >= doubtful):
		return Passing
	default:
		return before
	}
}

const (
	// CheckersMax is how many servers check one instance: with three, one that
	// is wrong is outvoted, and more would cost probes and decide no better.
	CheckersMax = 3
	// SharersMax is how many servers share the checking; beyond it the last by
	// name are left out, and rely on the others.
	SharersMax = 256
)

// Share is the servers that share the checking. It is immutable, and safe for
// concurrent use.
type Share struct {
	names  []string
	hashes []uint64
}

// NewShare makes a Share of the servers with these names, which must be sorted
// and distinct. It keeps names.
func NewShare(names []string) *Share {
	s := &Share{names: names[:min(len(names), SharersMax)]}
	for _, n := range s.names {
		h := uint64(14695981039346656037) // FNV-1a: the same in every server
		for i := range len(n) {
			h = (h ^ uint64(n[i])) * 1099511628211
		}
		s.hashes = append(s.hashes, mix(h))
	}
	return s
}

// Len is the number of servers.
func (s *Share) Len() int { return len(s.names) }

// Name is the i-th server's.
func (s *Share) Name(i int) string { return s.names[i] }

// Same reports whether both are of the same servers.
func (s *Share) Same(other *Share) bool { return slices.Equal(s.names, other.names) }

// Place is the place of a server; -1: it is none of them.
func (s *Share) Place(name string) int {
	if i, there := slices.BinarySearch(s.names, name); there {
		return i
	}
	return -1
}

// Checkers appends to dst which servers check what has the hash key: the
// CheckersMax, or as many as there are, that rendezvous hashing puts first. When
// a server comes or goes, only what it is or was among the first for changes
// its checkers, and of these one.
func (s *Share) Checkers(dst []int, key uint64) []int {
	if len(s.names) <= CheckersMax {
		for i := range s.names {
			dst = append(dst, i)
		}
		return dst
	}
	var best [CheckersMax]int
	var scores [CheckersMax]uint64
	for i, h := range s.hashes {
		score := mix(h ^ key)
		for at := range best {
			if i <= at || score > scores[at] {
				copy(best[at+1:], best[at:])
				copy(scores[at+1:], scores[at:])
				best[at], scores[at] = i, score
				break
			}
		}
	}
	return append(dst, best[:]...)
}

// mix is MurmurHash3's last step: every bit of h matters to every bit of what
// it returns.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
