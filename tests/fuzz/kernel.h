/*
 * What the fuzzers share: the bytes that decide what happens, and a kernel. The kernel behaves, and
 * checks that each of its requests is answered exactly once, with a message that it would take.
 *
 * The files under test are included, not linked, so that each run starts from nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Readers live and die as the fuzzer has it, not as the machine's processes do. */
static int fake_kill(int tid, int number);
static int fake_open(const char *path, int flags);
static void signalled(int pid, int number); /* a worker's process was sent a signal */
#define kill fake_kill
#define open fake_open
#include "../../cafs/fuse/keeper/readers.c"
#undef open
#include "../../cafs/fuse/keeper/init.c"
#include "../../cafs/fuse/keeper/relay.c"
#include "../../cafs/fuse/keeper/requests.c"

/* The kernel's numbers: even for requests, the next odd one for the INTERRUPT of a request. */
enum { UNIQUES = 4 * REQUESTS_MAX, BODY_MAX = 1024 };

enum state { UNKNOWN, UNANSWERABLE, WAITING, ANSWERED };

static struct {
    enum state state;
    size_t length;
    char message[REQUEST_SIZE]; /* as a worker must get it */
} asked[UNIQUES];

static uint64_t next_unique, last_unique, init_unique;
static uint64_t clock_ns;
static bool notices_full, readers_die;

#define MUST(condition)                                                                          \
    do                                                                                           \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                             \
        }                                                                                        \
    while (0)

/* ---- the fuzzer's bytes; past their end there are zeros ---- */

static const uint8_t *input;
static size_t input_left;

static uint8_t byte(void)
{
    if (input_left == 0)
        return 0;
    input_left--;
    return *input++;
}

static uint16_t word(void)
{
    uint16_t low = byte();

    return (uint16_t)(low | byte() << 8);
}

static void bytes(void *to, size_t length)
{
    size_t held = length < input_left ? length : input_left;

    memset(to, 0, length);
    if (held != 0)
        memcpy(to, input, held);
    input += held;
    input_left -= held;
}

/* ---- what the files under test ask of the others ---- */

static int fake_kill(int tid, int number)
{
    MUST(tid > 0);
    if (number != 0) {
        signalled(tid, number);
        return 0;
    }
    errno = ESRCH;
    return readers_die && tid % 4 == 1 ? -1 : 0;
}

