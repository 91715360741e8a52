// echo PORT [WORKERS]: receives datagrams in batches on 127.0.0.1, sets the QR bit and
// sends them back. It does what every DNS server over kernel sockets must do
// and nothing else, so its cost is the floor that servers are compared with. Each
// worker is a process with a socket of its own (SO_REUSEPORT).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 32     // datagrams a system call, as in Muster
#define DATAGRAM 512 // no query of the benchmark is longer
#define BUFFER (4 << 20)

static unsigned char data[BATCH][DATAGRAM];
static struct sockaddr_in peer[BATCH];
static struct iovec part[BATCH];
static struct mmsghdr msg[BATCH];

int main(int argc, char **argv) {
	int workers = argc == 3 ? atoi(argv[2]) : 1, one = 1;
	if (argc < 2 || argc > 3 || workers < 1) {
		fprintf(stderr, "usage: echo PORT [WORKERS]\n");
		return 2;
	}
	for (int i = 1; i < workers; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	struct sockaddr_in self = {
		.sin_family = AF_INET,
		.sin_port = htons(atoi(argv[1])),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&self, sizeof self) < 0) {
		perror("echo: bind");
		return 1;
	}
	for (int i = 0; i < BATCH; i++) {
		part[i].iov_base = data[i];
		msg[i].msg_hdr.msg_iov = &part[i];
		msg[i].msg_hdr.msg_iovlen = 1;
		msg[i].msg_hdr.msg_name = &peer[i];
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			part[i].iov_len = DATAGRAM;
			msg[i].msg_hdr.msg_namelen = sizeof peer[i];
		}
		int n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, NULL);
		if (n < 0 && errno != EINTR) {
			perror("echo: recvmmsg");
			return 1;
		}
		for (int i = 0; i < n; i++) {
			data[i][2] |= 0x80;
			part[i].iov_len = msg[i].msg_len;
		}
		for (int done = 0; done < n;) {
			int k = sendmmsg(fd, msg + done, n - done, 0);
			done += k > 0 ? k : 1; // one that cannot be sent is dropped
		}
	}
}
