/*
 * relay.c, init.c, requests.c and readers.c between a kernel that behaves and a worker that does not.
 */
#include "kernel.h"

static size_t room; /* messages that the worker takes before its socket is full */
static bool failing;

static void signalled(int pid, int number)
{
    MUST(pid == 0 && number == 0); /* workers are worker.c's */
}

bool workers_given_up(void)
{
    return failing;
}

void workers_initialise(void)
{
    size_t length;

    MUST(init_requested(&length) != NULL && length <= REQUEST_SIZE);
}

bool worker_send(const void *message, size_t length)
{
    const struct request *request = requests_unsent();

    if (room == 0)
        return false;
    room--;
    check_request(message, length);
    MUST(request->message == message && asked[request->unique].state == WAITING);
    return true;
}

void worker_tell_gone(const struct request *request)
{
    check_request(request->message, request->length);
}

/* Gives a message, from memory of exactly its size. */
static void say(const void *header, size_t header_length, size_t body_length, bool serving)
{
    size_t total = header_length + body_length;
    char *message = malloc(total != 0 ? total : 1);

    if (header_length != 0)
        memcpy(message, header, header_length);
    if (body_length != 0)
        bytes(message + header_length, body_length);
    relay_answer(message, total, serving);
    free(message);
}

/* A reply or a notification of any worker. */
static void worker_says(void)
{
    uint8_t how = byte();
    size_t length = word() % ((how & 0xa0) == 0xa0 ? ANSWER_MAX + 64 : BODY_MAX);
    struct fuse_out_header header = compose(how, length);

    say(&header, sizeof header, length, !(how & 0x40));
}

/* A reply to INIT, of whoever serves or of a candidate. */
static void worker_starts(void)
{
    uint8_t how = byte();
    struct init_answer reply = compose_init();
    size_t length = how & 1 ? byte() % (sizeof reply + 1) : sizeof reply;

    if (how & 2)
        bytes(&reply.init, sizeof reply.init);
    else
        bytes(&reply.init.flags, sizeof reply.init.flags);
    reply.header.len = (uint32_t)length;
    say(&reply, length, 0, how & 4);
}

/* The worker says that an answer was lost, of a request that waits or of none. */
static void worker_loses(void)
{
    const struct request *request = requests_at(byte());
    struct fuse_in_header header = {.nodeid = word()};
    struct fuse_read_in body = {.offset = byte()};

    if (request != NULL && request->length >= sizeof header + sizeof body) {
        memcpy(&header, request->message, sizeof header);
        memcpy(&body, request->message + sizeof header, sizeof body);
    }
    relay_again(header.nodeid, body.offset);
}

/* What happens next. */
static void step(void)
{
    switch (byte() % 15) {
    case 0:
    case 1:
        kernel_asks(1);
        break;
    case 2:
        kernel_asks(byte() == 255 ? REQUESTS_MAX : byte() % 64);
        break;
    case 3:
        kernel_interrupts();
        break;
    case 4:
    case 5:
        worker_says();
        break;
    case 6:
        worker_starts();
        break;
    case 7: /* not a message at all */
        say(NULL, 0, byte(), byte() % 2);
        break;
    case 8: /* the worker's socket */
        room = byte() < 128 ? byte() : SIZE_MAX;
        relay_flush();
        break;
    case 9: /* the worker died, another one serves */
        if (byte() % 2 == 0)
            relay_blame();
        requests_restart();
        relay_flush();
        break;
    case 10: /* time passes */
        clock_ns += (uint64_t)byte() * 10 * NS_PER_MS;
        readers_die = byte() % 2;
        readers_look();
        break;
    case 11:
        kernel_asks_xattr();
        break;
    case 12:
        kernel_babbles();
        break;
    case 13: /* the worker lost an answer */
        worker_loses();
        break;
    default:
        failing = byte() % 4 == 0;
        notices_full = byte() % 2;
        if (failing)
            relay_fail();
        MUST(!failing || requests_count() == 0);
        break;
    }
}

/* A worker that behaves comes last: then nobody may be left waiting. */
static void finish(void)
{
    failing = false;
    room = SIZE_MAX;
    relay_flush();
    MUST(requests_owed() == requests_count());
    for (uint64_t unique = 1; unique <= last_unique; unique++) {
        struct fuse_out_header header = {.len = sizeof header, .unique = unique};

        if (unique == init_unique || asked[unique].state != WAITING)
            continue;
        MUST(relay_answer((const char *)&header, sizeof header, true) == ANSWER_TAKEN);
        MUST(asked[unique].state == ANSWERED);
    }
    MUST(requests_count() == 0 && requests_owed() == 0 && first == NULL && unsent == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    reset(data, size);
    room = SIZE_MAX;
    failing = false;
    kernel_starts();
    while (input_left != 0) {
        step();
        if (requests_count() < 32)
            check_order();
    }
    check_order();
    finish();
    return 0;
}
