package kernel

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/musterdns/muster/lb"
)

// HashSeed is the same everywhere, so that all machines and planes choose alike.
const HashSeed = 0x6d757374

// Slot is the slot of the service's table that a client's new connection falls
// into, computed as the kernel does: jhash of the address, and of the port if that
// counts, scaled to the slots.
func Slot(s *Service, client netip.AddrPort) int {
	key := client.Addr().AsSlice()
	if s.Affinity == BySourcePort {
		key = binary.BigEndian.AppendUint16(key, client.Port())
		key = append(key, 0, 0) // a port fills a register
	}
	return int(reciprocalScale(jhash(key, HashSeed), lb.MaglevSlots))
}

// Choice is where a client's next connection goes.
type Choice struct {
	Slot     int
	Instance string // its id; "" if the service has none: the client is refused
	Addr     netip.AddrPort
}

// jhash is the kernel's (include/linux/jhash.h: Jenkins' lookup3 over bytes) for
// lengths that are multiples of 4, as what nftables keeps in its registers is.
// The kernel reads words in the byte order of the machine, so must this.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	for len(key) > 12 {
		a += binary.NativeEndian.Uint32(key)
		b += binary.NativeEndian.Uint32(key[4:])
		c += binary.NativeEndian.Uint32(key[8:])
		a, b, c = jhashMix(a, b, c)
		key = key[12:]
	}
	if len(key) == 0 {
		return c
	}
	// The last bytes are read one by one, little end first, on every machine.
	for i, word := range []*uint32{&a, &b, &c} {
		if len(key) >= 4*(i+1) {
			*word += binary.LittleEndian.Uint32(key[4*i:])
		}
	}
	return jhashFinal(a, b, c)
}

// jhashMix is __jhash_mix.
func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

// jhashFinal is __jhash_final.
func jhashFinal(a, b, c uint32) uint32 {
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return c
}

// reciprocalScale is the kernel's (include/linux/kernel.h): it maps a word to
// [0, n) without a division.
func reciprocalScale(word, n uint32) uint32 {
	return uint32(uint64(word) * uint64(n) >> 32)
}
