/*
 * worker.c and wire.c as well: several workers that do not behave, on real sockets; they say
 * anything on both of them, pass descriptors, close, exit, stop and hang. At the end come workers
 * that behave, and nobody may be left waiting.
 */
#include "kernel.h"

#include "../../cafs/fuse/keeper/worker.c"
#include "../../cafs/fuse/keeper/wire.c"

enum {
    PROCESSES_MAX = 512,
    ROUNDS_MAX = 4000, /* of 100 ms: longer than all delays and patience together */
    FDS_MAX = 64,
};

static struct {
    int requests, channel; /* the worker's ends, -1: closed */
    bool alive;            /* it has not ended, or its end is not known yet */
    bool told;             /* it got SIGTERM */
    siginfo_t news;        /* si_pid is not 0: its end, to be told */
} processes[PROCESSES_MAX + 1];

static int process_count; /* pids are 1 to this */
static bool over;         /* the keeper has been ended */
static bool no_processes; /* the next start fails */

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A process ends; the keeper hears of it later. */
static void end(int pid, int code, int status)
{
    if (!processes[pid].alive || processes[pid].news.si_pid != 0)
        return;
    shut(&processes[pid].requests);
    shut(&processes[pid].channel);
    processes[pid].news = (siginfo_t){.si_code = code, .si_signo = SIGCHLD};
    processes[pid].news.si_pid = pid;
    processes[pid].news.si_status = status;
}

/* ---- what worker.c asks of the others ---- */

static void signalled(int pid, int number)
{
    MUST(pid >= 1 && pid <= process_count && processes[pid].alive);
    if (number == SIGKILL)
        end(pid, CLD_KILLED, SIGKILL);
    else
        processes[pid].told = true;
}

int spawn_prepare(char *const command[], const char *user)
{
    MUST(command == NULL && user == NULL);
    return 0;
}

pid_t spawn(int word, int *requests, int *channel)
{
    int first_pair[2], second_pair[2];

    MUST(word < 0 || fcntl(word, F_GETFD) >= 0);
    if (no_processes || process_count == PROCESSES_MAX)
        return -1;
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, first_pair) == 0);
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, second_pair) == 0);
    process_count++;
    processes[process_count].requests = first_pair[1];
    processes[process_count].channel = second_pair[1];
    processes[process_count].alive = true;
    processes[process_count].told = false;
    processes[process_count].news.si_pid = 0;
    *requests = first_pair[0];
    *channel = second_pair[0];
    return process_count;
}

void control_reply(int client, const char *text)
{
    MUST(client >= 0 && strlen(text) < 256);
}

void keeper_ready(void)
{
    MUST(init_answered() && !over);
}

void keeper_end(int code)
{
    MUST(code != 0);
    over = true;
    workers_end();
}

/* ---- workers ---- */

/* One of the latest processes, if it is there to do something: 0 if not. */
static int some_process(void)
{
    int pid = process_count - byte() % 4;

    return pid >= 1 && processes[pid].alive && processes[pid].news.si_pid == 0 ? pid : 0;
}

