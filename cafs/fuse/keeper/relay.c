/*
 * Messages between the kernel and a worker: what is answered here, what is remembered and passed
 * on, how INIT's reply is edited, and which messages of a worker reach the kernel.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    ERROR_END = 512,  /* the kernel refuses errors from here on, and the request would hang */
    REFUSALS_MAX = 3, /* times that a request is sent again after an EINTR that nobody asked for */
    FAILURES_MAX = 3, /* workers that fail with a request, before it fails instead */
    NAME_LONGEST = 255,
    MINOR_SPOKEN = 31, /* of Linux 5.4, the oldest that is supported */
    RELAY = 1,                  /* no errno: this request is for the worker */
    BACKGROUND_MAX = 1024,      /* with the kernel's 12, 12 stalled reads would stop the mount */
    BACKGROUND_CONGESTED = 768, /* as the kernel reckons it, three quarters */
    WRITE_MAX = 4096,           /* nobody writes; more would want a larger buffer to read into */
};

/* What the keeper wants of the kernel, whatever the worker says. */
#define FLAGS_WANTED                                                                             \
    (FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL |              \
     FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT)
/* What a worker may ask for besides; anything else would need an answer that is not given here. */
#define FLAGS_KNOWN                                                                              \
    (FLAGS_WANTED | FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |                \
     FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |      \
     FUSE_ASYNC_DIO | FUSE_EXPLICIT_INVAL_DATA)

struct init_reply {
    struct fuse_out_header header;
    struct fuse_init_out init;
};

struct counters counters;

static char init_request[REQUEST_SIZE]; /* the kernel's INIT, as it came */
static size_t init_length;              /* 0: it has not come */
static struct fuse_init_in init_in;
static struct init_reply init_given; /* what the kernel got, after the edits */
static bool initialised;

void complain(const char *format, ...)
{
    static uint64_t last_ns;
    static unsigned left_out;
    char text[256];
    va_list arguments;

    if (last_ns != 0 && now_ns() - last_ns < NS_PER_S) {
        left_out++;
        return;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (left_out != 0)
        log_line(LEVEL_WARNING, "%s (%u more warnings were left out before)", text, left_out);
    else
        log_line(LEVEL_WARNING, "%s", text);
    last_ns = now_ns();
    left_out = 0;
}

void relay_error(uint64_t unique, int error)
{
    struct fuse_out_header header = {.len = sizeof header, .error = -error, .unique = unique};

    device_write(&header, sizeof header);
}

/* ---- from the kernel ---- */

/* Whether a request would change something, which a read-only mount refuses as such. */
static bool is_change(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_WRITE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_CREATE:
    case FUSE_TMPFILE:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
        return true;
    default:
        return false;
    }
}

/* The errno for an extended attribute that no worker has, RELAY for others. */
static int xattr_error(const char *message, size_t length)
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
    size_t body = held - sizeof *header;

    switch (header->opcode) {
    case FUSE_OPEN: /* with ENOSYS the kernel never asks again: an open is then free */
        if (init_in.flags & FUSE_NO_OPEN_SUPPORT)
            return ENOSYS;
        break;
    case FUSE_OPENDIR:
        if (init_in.flags & FUSE_NO_OPENDIR_SUPPORT)
            return ENOSYS;
        break;
    case FUSE_INTERRUPT: /* readers.c finds who was killed, and other signals shall not matter */
    case FUSE_FLUSH:
    case FUSE_IOCTL:
    case FUSE_LSEEK:
    case FUSE_POLL:
    case FUSE_BMAP:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        return ENOSYS;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
        return 0;
    case FUSE_GETXATTR:
        if (xattr_error(message, held) != RELAY)
            return xattr_error(message, held);
        break;
    case FUSE_LOOKUP:
        if (strnlen(message + sizeof *header, body) > NAME_LONGEST)
            return ENAMETOOLONG;
        break;
    default:
        break;
    }
    if (length > REQUEST_SIZE)
        return is_change(header->opcode) ? EROFS : EIO;
    return workers_given_up() ? EIO : RELAY;
}

/* Remembers a request for the worker, and sends it if it can be sent now. */
static void remember(const struct fuse_in_header *header, const char *message, size_t length)
{
    struct request *request = requests_add(message, length);

    if (request == NULL) {
        complain("the kernel sent request %llu twice, or too many", /* which it never does */
                 (unsigned long long)header->unique);
        relay_error(header->unique, EIO);
        return;
    }
    /* No file was opened, so no handle was given out: the node stands for it. */
    if ((header->opcode == FUSE_READ || header->opcode == FUSE_READDIR ||
         header->opcode == FUSE_READDIRPLUS) &&
        length >= sizeof *header + sizeof(struct fuse_read_in))
        memcpy(request->message + sizeof *header + offsetof(struct fuse_read_in, fh),
               &header->nodeid, sizeof header->nodeid);
    counters.relayed++;
    relay_flush();
}

/* Keeps the kernel's INIT, and has it sent. */
static void initialise(const struct fuse_in_header *header, const char *message, size_t length)
{
    if (initialised || length > sizeof init_request ||
        length < sizeof *header + offsetof(struct fuse_init_in, flags2)) {
        complain("the kernel sent an INIT of %zu bytes that was not expected", length);
        relay_error(header->unique, EIO);
        return;
    }
    memcpy(init_request, message, length);
    init_length = length;
    memset(&init_in, 0, sizeof init_in);
    length -= sizeof *header;
    memcpy(&init_in, message + sizeof *header,
           length < sizeof init_in ? length : sizeof init_in);
    workers_initialise();
}

