// load PORT FILE OUTSTANDING SECONDS [RATE [SOURCES]]: asks 127.0.0.1:PORT the queries of
// FILE round and round, keeping OUTSTANDING of them unanswered at any time, and
// prints one JSON object. With a RATE it asks so many a second instead, whatever
// comes back: a flood.
//
// A query whose first label begins with an 'x' gets a number behind that, in eight
// hexadecimal digits, which no other has.
//
// FILE is a sequence of queries in wire form, each behind its length in two
// octets, high first. The id is replaced: its high octet is the generation of
// the slot that the low octet names, so that an answer that comes after its
// query was given up is not taken for another's.
//
// Queries of one length go out as one segmented datagram (UDP_SEGMENT), which
// makes sending several times cheaper than answering: the generator must have
// time left, and says how much (idle_ns), or it would be itself that is
// measured.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define SOURCES 8          // by default; a server's socket sees several clients
#define SOURCES_MAX 512
#define WINDOW_MAX 256     // slots a socket: one octet of the id
#define BATCH 64           // datagrams received, trains sent a system call
#define TRAIN 16           // queries a train
#define QUERY_MAX 512      // octets
#define REPLY_MAX 4096     // octets
#define LOST_NS 1000000000 // a query this old is lost
#define SCAN_NS 100000000  // how often lost ones are looked for
#define BUFFER (4 << 20)
#define LATENCY_MAX 100000 // microseconds; longer ones count as that

struct query { uint16_t len; uint8_t octets[QUERY_MAX]; };
struct slot { uint64_t sent; uint8_t generation, busy; };
struct source {
	int fd, nfree;
	uint8_t free[WINDOW_MAX];
	struct slot slot[WINDOW_MAX];
};

static struct query *queries;
static size_t nqueries, next;
static struct source sources[SOURCES_MAX];
static int nsources = SOURCES, window;
static uint64_t rate;
static uint32_t fresh;
static uint64_t sent, received, lost, stray, answers, octets, rcodes[16];
static uint32_t latencies[LATENCY_MAX + 1]; // by microseconds

static uint8_t rx_data[BATCH][REPLY_MAX], tx_data[BATCH][TRAIN * QUERY_MAX];
static struct iovec rx_part[BATCH], tx_part[BATCH];
static struct mmsghdr rx[BATCH], tx[BATCH];
static union { char room[CMSG_SPACE(sizeof(uint16_t))]; struct cmsghdr align; } tx_control[BATCH];

static uint64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what) {
	fprintf(stderr, "load: ");
	perror(what);
	exit(1);
}

static void read_queries(const char *name) {
	FILE *f = fopen(name, "rb");
	if (!f) fail(name);
	for (int high; (high = getc(f)) != EOF; nqueries++) {
		queries = realloc(queries, (nqueries + 1) * sizeof *queries);
		if (!queries) fail("memory");
		struct query *q = &queries[nqueries];
		q->len = high << 8 | getc(f);
		if (q->len < 12 || q->len > QUERY_MAX || fread(q->octets, 1, q->len, f) != q->len) {
			fprintf(stderr, "load: %s: query %zu is malformed\n", name, nqueries);
			exit(1);
		}
	}
	fclose(f);
	if (nqueries == 0) {
		fprintf(stderr, "load: %s: no queries\n", name);
		exit(1);
	}
}

static void open_sources(int port) {
	struct sockaddr_in server = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	for (int i = 0; i < nsources; i++) {
		struct source *s = &sources[i];
		int size = BUFFER;
		s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		if (setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
			setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
		if (connect(s->fd, (struct sockaddr *)&server, sizeof server) < 0) fail("connect");
		for (int k = 0; k < window; k++) s->free[s->nfree++] = k;
	}
	for (int i = 0; i < BATCH; i++) {
		rx_part[i] = (struct iovec){rx_data[i], REPLY_MAX};
		rx[i].msg_hdr.msg_iov = &rx_part[i];
		rx[i].msg_hdr.msg_iovlen = 1;
		tx[i].msg_hdr.msg_iov = &tx_part[i];
		tx[i].msg_hdr.msg_iovlen = 1;
	}
}

// receive takes what has come for s by now and returns how many datagrams it was.
static int receive(struct source *s, uint64_t now) {
	int n = recvmmsg(s->fd, rx, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		uint8_t *m = rx_data[i];
		struct slot *slot = &s->slot[m[1]];
		if (rx[i].msg_len < 12 || !(m[2] & 0x80) || (rate == 0 && (!slot->busy || slot->generation != m[0]))) {
			stray++;
			continue;
		}
		if (rate == 0) {
			uint64_t us = (now - slot->sent) / 1000;
			latencies[us < LATENCY_MAX ? us : LATENCY_MAX]++;
			slot->busy = 0;
			s->free[s->nfree++] = m[1];
		}
		received++;
		octets += rx[i].msg_len;
		answers += m[6] << 8 | m[7];
		rcodes[m[3] & 15]++;
	}
	return n > 0 ? n : 0;
}

// put_query writes the next query, with an id of its slot; in a flood, of any.
static void put_query(struct source *s, uint8_t *m, uint64_t now) {
	struct query *q = &queries[next];
	memcpy(m, q->octets, q->len);
	if (rate == 0) {
		m[1] = s->free[--s->nfree];
		struct slot *slot = &s->slot[m[1]];
		*slot = (struct slot){.sent = now, .generation = slot->generation + 1, .busy = 1};
		m[0] = slot->generation;
	}
	if (q->len > 22 && m[12] >= 9 && m[13] == 'x') {
		uint32_t number = fresh++;
		for (int i = 14; i < 22; i++, number >>= 4) m[i] = "0123456789abcdef"[number & 15];
	}
}

// add_train puts queries of one length into the i-th train, as many as there
// is room for and at most so many, and returns how many.
static int add_train(struct source *s, int i, int most, uint64_t now) {
	uint16_t len = queries[next].len;
	int n = 0;
	for (; n < TRAIN && n < most && queries[next].len == len; n++) {
		put_query(s, tx_data[i] + n * len, now);
		next = next + 1 == nqueries ? 0 : next + 1;
	}
	tx_part[i] = (struct iovec){tx_data[i], (size_t)n * len};
	struct msghdr *h = &tx[i].msg_hdr;
	h->msg_control = tx_control[i].room;
	h->msg_controllen = sizeof tx_control[i].room;
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof len);
	memcpy(CMSG_DATA(c), &len, sizeof len);
	return n;
}

