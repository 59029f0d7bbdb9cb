/*
 * INIT: the kernel asks once, and each worker is asked again. The first reply, edited, goes to the
 * kernel and is kept; the reply of a later worker must come to the same after the same edits.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

enum {
    MINOR_SPOKEN = 31,          /* of Linux 5.4, the oldest that is supported */
    BACKGROUND_MAX = 1024,      /* with the kernel's 12, 12 stalled reads would stop the mount */
    BACKGROUND_CONGESTED = 768, /* as the kernel reckons it, three quarters */
    WRITE_MAX = 4096,           /* nobody writes; more would want more than DEVICE_READ */
};

/* What the keeper wants of the kernel, whatever the worker says. POSIX_ACL has the kernel remember
 * that a file has no ACL, which it asks for each time otherwise. */
#define FLAGS_WANTED                                                                             \
    (FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL |              \
     FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT)
/* What a worker may ask for besides; anything else would need an answer that is not given here. */
#define FLAGS_KNOWN                                                                              \
    (FLAGS_WANTED | FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |                \
     FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |      \
     FUSE_ASYNC_DIO | FUSE_EXPLICIT_INVAL_DATA)

struct reply {
    struct fuse_out_header header;
    struct fuse_init_out init;
};

static char init_message[REQUEST_SIZE]; /* as it came */
static size_t init_length;              /* 0: it has not come */
static struct fuse_init_in init_in;
static struct reply init_given; /* what the kernel got */
static bool initialised;

void init_request(const char *message, size_t length)
{
    struct fuse_in_header header;
    size_t body = length - sizeof header;

    memcpy(&header, message, sizeof header);
    if (initialised || length > sizeof init_message ||
        body < offsetof(struct fuse_init_in, flags2)) {
        complain("the kernel sent an INIT of %zu bytes that was not expected", length);
        relay_error(header.unique, EIO);
        return;
    }
    memcpy(init_message, message, length);
    init_length = length;
    memset(&init_in, 0, sizeof init_in);
    memcpy(&init_in, message + sizeof header, body < sizeof init_in ? body : sizeof init_in);
    workers_initialise();
}

const char *init_requested(size_t *length)
{
    *length = init_length;
    return init_length != 0 ? init_message : NULL;
}

bool init_offers(uint32_t flag)
{
    return (init_in.flags & flag) != 0;
}

bool init_answered(void)
{
    return initialised;
}

/*
 * Reads a worker's reply, which may be shorter than today's, and edits it.
 * Returns false when it is an error, or of another protocol.
 */
static bool edit(const char *message, size_t length, struct reply *reply)
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

enum answer init_reply(const char *message, size_t length)
{
    struct fuse_out_header header;
    struct fuse_in_header question;
    struct reply reply;

    memcpy(&header, message, sizeof header);
    memcpy(&question, init_message, sizeof question);
    if (init_length == 0 || header.unique != question.unique)
        return ANSWER_TAKEN;
    if (!edit(message, length, &reply))
        return ANSWER_OTHER;
    if (initialised)
        return memcmp(&reply, &init_given, sizeof reply) == 0 ? ANSWER_INIT : ANSWER_OTHER;
    init_given = reply;
    initialised = true;
    device_write(&reply, sizeof reply);
    return ANSWER_INIT;
}