void relay_request(const char *message, size_t length)
{
    struct fuse_in_header header;
    int error;

    if (length < sizeof header) {
        complain("the kernel sent %zu bytes", length);
        return;
    }
    memcpy(&header, message, sizeof header);
    if (header.len != length || header.unique & HEARTBEAT_BIT) {
        complain("the kernel sent %zu bytes as %u", length, header.len);
        return;
    }
    if (header.opcode == FUSE_INIT) {
        initialise(&header, message, length);
        return;
    }
    if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET ||
        header.opcode == FUSE_NOTIFY_REPLY) { /* these want no answer */
        counters.answered++;
        return;
    }
    error = own_answer(&header, message, length);
    if (error == RELAY) {
        remember(&header, message, length);
        return;
    }
    relay_error(header.unique, error);
    counters.answered++;
    if (header.opcode == FUSE_INTERRUPT &&
        length >= sizeof header + sizeof(struct fuse_interrupt_in)) {
        struct fuse_interrupt_in interrupt;

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
    for (size_t place = 0; place < REQUESTS_MAX; place++) {
        struct request *request = requests_at(place);

        if (request == NULL)
            continue;
        relay_error(request->unique, EIO);
        requests_remove(request);
    }
}

void relay_blame(void)
{
    for (size_t place = 0; place < REQUESTS_MAX; place++) {
        struct request *request = requests_at(place);
        struct fuse_in_header header;

        if (request == NULL || !request->sent || ++request->failures < FAILURES_MAX)
            continue;
        memcpy(&header, request->message, sizeof header);
        log_line(LEVEL_WARNING, "%u workers failed with a request under way (kind %u, node %llu): "
                 "it fails as well", FAILURES_MAX, header.opcode,
                 (unsigned long long)header.nodeid);
        relay_error(request->unique, EIO);
        requests_remove(request);
    }
}

const char *relay_init(size_t *length)
{
    *length = init_length;
    return init_length != 0 ? init_request : NULL;
}

bool relay_initialised(void)
{
    return initialised;
}

/* ---- from a worker ---- */

/*
 * Reads a worker's reply to INIT, which may be shorter than today's, and edits it. What is left is
 * what the kernel gets, and what another worker's reply must equal.
 * Returns false when it is an error, or of another protocol.
 */
static bool edit_init(const char *message, size_t length, struct init_reply *reply)
{
    struct fuse_init_out *init = &reply->init;
    const long page = sysconf(_SC_PAGESIZE);

    memset(reply, 0, sizeof *reply);
    memcpy(reply, message, length < sizeof *reply ? length : sizeof *reply);
    if (reply->header.error != 0 || length < sizeof reply->header + FUSE_COMPAT_22_INIT_OUT_SIZE ||
        init->major != FUSE_KERNEL_VERSION)
        return false;
    reply->header.len = sizeof *reply;
    /* A worker with a newer library may follow, and no kernel looks at what lies above this. */
    if (init->minor > MINOR_SPOKEN)
        init->minor = MINOR_SPOKEN;
    init->flags = (init->flags | FLAGS_WANTED) & FLAGS_KNOWN & init_in.flags;
    init->flags2 = 0;
    init->max_background = BACKGROUND_MAX;
    init->congestion_threshold = BACKGROUND_CONGESTED;
    init->max_write = WRITE_MAX;
    init->max_pages = 0;
    if (init->flags & FUSE_MAX_PAGES)
        init->max_pages = (uint16_t)(page < DATA_MAX ? DATA_MAX / page : 1);
    init->map_alignment = 0;
    memset(init->unused, 0, sizeof init->unused);
    return true;
}

/* Handles a reply to INIT: the first goes to the kernel, others are compared with it. */
static enum answer answer_init(const char *message, size_t length)
{
    struct init_reply reply;

    if (!edit_init(message, length, &reply))
        return ANSWER_OTHER;
    if (initialised)
        return memcmp(&reply, &init_given, sizeof reply) == 0 ? ANSWER_INIT : ANSWER_OTHER;
    init_given = reply;
    initialised = true;
    device_write(&reply, sizeof reply);
    return ANSWER_INIT;
}

/* Handles a notification: the thread of notices.c writes it, if the kernel may have it. */
static void notify(const char *message, size_t length, int code)
{
    bool known = code == FUSE_NOTIFY_INVAL_INODE || code == FUSE_NOTIFY_INVAL_ENTRY ||
                 code == FUSE_NOTIFY_DELETE;

    if (initialised && known && length <= NOTICE_MAX && notices_push(message, length)) {
        counters.notices++;
        return;
    }
    counters.notices_dropped++;
    complain("a notification (code %d, %zu bytes) was dropped: %s", code, length,
             known && length <= NOTICE_MAX ? "too many at once" : "of no use here");
}

/* Handles an EINTR whose reader is there: the request is sent again, but not for ever. */
static void refused(struct request *request)
{
    if (++request->refused > REFUSALS_MAX) {
        relay_error(request->unique, EIO);
        requests_remove(request);
        return;
    }
    requests_again(request);
    counters.resent++;
    relay_flush();
}

enum answer relay_answer(const char *message, size_t length, bool serving)
{
    struct fuse_out_header header;
    struct fuse_in_header init;
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
    memcpy(&init, init_request, sizeof init);
    if (!serving)
        return init_length != 0 && header.unique == init.unique ? answer_init(message, length)
                                                                 : ANSWER_TAKEN;
    request = requests_find(header.unique);
    if (request == NULL || !request->sent) /* late, or made up */
        return ANSWER_TAKEN;
    if (header.error == -EINTR) {
        refused(request);
        return ANSWER_TAKEN;
    }
    if (header.error > 0 || header.error <= -ERROR_END)
        relay_error(header.unique, EIO);
    else if (header.error != 0)
        relay_error(header.unique, -header.error);
    else
        device_write(message, length);
    requests_remove(request);
    return ANSWER_TAKEN;
}