/* Opens the status of a thread: it may be a zombie, have SIGKILL pending, or not be shown. */
static int fake_open(const char *path, int flags)
{
    static const char *const texts[] = {
        "Name:\tcat\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n",
        "Name:\tcat\nState:\tS (sleeping)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n",
        "Name:\tcat\nState:\tZ (zombie)\n",
        "",
    };
    const char *text;
    int tid, file;

    MUST(sscanf(path, "/proc/%d/status", &tid) == 1 && (flags & O_CLOEXEC));
    errno = ENOENT;
    if (!readers_die || tid % 8 == 7)
        return -1;
    text = texts[tid % 4];
    file = memfd_create("status", MFD_CLOEXEC);
    MUST(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
    MUST(lseek(file, 0, SEEK_SET) == 0);
    return file;
}

/* Composes a line of the log, and shows it if that is wanted. */
static void show(const char *format, va_list arguments)
{
    char line[1024];

    vsnprintf(line, sizeof line, format, arguments);
    if (getenv("FUZZ_LOG") != NULL)
        fprintf(stderr, "%llu ms: %s\n", (unsigned long long)(clock_ns / NS_PER_MS), line);
}

void log_line(enum level level, const char *format, ...)
{
    va_list arguments;

    MUST(level <= LEVEL_ERROR);
    va_start(arguments, format);
    show(format, arguments);
    va_end(arguments);
}

void complain(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    show(format, arguments);
    va_end(arguments);
}

uint64_t now_ns(void)
{
    return clock_ns;
}

/* Checks a request on its way to a worker, which may have been answered since. */
static void check_request(const void *message, size_t length)
{
    struct fuse_in_header header;

    memcpy(&header, message, sizeof header);
    MUST(header.unique < UNIQUES && asked[header.unique].state >= WAITING);
    MUST(length == asked[header.unique].length);
    MUST(memcmp(message, asked[header.unique].message, length) == 0);
}

bool notices_push(const void *message, size_t length)
{
    struct fuse_out_header header;

    memcpy(&header, message, sizeof header);
    MUST(length <= NOTICE_MAX && header.len == length && header.unique == 0);
    MUST(header.error == FUSE_NOTIFY_INVAL_INODE || header.error == FUSE_NOTIFY_INVAL_ENTRY ||
         header.error == FUSE_NOTIFY_DELETE);
    return !notices_full;
}

bool notices_settled(void)
{
    return !notices_full;
}

void notices_settle(void)
{
}

bool pages_forget(uint64_t inode)
{
    return !notices_full || inode % 2 == 0;
}

/* The kernel's reply to INIT: nothing in it may be more than it offered. */
static void check_init(const char *message, size_t length)
{
    struct fuse_init_in offered = {0};
    struct fuse_init_out given;
    size_t held = asked[init_unique].length - sizeof(struct fuse_in_header);

    memcpy(&offered, asked[init_unique].message + sizeof(struct fuse_in_header),
           held < sizeof offered ? held : sizeof offered);
    MUST(length == sizeof(struct fuse_out_header) + sizeof given);
    memcpy(&given, message + sizeof(struct fuse_out_header), sizeof given);
    MUST(given.major == FUSE_KERNEL_VERSION && (given.flags & ~offered.flags) == 0);
    MUST(given.flags2 == 0 && given.max_pages <= 64);
}

void device_write(const void *message, size_t length)
{
    struct fuse_out_header header;

    MUST(length >= sizeof header);
    memcpy(&header, message, sizeof header);
    MUST(header.len == length && length <= ANSWER_MAX);
    MUST(header.error <= 0 && header.error > -512);
    MUST(header.error == 0 || length == sizeof header);
    MUST(header.unique < UNIQUES && asked[header.unique].state == WAITING);
    asked[header.unique].state = ANSWERED;
    if (header.unique == init_unique && header.error == 0)
        check_init(message, length);
}

/* ---- the kernel ---- */

static const uint32_t opcodes[] = {
    FUSE_LOOKUP,  FUSE_FORGET,      FUSE_GETATTR,     FUSE_READLINK, FUSE_READ,        FUSE_STATFS,
    FUSE_RELEASE, FUSE_GETXATTR,    FUSE_LISTXATTR,   FUSE_OPENDIR,  FUSE_READDIR,     FUSE_OPEN,
    FUSE_DESTROY, FUSE_BATCH_FORGET, FUSE_READDIRPLUS, FUSE_MKDIR,    FUSE_WRITE,       FUSE_ACCESS,
    FUSE_IOCTL,   FUSE_LSEEK,       FUSE_FLUSH,       FUSE_SETXATTR, FUSE_NOTIFY_REPLY,
};

/* Sends one request, from memory of exactly its size, so that a read past its end is found. */
static void ask(struct fuse_in_header *header, const void *body, size_t length)
{
    size_t total = sizeof *header + length;
    char *message = malloc(total);
    bool silent = header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET ||
                  header->opcode == FUSE_NOTIFY_REPLY;

    header->len = (uint32_t)total;
    memcpy(message, header, sizeof *header);
    if (length != 0)
        memcpy(message + sizeof *header, body, length);
    asked[header->unique].state = silent ? UNANSWERABLE : WAITING;
    asked[header->unique].length = total;
    memcpy(asked[header->unique].message, message, total < REQUEST_SIZE ? total : REQUEST_SIZE);
    if ((header->opcode == FUSE_READ || header->opcode == FUSE_READDIR ||
         header->opcode == FUSE_READDIRPLUS) &&
        length >= sizeof(struct fuse_read_in))
        memcpy(asked[header->unique].message + sizeof *header, &header->nodeid, 8);
    if (header->unique > last_unique)
        last_unique = header->unique;
    relay_request(message, total);
    free(message);
}

/* A request with a number of its own; false when the kernel has none left. */
static bool take_unique(struct fuse_in_header *header)
{
    if (next_unique + 2 >= UNIQUES)
        return false;
    header->unique = next_unique += 2;
    return true;
}

/* One request, or many alike, as readers of a hot file send them. */
static void kernel_asks(size_t times)
{
    uint8_t choice = byte();
    struct fuse_in_header header = {.opcode = choice < 200
                                                  ? opcodes[choice % (sizeof opcodes / 4)]
                                                  : word()};
    char body[BODY_MAX];
    size_t length = word() % BODY_MAX;

    header.nodeid = word();
    header.pid = byte();
    bytes(body, length);
    if (header.opcode == FUSE_INIT || header.opcode == FUSE_INTERRUPT)
        return;
    while (times-- != 0 && take_unique(&header))
        ask(&header, body, length);
}

/* A question for an extended attribute, as ls(1) and others ask it. */
static void kernel_asks_xattr(void)
{
    static const char *const names[] = {"security.selinux", "security.capability",
                                        "system.posix_acl_access", "trusted.x", "user.cafs", ""};
    struct fuse_in_header header = {.opcode = FUSE_GETXATTR, .nodeid = 1};
    struct {
        struct fuse_getxattr_in in;
        char name[32];
    } body = {0};
    size_t choice = byte() % (sizeof names / sizeof *names);

    strcpy(body.name, names[choice]);
    if (take_unique(&header))
        ask(&header, &body, sizeof body.in + strlen(names[choice]) + byte() % 2);
}

/* What no kernel sends: it must be dropped, or be refused. */
static void kernel_babbles(void)
{
    struct fuse_in_header header = {.opcode = FUSE_INIT};
    struct fuse_init_in init = {.major = FUSE_KERNEL_VERSION};
    uint8_t length = byte();
    char *message = malloc(length != 0 ? length : 1);

    bytes(message, length);
    if (length >= sizeof header.len)
        memcpy(&header.len, message, sizeof header.len);
    if (header.len != length)
        relay_request(message, length);
    free(message);
    if (init_answered() && take_unique(&header))
        ask(&header, &init, length % sizeof init);
}

/* INIT, which the kernel sends once, before all else. */
static void kernel_starts(void)
{
    struct fuse_in_header header = {.opcode = FUSE_INIT};
    struct fuse_init_in init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = 131072};

    take_unique(&header);
    init_unique = header.unique;
    bytes(&init.flags, sizeof init.flags);
    ask(&header, &init, byte() % 2 ? sizeof init : offsetof(struct fuse_init_in, flags2));
}

