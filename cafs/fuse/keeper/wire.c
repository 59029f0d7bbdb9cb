/*
 * The two sockets of a worker: requests and replies on one; on the other what is between it and the
 * keeper alone. Nothing here waits; what a full socket does not take is sent later, or let go.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGES_MAX = 64 }; /* taken from one socket before others have their turn */

ssize_t receive(int socket, void *text, size_t size, int flags, int *right)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {text, size};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t length = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = length < 0 ? NULL : CMSG_FIRSTHDR(&message);

    *right = -1;
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return length;
    memcpy(right, CMSG_DATA(header), sizeof *right);
    if (message.msg_flags & MSG_CTRUNC) { /* there was no room for others, and they are closed */
        close(*right);
        *right = -1;
    }
    return length;
}

bool wire_send(struct worker *worker, const void *message, size_t length)
{
    if (worker->requests < 0 ||
        send(worker->requests, message, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return false;
    if (requests_owed() == 0 && worker->beat == 0)
        worker->heard_ns = now_ns();
    return true;
}

void wire_beat(struct worker *worker)
{
    static uint64_t beats;
    struct fuse_in_header header = {.len = sizeof header,
                                    .opcode = FUSE_STATFS,
                                    .unique = HEARTBEAT_BIT | (beats + 1),
                                    .nodeid = FUSE_ROOT_ID};

    if (!wire_send(worker, &header, sizeof header))
        return;
    worker->beat = HEARTBEAT_BIT | ++beats;
    worker->beat_ns = now_ns();
}

void wire_tell(const struct worker *worker, char kind, const void *message, size_t length)
{
    char text[1 + REQUEST_SIZE] = {kind};

    if (worker->channel < 0)
        return;
    memcpy(text + 1, message, length);
    send(worker->channel, text, 1 + length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void wire_read(struct worker *worker)
{
    static char buffer[ANSWER_MAX];

    for (int i = 0; i < MESSAGES_MAX && worker->requests >= 0; i++) {
        ssize_t length =
            recv(worker->requests, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);

        if (length > 0) {
            worker_take(worker, buffer, (size_t)length);
            continue;
        }
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        close(worker->requests);
        worker->requests = -1;
    }
}

/* Keeps a lease, instead of the one before it. */
static void keep_lease(int lease)
{
    static int kept = -1;

    if (kept >= 0)
        close(kept);
    kept = lease;
}

void wire_listen(struct worker *worker)
{
    for (int i = 0; i < MESSAGES_MAX && worker->channel >= 0; i++) {
        struct lost {
            uint64_t node, offset;
        } lost;
        char text[1 + sizeof lost + 1]; /* a longer message is cut, and has another length */
        int lease;
        ssize_t length = receive(worker->channel, text, sizeof text, MSG_DONTWAIT, &lease);

        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (length == 1 && text[0] == 'L' && lease >= 0) {
            keep_lease(lease);
            continue;
        }
        if (lease >= 0)
            close(lease);
        if (length == 1 + sizeof lost && text[0] == 'A') {
            memcpy(&lost, text + 1, sizeof lost);
            relay_again(lost.node, lost.offset);
            continue;
        }
        if (length > 0) {
            complain("worker %d sent a message on its channel that has no meaning", worker->pid);
            continue;
        }
        close(worker->channel);
        worker->channel = -1;
    }
}
