/*
 * Messages between the kernel and a worker: what is answered here, what is remembered and passed
 * on, and which messages of a worker reach the kernel.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

enum {
    ERROR_END = 512,  /* the kernel refuses errors from here on, and the request would hang */
    REFUSALS_MAX = 3, /* times that a request is sent again after an EINTR that nobody asked for */
    BLAMES_MAX = 3,   /* workers that fail with a request, before it fails instead */
    NAME_LONGEST = 255,
    RELAY = 1, /* no errno: this request is for the worker */
};

#define BIT(opcode) (UINT64_C(1) << (opcode))
/* Requests that want no answer. The worker counts no lookups: inodes are the store's. */
#define SILENT (BIT(FUSE_FORGET) | BIT(FUSE_BATCH_FORGET) | BIT(FUSE_NOTIFY_REPLY))
/* Requests that mean nothing where there are no handles. */
#define EMPTY (BIT(FUSE_RELEASE) | BIT(FUSE_RELEASEDIR) | BIT(FUSE_DESTROY))
/* Requests that the kernel does without once it has been told ENOSYS. Without INTERRUPT no signal
 * but a fatal one matters to a reader, and those readers.c finds. */
#define UNSUPPORTED                                                                              \
    (BIT(FUSE_INTERRUPT) | BIT(FUSE_FLUSH) | BIT(FUSE_IOCTL) | BIT(FUSE_LSEEK) |                 \
     BIT(FUSE_POLL) | BIT(FUSE_BMAP) | BIT(FUSE_FSYNC) | BIT(FUSE_FSYNCDIR))
/* Requests that would change something, which a read-only mount refuses as such. */
#define CHANGES                                                                                  \
    (BIT(FUSE_SETATTR) | BIT(FUSE_SYMLINK) | BIT(FUSE_MKNOD) | BIT(FUSE_MKDIR) |                 \
     BIT(FUSE_UNLINK) | BIT(FUSE_RMDIR) | BIT(FUSE_RENAME) | BIT(FUSE_RENAME2) |                 \
     BIT(FUSE_LINK) | BIT(FUSE_WRITE) | BIT(FUSE_SETXATTR) | BIT(FUSE_REMOVEXATTR) |             \
     BIT(FUSE_CREATE) | BIT(FUSE_TMPFILE) | BIT(FUSE_FALLOCATE) | BIT(FUSE_COPY_FILE_RANGE))
/* Requests that carry a handle, for which the node stands, since no handle was given out. */
#define HANDLES (BIT(FUSE_READ) | BIT(FUSE_READDIR) | BIT(FUSE_READDIRPLUS))

struct counters counters;

void relay_error(uint64_t unique, int error)
{
    struct fuse_out_header header = {.len = sizeof header, .error = -error, .unique = unique};

    device_write(&header, sizeof header);
}

/* Answers a request that waits, with an error, and forgets it. */
static void fail(struct request *request, int error)
{
    relay_error(request->unique, error);
    requests_remove(request);
}

/* ---- from the kernel ---- */

/* Whether a request is one of a set of BITs. */
static bool is_among(const struct fuse_in_header *header, uint64_t set)
{
    return header->opcode < 64 && (set >> header->opcode & 1) != 0;
}

/* The errno for an extended attribute that no worker has, RELAY for others. */
static int xattr_answer(const char *message, size_t length)
{
    const size_t start = sizeof(struct fuse_in_header) + sizeof(struct fuse_getxattr_in);
    const char *name = message + start;
    size_t room = length > start ? length - start : 0;

    /* This error, and no other, lets ls(1) ask once for the whole mount and not for each file. */
    if (room >= 16 && strncmp(name, "security.selinux", room) == 0)
        return EOPNOTSUPP;
    if ((room > 9 && strncmp(name, "security.", 9) == 0) ||
        (room > 7 && strncmp(name, "system.", 7) == 0) ||
        (room > 8 && strncmp(name, "trusted.", 8) == 0))
        return ENODATA;
    return RELAY;
}

/* The errno that the keeper answers a request with, 0 for success, RELAY: the worker answers. */
static int own_answer(const struct fuse_in_header *header, const char *message, size_t length)
{
    size_t held = length < DEVICE_READ ? length : DEVICE_READ;
    int error;

    /* An OPEN that was answered with ENOSYS is the last one: opens are free from then on. */
    if (is_among(header, UNSUPPORTED) ||
        (header->opcode == FUSE_OPEN && init_offers(FUSE_NO_OPEN_SUPPORT)) ||
        (header->opcode == FUSE_OPENDIR && init_offers(FUSE_NO_OPENDIR_SUPPORT)))
        return ENOSYS;
    if (is_among(header, EMPTY))
        return 0;
    if (header->opcode == FUSE_GETXATTR && (error = xattr_answer(message, held)) != RELAY)
        return error;
    if (header->opcode == FUSE_LOOKUP &&
        strnlen(message + sizeof *header, held - sizeof *header) > NAME_LONGEST)
        return ENAMETOOLONG;
    if (length > REQUEST_SIZE)
        return is_among(header, CHANGES) ? EROFS : EIO;
    return workers_given_up() ? EIO : RELAY;
}