/* Sends bytes and descriptors; a full socket takes none. */
static void transmit(int fd, const void *message, size_t length, int rights)
{
    char space[CMSG_SPACE(8 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec part = {(void *)(uintptr_t)message, length};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    int fds[8];

    if (fd < 0)
        return;
    for (int i = 0; i < rights; i++)
        MUST((fds[i] = dup(STDERR_FILENO)) >= 0);
    if (rights > 0) {
        struct cmsghdr *header;

        packet.msg_control = space;
        packet.msg_controllen = CMSG_SPACE((size_t)rights * sizeof(int));
        header = CMSG_FIRSTHDR(&packet);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN((size_t)rights * sizeof(int));
        memcpy(CMSG_DATA(header), fds, (size_t)rights * sizeof(int));
    }
    sendmsg(fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (int i = 0; i < rights; i++)
        close(fds[i]);
}

/*
 * Takes one message off a process's requests and answers it as it should.
 * False: there is none, or no room for the answer.
 */
static bool behave(int pid)
{
    struct pollfd answering = {.fd = processes[pid].requests, .events = POLLOUT};
    char message[REQUEST_SIZE];
    struct fuse_in_header header;
    struct init_answer init = compose_init();
    struct fuse_out_header answer = {.len = sizeof answer};
    ssize_t length;

    if (poll(&answering, 1, 0) != 1 || !(answering.revents & POLLOUT))
        return false;
    length = recv(processes[pid].requests, message, sizeof message, MSG_DONTWAIT);
    if (length <= 0)
        return false;
    MUST(length >= (ssize_t)sizeof header);
    memcpy(&header, message, sizeof header);
    if (header.unique & HEARTBEAT_BIT)
        MUST(header.opcode == FUSE_STATFS && length == sizeof header && header.len == length);
    else
        check_request(message, (size_t)length);
    answer.unique = header.unique;
    if (header.opcode == FUSE_INIT)
        transmit(processes[pid].requests, &init, sizeof init, 0);
    else
        transmit(processes[pid].requests, &answer, sizeof answer, 0);
    return true;
}

/* A message of any kind on either socket, with or without descriptors. */
static void misbehave(int pid)
{
    static char message[ANSWER_MAX + 4096];
    uint8_t how = byte();
    size_t length = word() % (how & 0x20 ? sizeof message - 64 : BODY_MAX);
    struct fuse_out_header header = compose(how, length);

    memset(message, 0, length < BODY_MAX ? length : BODY_MAX);
    bytes(message + sizeof header, length < 64 ? length : 64);
    memcpy(message, &header, sizeof header);
    if (how & 0x40)
        transmit(processes[pid].channel, &"LLX"[how % 3], 1 + how % 2, byte() % 8);
    else if (how & 0x80)
        transmit(processes[pid].requests, message, word() % 32, byte() % 4);
    else
        transmit(processes[pid].requests, message, sizeof header + length, 0);
}

/* What a worker may say on its channel: its lease, or that an answer to what waits was lost. */
static void say_on_channel(int pid, uint8_t which)
{
    struct fuse_in_header header = {.nodeid = which};
    struct fuse_read_in body = {.offset = 0};
    const struct request *request = requests_at(which % 8);
    char text[17] = "A";

    if (request != NULL && request->length >= sizeof header + sizeof body) {
        memcpy(&header, request->message, sizeof header);
        memcpy(&body, request->message + sizeof header, sizeof body);
    }
    memcpy(text + 1, &header.nodeid, 8);
    memcpy(text + 9, &body.offset, 8);
    if (which < 128)
        transmit(processes[pid].channel, "L", 1, 1);
    else
        transmit(processes[pid].channel, text, sizeof text, 0);
}

/* A reply to INIT that may differ from the one of good workers. */
static void reply_to_init(int pid)
{
    struct init_answer reply = compose_init();
    uint8_t where = byte();

    if (where < sizeof reply.init - 1)
        bytes((char *)&reply.init + where, 2);
    transmit(processes[pid].requests, &reply, sizeof reply, 0);
}

/* A process ends, stops, or closes a socket. */
static void fall(int pid)
{
    siginfo_t stopped = {.si_code = CLD_STOPPED, .si_signo = SIGCHLD};

    stopped.si_pid = pid;
    switch (byte() % 6) {
    case 0:
        end(pid, CLD_EXITED, byte());
        break;
    case 1:
        end(pid, CLD_DUMPED, SIGSEGV);
        break;
    case 2:
        workers_child(&stopped);
        break;
    case 3:
        shut(&processes[pid].requests);
        break;
    case 4:
        shut(&processes[pid].channel);
        break;
    default: /* as told, or not */
        if (processes[pid].told)
            end(pid, CLD_EXITED, 0);
        break;
    }
}

/* ---- the keeper's loop ---- */

/* Tells of all ends that are not told yet. */
static void reap(void)
{
    for (int pid = 1; pid <= process_count; pid++)
        if (processes[pid].alive && processes[pid].news.si_pid != 0) {
            processes[pid].alive = false;
            workers_child(&processes[pid].news);
        }
}

/* One turn of the loop, some time after the last. */
static void turn(uint64_t passed_ns)
{
    struct pollfd fds[WORKERS_FDS];
    int wait_ms;

    clock_ns += passed_ns;
    workers_poll(fds);
    MUST(poll(fds, WORKERS_FDS, 0) >= 0);
    workers_serve(fds);
    wait_ms = workers_tick();
    MUST(wait_ms > 0 && wait_ms <= 5000);
    MUST(!workers_given_up() || requests_count() == 0);
}

/* What happens next. */
static void step(void)
{
    uint8_t choice = byte();
    int pid;

    switch (choice % 15) {
    case 0:
        if (init_answered())
            kernel_asks(choice == 255 && byte() > 252 ? REQUESTS_MAX : 1 + choice / 15);
        break;
    case 1:
        kernel_interrupts();
        break;
    case 2:
        clock_ns += (uint64_t)byte() * 10 * NS_PER_MS;
        readers_die = byte() % 2;
        readers_look();
        break;
    case 3:
        workers_reload(choice, choice < 128 ? -1 : dup(STDERR_FILENO));
        break;
    case 4:
        if (choice < 100)
            reap();
        else if (choice < 180)
            kernel_babbles();
        else if (init_answered())
            kernel_asks_xattr();
        break;
    case 5:
    case 6:
        turn((uint64_t)byte() * byte() * NS_PER_MS);
        break;
    case 7:
        no_processes = choice > 200;
        break;
    default:
        if ((pid = some_process()) == 0)
            break;
        if (choice % 15 == 8)
            fall(pid);
        else if (choice % 15 == 9)
            reply_to_init(pid);
        else if (choice % 15 == 10)
            misbehave(pid);
        else if (choice % 15 == 11)
            say_on_channel(pid, byte());
        else
            while (behave(pid) && choice % 15 != 12)
                continue;
        break;
    }
}

/* All workers behave from now on. */
static void settle(void)
{
    for (int pid = 1; pid <= process_count; pid++) {
        if (!processes[pid].alive || processes[pid].news.si_pid != 0)
            continue;
        while (behave(pid))
            continue;
        if (processes[pid].told)
            end(pid, CLD_EXITED, 0);
    }
    reap();
    turn(100 * NS_PER_MS);
}

/* Nobody waits for ever, and at the end nothing is left of anybody. */
static void finish(void)
{
    int rounds = 0;

    no_processes = false;
    while (!over && (requests_count() != 0 || !init_answered())) {
        MUST(rounds++ < ROUNDS_MAX);
        settle();
    }
    for (uint64_t unique = 1; !over && unique <= last_unique; unique++)
        MUST(asked[unique].state != WAITING);
    if (!over)
        workers_end();
    while (workers_left()) {
        MUST(rounds++ < 2 * ROUNDS_MAX);
        settle();
    }
}

/* How many descriptors are open, of the first ones. */
static int open_count(void)
{
    int count = 0;

    for (int fd = 0; fd < FDS_MAX; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int open_before = open_count();

    reset(data, size);
    memset(workers, 0, sizeof workers);
    serving = candidate = NULL;
    started = failures = 0;
    start_ns = 0;
    given_up = ending = over = no_processes = false;
    process_count = 0;

    workers_start(-1);
    kernel_starts();
    while (input_left != 0 && !over) {
        step();
        if (requests_count() < 32)
            check_order();
    }
    check_order();
    finish();
    MUST(open_count() <= open_before + 1); /* a lease is kept */
    return 0;
}
