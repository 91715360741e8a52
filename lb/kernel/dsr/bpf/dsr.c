// Direct server return: a packet for a VIP leaves by the interface that it came
// in by, to the MAC address of an instance, which has the VIP too and answers the
// client directly. Nothing but the two MAC addresses changes.
//
// One program for three places: XDP in the driver, XDP in the stack, tcx. Compiled
// while developing (go generate), the object is in the repository.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 65537
#define SEED 0x6d757374
#define REAL_DEAD 1

// RFC 792 and RFC 4443.
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP6_PACKET_TOO_BIG 2

// enum tcx_action_base, newer than the headers that compile this may be.
#define TCX_NEXT -1
#define TCX_DROP 2

// The hash reads its last words little end first on every machine.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LITTLE32(x) (x)
#define LITTLE16(x) (x)
#else
#define LITTLE32(x) __builtin_bswap32(x)
#define LITTLE16(x) __builtin_bswap16(x)
#endif

// Addresses of both families take 16 octets; IPv4 as ::ffff:a.b.c.d.
struct address {
	__u32 word[4];
};

struct front {
	struct address vip;
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

struct service {
	__u64 deadline; // of holding the VIP, CLOCK_MONOTONIC in ns; 0: none
	__u32 table;    // index in tables
	__u32 by_source; // the client's port does not count
};

struct flow {
	struct front front;
	struct address client;
	__be16 client_port;
	__u16 zero;
};

struct real {
	__u8 mac[ETH_ALEN];
	__u16 state; // written with the MAC address as one word
};

struct traffic {
	__u64 connections, packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct front);
	__type(value, struct service);
	__uint(max_entries, 256);
} services SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32); // index in reals; 0: none
	__uint(max_entries, SLOTS);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 512);
	__array(values, struct table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct real);
	__uint(max_entries, 4096);
} reals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow);
	__type(value, __u32); // index in reals
	__uint(max_entries, 262144);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(max_entries, 4096);
} counters SEC(".maps");

// The plane alone reads and writes who has which index.
struct name {
	struct front front;
	struct address instance;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct name);
	__uint(max_entries, 4096);
} names SEC(".maps");

// What a packet came to.
enum verdict {
	PASS,    // it is the stack's
	DROP,    // nobody may have it
	FORWARD, // its addresses are changed
};

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))

// slot_of is jhash and reciprocal_scale, as nftables computes them, so that both
// planes choose alike and Go needs one way to explain.
static __always_inline __u32 slot_of(const struct flow *f, int v4, int by_source)
{
	__u32 length = (v4 ? 4 : 16) + (by_source ? 0 : 4);
	__u32 port = by_source ? 0 : LITTLE16(f->client_port); // then two zeros
	__u32 a, b, c;

	a = b = c = 0xdeadbeef + length + SEED;
	if (v4) {
		a += LITTLE32(f->client.word[3]);
		b += port;
	} else {
		a += f->client.word[0];
		b += f->client.word[1];
		c += f->client.word[2];
		a -= c; a ^= ROTATE(c, 4); c += b;
		b -= a; b ^= ROTATE(a, 6); a += c;
		c -= b; c ^= ROTATE(b, 8); b += a;
		a -= c; a ^= ROTATE(c, 16); c += b;
		b -= a; b ^= ROTATE(a, 19); a += c;
		c -= b; c ^= ROTATE(b, 4); b += a;
		a += LITTLE32(f->client.word[3]);
		b += port;
	}
	c ^= b; c -= ROTATE(b, 14);
	a ^= c; a -= ROTATE(c, 11);
	b ^= a; b -= ROTATE(a, 25);
	c ^= b; c -= ROTATE(b, 16);
	a ^= c; a -= ROTATE(c, 4);
	b ^= a; b -= ROTATE(a, 14);
	c ^= b; c -= ROTATE(b, 24);
	return (__u64)c * SLOTS >> 32;
}

// living returns a real that has a MAC address and is not dead.
static __always_inline struct real *living(__u32 index)
{
	struct real *r = index ? bpf_map_lookup_elem(&reals, &index) : 0;
	if (!r || r->state & REAL_DEAD)
		return 0;
	return r;
}

// chosen looks the client up in the service's table.
static __always_inline __u32 chosen(const struct service *s, const struct flow *f, int v4)
{
	__u32 at = s->table, slot = slot_of(f, v4, s->by_source);
	void *table = bpf_map_lookup_elem(&tables, &at);
	__u32 *index = table ? bpf_map_lookup_elem(table, &slot) : 0;
	return index ? *index : 0;
}

static __always_inline void v4_address(struct address *a, __be32 v)
{
	a->word[0] = a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = v;
}

struct icmp {
	__u8 type, code;
	__u16 checksum;
	__u32 rest;
};

// parsed is what a packet has to say.
struct parsed {
	struct flow flow; // of the client's direction
	int v4;
	int opens;   // a TCP connection
	int errand;  // an ICMP error about what an instance has sent
};