// ask sends so many queries from s, if they fit a system call, and returns how many.
static int ask(struct source *s, int most, uint64_t now) {
	int trains = 0, count[BATCH], total = 0;
	while (trains < BATCH && most > 0) {
		count[trains] = add_train(s, trains, most, now);
		most -= count[trains++];
	}
	int done = sendmmsg(s->fd, tx, trains, 0);
	for (int i = 0; i < trains; i++) {
		if (i < done) {
			total += count[i];
			continue;
		}
		if (rate > 0) continue;
		// Not sent: free its slots. The queries come round again.
		uint16_t len = tx_part[i].iov_len / count[i];
		for (int k = 0; k < count[i]; k++) {
			uint8_t id = tx_data[i][k * len + 1];
			s->slot[id].busy = 0;
			s->free[s->nfree++] = id;
		}
	}
	sent += total;
	return total;
}

// give_up frees the slots of queries sent before limit.
static void give_up(uint64_t limit) {
	for (int i = 0; i < nsources; i++)
		for (int k = 0; k < window; k++) {
			struct slot *slot = &sources[i].slot[k];
			if (!slot->busy || slot->sent >= limit) continue;
			slot->busy = 0;
			sources[i].free[sources[i].nfree++] = k;
			lost++;
		}
}

static int outstanding(void) {
	int n = 0;
	for (int i = 0; i < nsources; i++) n += window - sources[i].nfree;
	return n;
}

// percentile is what so many of a hundred answers did not take longer than, in microseconds.
static int percentile(int percent) {
	uint64_t all = 0, below = 0;
	for (int us = 0; us <= LATENCY_MAX; us++) all += latencies[us];
	for (int us = 0; us <= LATENCY_MAX; us++)
		if ((below += latencies[us]) * 100 >= all * percent) return us;
	return LATENCY_MAX;
}

int main(int argc, char **argv) {
	if (argc == 7) nsources = atoi(argv[6]);
	if (argc < 5 || argc > 7 || nsources < 1 || nsources > SOURCES_MAX || (window = atoi(argv[3]) / nsources) < 1 || window > WINDOW_MAX) {
		fprintf(stderr, "usage: load PORT FILE OUTSTANDING(%d..%d) SECONDS [RATE [SOURCES(1..%d)]]\n", nsources, nsources * WINDOW_MAX, SOURCES_MAX);
		return 2;
	}
	if (argc >= 6) rate = strtoull(argv[5], NULL, 10);
	read_queries(argv[2]);
	open_sources(atoi(argv[1]));

	uint64_t begin = now_ns(), end = begin + (uint64_t)(atof(argv[4]) * 1e9);
	uint64_t now = begin, scan = begin, last = begin, idle = 0;
	uint64_t due = 0; // of a flood
	// After the end nothing is asked, and what was asked has its time to come.
	while (now < end || (outstanding() > 0 && now < end + LOST_NS)) {
		int moved = 0;
		for (int i = 0; i < nsources; i++) {
			struct source *s = &sources[i];
			int got = rate > 0 || s->nfree < window ? receive(s, now_ns()) : 0;
			if (got > 0) last = now;
			moved += got;
			// Few and large trains: wait until half of the window is free.
			if (rate == 0 && now < end && s->nfree * 2 >= window) moved += ask(s, s->nfree, now);
			if (rate > 0 && now < end && due > 0) due -= ask(s, due < TRAIN ? due : TRAIN, now);
		}
		uint64_t before = now;
		now = now_ns();
		if (rate > 0) due = (now - begin) * rate / 1000000000 - sent; // nothing was lost on the way out
		if (moved == 0 && now < end) idle += now - before;
		if (now - scan > SCAN_NS) {
			scan = now;
			give_up(now - LOST_NS);
		}
	}
	give_up(UINT64_MAX);
	if (last < end) last = end;
	printf("{\"sent\":%lu,\"received\":%lu,\"lost\":%lu,\"stray\":%lu,\"noerror\":%lu,"
	       "\"servfail\":%lu,\"answers\":%lu,\"octets\":%lu,\"idle_ns\":%lu,\"elapsed_ns\":%lu,\"p50\":%d,\"p99\":%d}\n",
	       sent, received, lost, stray, rcodes[0], rcodes[2], answers, octets, idle, last - begin, percentile(50), percentile(99));
	return 0;
}
