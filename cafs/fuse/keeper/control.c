/*
 * Commands of admins: a unix SOCK_SEQPACKET socket, one command a connection, one datagram each
 * way. Whoever may connect is checked twice, by the socket's mode and by its peer's uid.
 *
 * A client is known by a number that is never used again, so that an answer that comes late cannot
 * reach whoever has its place by then.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "keeper.h"

/* Received descriptors that there is room for; more are dropped by the kernel. */
enum { COMMAND_MAX = 64, REPLY_MAX = 1024, RIGHTS_MAX = 4 };

/* So long may a client be silent; it gets no second command anyway. */
static const uint64_t PATIENCE_NS = 5000000000;

struct client {
    int fd; /* -1: free */
    int number;
    bool asked; /* its command was taken, an answer is due */
    uint64_t since_ns;
};

static struct client clients[CONTROL_CLIENTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
static int last_number;
static int listener = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct stat made; /* the socket that we bound: another one at its path is not ours */
static const struct commands *actions;

static void drop(struct client *client)
{
    close(client->fd);
    client->fd = -1;
}

/* The client of that number, NULL when it has gone. */
static struct client *find(int number)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (clients[i].fd >= 0 && clients[i].number == number)
            return &clients[i];
    return NULL;
}

/* A place for another client, NULL when all are taken. */
static struct client *free_place(void)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (clients[i].fd < 0)
            return &clients[i];
    return NULL;
}

/* Binds and listens at `address`, which only its owner may use. Returns 0, or -1 with errno. */
static int listen_there(void)
{
    struct stat old;
    mode_t before;
    int bound;

    if (lstat(address.sun_path, &old) == 0 && S_ISSOCK(old.st_mode))
        unlink(address.sun_path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return -1;
    before = umask(0177);
    bound = bind(listener, (const struct sockaddr *)&address, sizeof address);
    umask(before);
    if (bound == 0 && lstat(address.sun_path, &made) == 0 && listen(listener, 16) == 0)
        return 0;
    bound = errno;
    close(listener);
    listener = -1;
    errno = bound;
    return -1;
}

int control_open(const char *path, const struct commands *commands)
{
    actions = commands;
    if (strlen(path) >= sizeof address.sun_path) {
        log_line(LEVEL_ERROR, "cannot listen at %s: the path is longer than %zu bytes", path,
                 sizeof address.sun_path - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    if (listen_there() != 0) {
        log_line(LEVEL_ERROR, "cannot listen at %s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

size_t control_poll(struct pollfd fds[CONTROL_FDS])
{
    size_t count = 0;

    if (listener < 0)
        return 0;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *client = &clients[i];

        if (client->fd < 0)
            continue;
        if (!client->asked && now_ns() - client->since_ns > PATIENCE_NS) {
            drop(client);
            continue;
        }
        /* One whose answer is due has nothing more to say; poll tells when it has gone. */
        fds[count++] = (struct pollfd){.fd = client->fd, .events = client->asked ? 0 : POLLIN};
    }
    if (free_place() != NULL)
        fds[count++] = (struct pollfd){.fd = listener, .events = POLLIN};
    return count;
}

/* Takes one new connection, if its peer is the keeper's own user or root. */
static void admit(void)
{
    struct client *place = free_place();
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd;

    if (place == NULL)
        return;
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        log_line(LEVEL_WARNING, "a command by uid %d is refused", (int)peer.uid);
        close(fd);
        return;
    }
    last_number = last_number == INT_MAX ? 1 : last_number + 1;
    *place = (struct client){.fd = fd, .number = last_number, .since_ns = now_ns()};
}

/* Keeps the one descriptor that came with `message`, -1 if there was none; others are closed. */
static int only_right(struct msghdr *message)
{
    int kept = -1;

    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= item->cmsg_len; at += sizeof(int)) {
            int fd;

            memcpy(&fd, (const char *)item + at, sizeof fd);
            if (kept < 0)
                kept = fd;
            else
                close(fd);
        }
    }
    return kept;
}

/* Receives a command, NUL-terminated, and its descriptor or -1. False: the client has gone. */
static bool receive(int fd, char text[COMMAND_MAX], int *right)
{
    _Alignas(struct cmsghdr) char rights[CMSG_SPACE(RIGHTS_MAX * sizeof(int))];
    struct iovec into = {.iov_base = text, .iov_len = COMMAND_MAX - 1};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = rights,
                             .msg_controllen = sizeof rights};
    ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    *right = length < 0 ? -1 : only_right(&message);
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* Takes a client's command. */
static void obey(struct client *client)
{
    char command[COMMAND_MAX], text[REPLY_MAX];
    int right, number = client->number;

    if (!receive(client->fd, command, &right)) {
        drop(client);
    } else if (strcmp(command, "reload") == 0) {
        client->asked = true;
        actions->reload(number, right);
        return;
    } else if (strcmp(command, "status") == 0) {
        actions->status(text, sizeof text);
        control_reply(number, text);
    } else {
        control_reply(number, "{\"ok\":false,\"why\":\"this keeper knows status and reload\"}");
    }
    if (right >= 0)
        close(right);
}

/* The client that polls as `fd`, NULL for any other. */
static struct client *polled(int fd)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (clients[i].fd >= 0 && clients[i].fd == fd)
            return &clients[i];
    return NULL;
}

void control_serve(const struct pollfd *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct client *client = polled(fds[i].fd);

        if (fds[i].revents == 0 || client == NULL)
            continue;
        if (!client->asked)
            obey(client);
        else if (fds[i].revents & (POLLHUP | POLLERR))
            drop(client);
    }
    /* Last, so that no new connection has the descriptor of one that was closed above. */
    if (count > 0 && fds[count - 1].fd == listener && fds[count - 1].revents != 0)
        admit();
}

void control_reply(int number, const char *text)
{
    struct client *client = find(number);

    if (client == NULL)
        return;
    (void)!send(client->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
    drop(client);
}

void control_close(void)
{
    struct stat now;

    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (clients[i].fd >= 0)
            drop(&clients[i]);
    if (listener < 0)
        return;
    close(listener);
    listener = -1;
    if (lstat(address.sun_path, &now) == 0 && now.st_dev == made.st_dev && now.st_ino == made.st_ino)
        unlink(address.sun_path);
}