// ports reads those of TCP and UDP, which have the same place.
static __always_inline int ports(void *l4, void *end, struct parsed *p, int inner)
{
	__be16 *port = l4;

	if ((void *)(port + 2) > end)
		return 0;
	p->flow.client_port = inner ? port[1] : port[0];
	p->flow.front.port = inner ? port[0] : port[1];
	if (p->flow.front.protocol == IPPROTO_TCP && !inner) {
		struct tcphdr *tcp = l4;
		if ((void *)(tcp + 1) > end)
			return 0;
		p->opens = tcp->syn && !tcp->ack;
	}
	return p->flow.front.protocol == IPPROTO_TCP || p->flow.front.protocol == IPPROTO_UDP;
}

// parse4 leaves fragments and options to the stack, and of ICMP takes RFC 792's
// "fragmentation needed": it is about a packet that an instance has sent, whose
// source is the VIP and whose destination is the client.
static __always_inline int parse4(void *l3, void *end, struct parsed *p)
{
	struct iphdr *ip = l3;

	if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return 0;
	p->v4 = 1;
	if (ip->protocol == IPPROTO_ICMP) {
		struct icmp *icmp = (void *)(ip + 1);
		struct iphdr *inner = (void *)(icmp + 1);

		if ((void *)(inner + 1) > end || icmp->type != ICMP_UNREACHABLE || icmp->code != ICMP_FRAGMENTATION_NEEDED || inner->ihl != 5)
			return 0;
		p->errand = 1;
		p->flow.front.protocol = inner->protocol;
		v4_address(&p->flow.client, inner->daddr);
		v4_address(&p->flow.front.vip, inner->saddr);
		return ports(inner + 1, end, p, 1);
	}
	p->flow.front.protocol = ip->protocol;
	v4_address(&p->flow.client, ip->saddr);
	v4_address(&p->flow.front.vip, ip->daddr);
	return ports(ip + 1, end, p, 0);
}

static __always_inline void v6_address(struct address *a, const struct in6_addr *v)
{
	__builtin_memcpy(a, v, sizeof(*a));
}

// parse6 leaves extension headers to the stack, and of ICMPv6 takes RFC 4443's
// "packet too big".
static __always_inline int parse6(void *l3, void *end, struct parsed *p)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->nexthdr == IPPROTO_ICMPV6) {
		struct icmp *icmp = (void *)(ip + 1);
		struct ipv6hdr *inner = (void *)(icmp + 1);

		if ((void *)(inner + 1) > end || icmp->type != ICMP6_PACKET_TOO_BIG)
			return 0;
		p->errand = 1;
		p->flow.front.protocol = inner->nexthdr;
		v6_address(&p->flow.client, &inner->daddr);
		v6_address(&p->flow.front.vip, &inner->saddr);
		return ports(inner + 1, end, p, 1);
	}
	p->flow.front.protocol = ip->nexthdr;
	v6_address(&p->flow.client, &ip->saddr);
	v6_address(&p->flow.front.vip, &ip->daddr);
	return ports(ip + 1, end, p, 0);
}

static __always_inline enum verdict balance(void *data, void *end, __u64 bytes)
{
	struct ethhdr *eth = data;
	struct parsed p = {};
	struct service *s;
	struct real *r = 0;
	struct traffic *t;
	__u32 index = 0, *known;
	int opened = 0;

	if ((void *)(eth + 1) > end || eth->h_dest[0] & 1)
		return PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!parse4(eth + 1, end, &p))
			return PASS;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!parse6(eth + 1, end, &p))
			return PASS;
	} else {
		return PASS;
	}
	s = bpf_map_lookup_elem(&services, &p.flow.front);
	if (!s)
		return PASS;
	if (s->deadline && bpf_ktime_get_ns() > s->deadline)
		return DROP;
	// A connection that opens is the table's choice. Others are known, or
	// another balancer knew them, whose table was the same.
	if (!p.opens) {
		known = bpf_map_lookup_elem(&flows, &p.flow);
		if (known) {
			index = *known;
			r = living(index);
		}
	}
	if (!r) {
		index = chosen(s, &p.flow, p.v4);
		r = living(index);
		if (!r)
			return PASS; // the stack refuses it
		if (!p.errand) {
			bpf_map_update_elem(&flows, &p.flow, &index, BPF_ANY);
			opened = p.opens || p.flow.front.protocol == IPPROTO_UDP;
		}
	}
	t = bpf_map_lookup_elem(&counters, &index);
	if (t) {
		t->connections += opened;
		t->packets++;
		t->bytes += bytes;
	}
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, r->mac, ETH_ALEN);
	return FORWARD;
}

SEC("xdp")
int dsr_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	switch (balance(data, end, end - data)) {
	case FORWARD:
		return XDP_TX;
	case DROP:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}

SEC("tcx/ingress")
int dsr_tcx(struct __sk_buff *ctx)
{
	// The headers may lie outside of the linear part: with an ICMP error's
	// inner header they have at most 106 octets.
	bpf_skb_pull_data(ctx, ctx->len < 106 ? ctx->len : 106);
	switch (balance((void *)(long)ctx->data, (void *)(long)ctx->data_end, ctx->len)) {
	case FORWARD:
		return bpf_redirect(ctx->ifindex, 0);
	case DROP:
		return TCX_DROP;
	default:
		return TCX_NEXT;
	}
}

char _license[] SEC("license") = "Apache-2.0";