/* The reader of some request got a signal. */
static void kernel_interrupts(void)
{
    struct fuse_interrupt_in interrupt = {.unique = (uint64_t)word() * 2 % UNIQUES};
    struct fuse_in_header header = {.opcode = FUSE_INTERRUPT, .unique = interrupt.unique | 1};

    if (asked[interrupt.unique].state == WAITING && asked[header.unique].state != WAITING)
        ask(&header, &interrupt, sizeof interrupt);
}

/* ---- what a worker says ---- */

/* Composes a reply or a notification, well-formed but for what the fuzzer wants otherwise. */
static struct fuse_out_header compose(uint8_t how, size_t length)
{
    const struct request *request = first;
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + length)};

    for (uint8_t skip = byte() % 8; skip != 0 && request != NULL; skip--)
        request = request->after;
    header.unique = request != NULL ? request->unique : word() % (last_unique + 3);
    if (how & 0x01)
        header.error = -(int)(byte() % 16);
    if (how & 0x02)
        bytes(&header.error, sizeof header.error);
    if (how & 0x04)
        header.len = word();
    if (how & 0x08)
        bytes(&header.unique, sizeof header.unique);
    if (how & 0x10) {
        header.unique = 0;
        header.error = byte() % 10;
    }
    return header;
}

struct init_answer {
    struct fuse_out_header header;
    struct fuse_init_out init;
};

/* Composes a reply to INIT, as good workers give it. */
static struct init_answer compose_init(void)
{
    return (struct init_answer){
        .header = {.len = sizeof(struct init_answer), .unique = init_unique},
        .init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = 131072}};
}

/* ---- one run ---- */

/* The order of sending: those that the worker has, then those that it has not. */
static void check_order(void)
{
    size_t seen = 0, with_worker = 0;
    const struct request *before = NULL;

    for (const struct request *request = first; request != NULL; request = request->after) {
        MUST(request->before == before && requests_find(request->unique) == request);
        MUST(asked[request->unique].state == WAITING);
        if (request->sent)
            MUST(seen == with_worker++);
        else
            MUST(seen != with_worker || request == unsent);
        seen++;
        before = request;
    }
    MUST(last == before && seen == requests_count() && with_worker == requests_owed());
}

/* Forgets all runs before. */
static void reset(const uint8_t *data, size_t size)
{
    input = data;
    input_left = size;
    for (size_t i = 0; i <= last_unique; i++)
        asked[i].state = UNKNOWN;
    next_unique = last_unique = init_unique = 0;
    clock_ns = NS_PER_S;
    notices_full = readers_die = false;
    memset(buckets, 0, sizeof buckets);
    for (size_t i = 0; i < touched; i++)
        table[i].unique = 0;
    first = last = unsent = unused = NULL;
    touched = count = owed = 0;
    init_length = 0;
    memset(&init_in, 0, sizeof init_in);
    memset(&init_given, 0, sizeof init_given);
    initialised = false;
}
