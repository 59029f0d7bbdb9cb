/* A long line to a server of this machine: what it answers arrives later.
 *
 * line UPSTREAM_PORT DELAY_US: listens on a free port of 127.0.0.1, which it prints, and passes
 * everything on both ways; what comes from the server is held for the delay, in order, while more
 * comes. It ends with its standard input. Processor time beside that of an interpreter: a tenth.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 1024, PIECE = 1 << 16, FIRST = 2 };

struct piece {
    struct piece *next;
    uint64_t due_ns;
    ssize_t length; /* 0: the server has ended */
    char data[];
};

struct connection {
    int client, server;
    struct piece *head, **tail;
};

static struct connection all[CONNECTIONS];
static struct pollfd polled[FIRST + 2 * CONNECTIONS];
static int count;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in here(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int open_socket(void) {
    int one = 1, opened = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (opened < 0)
        fail("socket");
    setsockopt(opened, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return opened;
}

/* Whether all of it could be sent. */
static int send_all(int to, const char *data, ssize_t length) {
    while (length > 0) {
        ssize_t sent = send(to, data, (size_t)length, MSG_NOSIGNAL);
        if (sent <= 0)
            return 0;
        data += sent;
        length -= sent;
    }
    return 1;
}

static void take(int listening, uint16_t upstream) {
    int client = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    struct sockaddr_in address = here(upstream);
    int server = open_socket(), one = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (count == CONNECTIONS || connect(server, (struct sockaddr *)&address, sizeof address)) {
        close(client);
        close(server);
        return;
    }
    struct connection *made = &all[count++];
    *made = (struct connection){.client = client, .server = server};
    made->tail = &made->head;
}

/* Ends a connection; the last one takes its place. */
static void end(int which) {
    struct connection *gone = &all[which];
    close(gone->client);
    close(gone->server);
    while (gone->head) {
        struct piece *piece = gone->head;
        gone->head = piece->next;
        free(piece);
    }
    *gone = all[--count];
    if (!gone->head)
        gone->tail = &gone->head;
}

/* Holds what the server has sent. */
static void queue(struct connection *one, uint64_t due_ns) {
    struct piece *piece = malloc(sizeof *piece + PIECE);
    if (!piece)
        fail("malloc");
    piece->next = NULL;
    piece->due_ns = due_ns;
    piece->length = read(one->server, piece->data, PIECE);
    if (piece->length < 0)
        piece->length = 0;
    *one->tail = piece;
    one->tail = &piece->next;
}

/* Delivers what is due; whether the connection goes on. */
static int deliver(struct connection *one, uint64_t now) {
    while (one->head && one->head->due_ns <= now) {
        struct piece *piece = one->head;
        int goes_on = piece->length && send_all(one->client, piece->data, piece->length);
        if (!goes_on)
            return 0;
        one->head = piece->next;
        if (!one->head)
            one->tail = &one->head;
        free(piece);
    }
    return 1;
}

/* How long until something is due; NULL when nothing is. */
static struct timespec *until_due(uint64_t now) {
    static struct timespec left;
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < count; i++)
        if (all[i].head && all[i].head->due_ns < first)
            first = all[i].head->due_ns;
    if (first == UINT64_MAX)
        return NULL;
    uint64_t rest = first <= now ? 0 : first - now;
    left = (struct timespec){(time_t)(rest / 1000000000u), (long)(rest % 1000000000u)};
    return &left;
}

static int ended(const struct connection *one) {
    const struct piece *last = one->head;
    while (last && last->next)
        last = last->next;
    return last && !last->length;
}

/* Passes on what a connection's ends have sent; whether it goes on. */
static int pass(int which, uint64_t delay_ns) {
    static char data[PIECE];
    struct connection *one = &all[which];
    if (polled[FIRST + 2 * which].revents) {
        ssize_t got = read(one->client, data, sizeof data);
        if (got <= 0 || !send_all(one->server, data, got))
            return 0;
    }
    if (polled[FIRST + 2 * which + 1].revents)
        queue(one, now_ns() + delay_ns);
    return deliver(one, now_ns());
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: line UPSTREAM_PORT DELAY_US\n");
        return 2;
    }
    uint16_t upstream = (uint16_t)atoi(argv[1]);
    uint64_t delay_ns = strtoull(argv[2], NULL, 10) * 1000;
    struct sockaddr_in address = here(0);
    socklen_t size = sizeof address;
    int listening = open_socket();
    if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, CONNECTIONS) ||
        getsockname(listening, (struct sockaddr *)&address, &size))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        polled[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        polled[1] = (struct pollfd){.fd = listening, .events = POLLIN};
        for (int i = 0; i < count; i++) {
            int over = ended(&all[i]);
            polled[FIRST + 2 * i] = (struct pollfd){.fd = all[i].client, .events = POLLIN};
            polled[FIRST + 2 * i + 1] =
                (struct pollfd){.fd = over ? -1 : all[i].server, .events = POLLIN};
        }
        int known = count;
        if (ppoll(polled, (nfds_t)(FIRST + 2 * known), until_due(now_ns()), NULL) < 0)
            fail("poll");
        if (polled[0].revents)
            return 0;
        for (int i = known - 1; i >= 0; i--)
            if (!pass(i, delay_ns))
                end(i);
        if (polled[1].revents)
            take(listening, upstream);
    }
}
