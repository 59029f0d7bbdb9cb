/*
 * The two sockets of a worker: requests and replies on one; on the other what is between it and the
 * keeper alone. No call here waits; what a full socket does not take is sent later, or let go.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGES_MAX = 64 }; /* taken from one socket before others have their turn */

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

/* Takes one message of a channel with the descriptors that came with it. */
static void take_told(const struct worker *worker, const struct msghdr *message, bool is_lease)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int fds[2];
    size_t count = 0;

    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(header), count * sizeof(int));
    }
    if (is_lease && count == 1 && !(message->msg_flags & MSG_CTRUNC)) {
        keep_lease(fds[0]);
        return;
    }
    complain("worker %d sent a message on its channel that has no meaning", worker->pid);
    while (count > 0)
        close(fds[--count]);
}

void wire_listen(struct worker *worker)
{
    for (int i = 0; i < MESSAGES_MAX && worker->channel >= 0; i++) {
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(2 * sizeof(int))];
        } control;
        char text[2];
        struct iovec part = {text, sizeof text};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control};
        ssize_t length = recvmsg(worker->channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (length > 0) {
            take_told(worker, &message, length == 1 && text[0] == 'L');
            continue;
        }
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        close(worker->channel);
        worker->channel = -1;
    }
}