/* Remembers a request for the worker, and sends it if it can be sent now. */
static void remember(const struct fuse_in_header *header, const char *message, size_t length)
{
    struct request *request = requests_add(message, length);

    if (request == NULL) { /* the kernel never does this */
        complain("the kernel sent request %llu twice, or too many",
                 (unsigned long long)header->unique);
        relay_error(header->unique, EIO);
        return;
    }
    if (is_among(header, HANDLES) && length >= sizeof *header + sizeof(struct fuse_read_in))
        memcpy(request->message + sizeof *header + offsetof(struct fuse_read_in, fh),
               &header->nodeid, sizeof header->nodeid);
    counters.relayed++;
    relay_flush();
}

void relay_request(const char *message, size_t length)
{
    struct fuse_in_header header = {0};
    struct fuse_interrupt_in interrupt;
    int error;

    memcpy(&header, message, length < sizeof header ? length : sizeof header);
    if (length < sizeof header || header.len != length || header.unique & HEARTBEAT_BIT) {
        complain("the kernel sent %zu bytes as %u", length, header.len);
        return;
    }
    if (header.opcode == FUSE_INIT) {
        init_request(message, length);
        return;
    }
    error = is_among(&header, SILENT) ? 0 : own_answer(&header, message, length);
    if (error == RELAY) {
        remember(&header, message, length);
        return;
    }
    counters.answered++;
    if (!is_among(&header, SILENT))
        relay_error(header.unique, error);
    if (header.opcode == FUSE_INTERRUPT && length >= sizeof header + sizeof interrupt) {
        memcpy(&interrupt, message + sizeof header, sizeof interrupt);
        readers_look_at(interrupt.unique);
    }
}

void relay_flush(void)
{
    struct request *request;

    while ((request = requests_unsent()) != NULL &&
           worker_send(request->message, request->length))
        requests_sent(request);
}

void relay_fail(void)
{
    struct request *request;

    for (size_t place = 0; place < REQUESTS_MAX; place++)
        if ((request = requests_at(place)) != NULL)
            fail(request, EIO);
}

void relay_blame(void)
{
    for (size_t place = 0; place < REQUESTS_MAX; place++) {
        struct request *request = requests_at(place);
        struct fuse_in_header header;

        if (request == NULL || !request->sent || ++request->blames < BLAMES_MAX)
            continue;
        memcpy(&header, request->message, sizeof header);
        log_line(LEVEL_WARNING,
                 "%d workers failed with a request under way (kind %u, node %llu): it fails too",
                 BLAMES_MAX, header.opcode, (unsigned long long)header.nodeid);
        fail(request, EIO);
    }
}

/* ---- from a worker ---- */

/* Handles a notification: a thread of notices.c or pages.c writes it, if the kernel may have it. */
static void notify(const char *message, size_t length, int code)
{
    struct fuse_notify_inval_inode_out told = {.off = 0};
    bool of_inode = code == FUSE_NOTIFY_INVAL_INODE &&
                    length >= sizeof(struct fuse_out_header) + sizeof told;
    bool fits = length <= NOTICE_MAX &&
                (of_inode || code == FUSE_NOTIFY_INVAL_ENTRY || code == FUSE_NOTIFY_DELETE);
    bool of_pages;

    if (of_inode)
        memcpy(&told, message + sizeof(struct fuse_out_header), sizeof told);
    of_pages = of_inode && told.off >= 0;
    if (init_answered() && fits &&
        (of_pages ? pages_forget(told.ino) : notices_push(message, length))) {
        counters.notices++;
        /* A worker takes attributes away so that whoever gets its next reply looks anew. */
        if (of_inode && !of_pages)
            notices_settle();
        return;
    }
    counters.notices_dropped++;
    complain("a notification (code %d, %zu bytes) was dropped: %s", code, length,
             fits ? "too many at once" : "of no use here");
}

/* Handles an EINTR whose reader is there: the request is sent again, but not for ever. */
static void refused(struct request *request)
{
    if (++request->refusals > REFUSALS_MAX) {
        fail(request, EIO);
        return;
    }
    requests_again(request);
    counters.resent++;
    relay_flush();
}

void relay_again(uint64_t node, uint64_t offset)
{
    struct {
        struct fuse_in_header header;
        struct fuse_read_in body;
    } asked;

    for (size_t place = 0; place < REQUESTS_MAX; place++) {
        struct request *request = requests_at(place);

        if (request == NULL || !request->sent || request->length < sizeof asked)
            continue;
        memcpy(&asked, request->message, sizeof asked);
        if (!is_among(&asked.header, HANDLES) || asked.header.nodeid != node ||
            asked.body.offset != offset)
            continue;
        requests_again(request);
        counters.resent++;
    }
    relay_flush();
}

enum answer relay_answer(const char *message, size_t length, bool serving)
{
    struct fuse_out_header header;
    struct request *request;

    if (length < sizeof header || length > ANSWER_MAX)
        return ANSWER_BROKEN;
    memcpy(&header, message, sizeof header);
    if (header.len != length)
        return ANSWER_BROKEN;
    if (header.unique == 0) {
        notify(message, length, header.error);
        return ANSWER_TAKEN;
    }
    if (header.unique & HEARTBEAT_BIT)
        return ANSWER_HEARTBEAT;
    if (!serving)
        return init_reply(message, length);
    request = requests_find(header.unique);
    if (request == NULL || !request->sent) /* late, or made up */
        return ANSWER_TAKEN;
    if (header.error == -EINTR) {
        refused(request);
    } else if (header.error != 0) {
        fail(request, header.error > 0 || header.error <= -ERROR_END ? EIO : -header.error);
    } else {
        device_write(message, length);
        requests_remove(request);
    }
    return ANSWER_TAKEN;
}
