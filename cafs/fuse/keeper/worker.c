/*
 * Workers: who serves, who shall, and who did. One that is started is a candidate until it has
 * answered INIT as the first did, and a heartbeat; then it serves, and whoever served before is
 * told to leave. One that ends, hangs, stops or talks nonsense is replaced.
 */
#include "keeper.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BATCH = 64,            /* messages taken from one worker before others have their turn */
    FAILURES_MAX = 8,      /* starts that fail in a row */
    TICK_MS = 100,         /* while something is under way */
    EXIT_MOUNT = 8,
};
#define LEAVING_NS (15 * NS_PER_S)      /* for a worker to end after SIGTERM */
#define CANDIDATE_NS (30 * NS_PER_S)    /* from INIT until it serves */
#define CLOSED_NS (2 * NS_PER_S)        /* to exit, for one that closed its socket */
#define SILENCE_NS (10 * NS_PER_S)      /* while it owes something */
#define SETTLED_NS (1 * NS_PER_S)       /* of service, after which its end is no failure to start */
#define BEAT_BUSY_NS (1 * NS_PER_S)     /* between heartbeats while requests wait, */
#define BEAT_IDLE_NS (5 * NS_PER_S)     /* and while none do */
#define DELAY_FIRST_NS (NS_PER_S / 10)  /* after a first failure; doubled with each */
#define DELAY_MAX_NS (10 * NS_PER_S)

struct worker {
    enum { ABSENT, CANDIDATE, SERVING, LEAVING } state;
    pid_t pid;
    bool buried;           /* its process is no more, and its pid may be another's by now */
    int requests, channel; /* -1: closed */
    int client;            /* of control.c, who asked for it; -1: nobody did */
    uint64_t served_ns;    /* since when it serves */
    uint64_t kill_ns;      /* when patience with it ends, 0: there is no such time */
    uint64_t heard_ns;     /* when it last sent anything, or began to owe something */
    uint64_t beat;         /* the heartbeat that it has not answered, 0: none */
    uint64_t beat_ns;      /* when the last heartbeat was sent */
};

static struct worker workers[WORKERS_MAX];
static struct worker *serving, *candidate;
static unsigned started, failures;
static uint64_t start_ns; /* when the next is to be started, 0: no such time */
static bool given_up, ending;
static int first_word = -1;

/* ---- sending ---- */

/* Sends a message on a worker's socket. False: it is full, or nobody is there any more. */
static bool send_now(struct worker *worker, const void *message, size_t length)
{
    if (worker->requests < 0 ||
        send(worker->requests, message, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return false;
    if (requests_owed() == 0 && worker->beat == 0)
        worker->heard_ns = now_ns();
    return true;
}

bool worker_send(const void *message, size_t length)
{
    return serving != NULL && send_now(serving, message, length);
}

void worker_tell_gone(const struct request *request)
{
    char message[1 + REQUEST_SIZE] = "G";

    if (serving == NULL || serving->channel < 0 || !request->sent)
        return;
    memcpy(message + 1, request->message, request->length);
    /* A full channel loses this: the worker then ends work that nobody waits for by itself. */
    send(serving->channel, message, 1 + request->length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Sends a heartbeat, if the socket takes it. */
static void send_beat(struct worker *worker, uint64_t now)
{
    static uint64_t beats;
    struct fuse_in_header header = {.len = sizeof header,
                                    .opcode = FUSE_STATFS,
                                    .unique = HEARTBEAT_BIT | (beats + 1),
                                    .nodeid = FUSE_ROOT_ID};

    if (!send_now(worker, &header, sizeof header))
        return;
    worker->beat = HEARTBEAT_BIT | ++beats;
    worker->beat_ns = now;
}

/* Sends the kernel's INIT to a candidate, which has from now on a time to become ready. */
static void send_init(struct worker *worker)
{
    size_t length;
    const char *init = relay_init(&length);

    if (init == NULL)
        return;
    send_now(worker, init, length);
    worker->kill_ns = now_ns() + CANDIDATE_NS;
}

void workers_initialise(void)
{
    if (candidate != NULL)
        send_init(candidate);
}

/* ---- starting, serving, leaving ---- */

/* Tells the client who asked for a worker that it does not serve, and why. */
static void report_failure(int client, const char *why)
{
    char text[256];

    if (client < 0)
        return;
    snprintf(text, sizeof text, "{\"ok\":false,\"why\":\"%s\"}", why);
    control_reply(client, text);
}

/* Answers everything with an error from now on, until an admin acts. */
static void give_up(void)
{
    given_up = true;
    log_line(LEVEL_ERROR,
             "%u workers failed one after the other: every request fails from now on; "
             "find out why, then run `cafs reload MOUNT`",
             failures);
    relay_fail();
    if (!relay_initialised())
        keeper_end(EXIT_MOUNT);
}

/* Decides what follows a start that failed. */
static void failed(void)
{
    uint64_t delay = DELAY_FIRST_NS << failures;

    if (serving != NULL || candidate != NULL || given_up || ending)
        return;
    if (++failures >= FAILURES_MAX)
        give_up();
    else
        start_ns = now_ns() + (delay < DELAY_MAX_NS ? delay : DELAY_MAX_NS);
}

/* Starts a worker as a candidate. `client` asked for it (-1: nobody); `word` is owned. */
static void start(int client, int word)
{
    struct worker *worker = workers;

    start_ns = 0;
    while (worker < workers + WORKERS_MAX && worker->state != ABSENT)
        worker++;
    if (worker == workers + WORKERS_MAX) {
        if (word >= 0)
            close(word);
        report_failure(client, "former workers have not ended yet");
        failed();
        return;
    }
    *worker = (struct worker){.state = CANDIDATE, .client = client};
    worker->pid = spawn(word >= 0 ? word : first_word, &worker->requests, &worker->channel);
    if (word >= 0)
        close(word);
    if (worker->pid < 0) {
        worker->state = ABSENT;
        report_failure(client, "no process can be started");
        failed();
        return;
    }
    started++;
    candidate = worker;
    send_init(worker);
}

/* Has a worker end by itself, within a while. */
static void dismiss(struct worker *worker)
{
    worker->state = LEAVING;
    worker->kill_ns = now_ns() + LEAVING_NS;
    if (!worker->buried)
        kill(worker->pid, SIGTERM);
}

/* Makes the candidate the one that serves: it gets everything that waits. */
static void promote(struct worker *worker)
{
    char text[64];
    size_t again = requests_restart();

    if (serving != NULL)
        dismiss(serving);
    serving = worker;
    candidate = NULL;
    worker->state = SERVING;
    worker->kill_ns = 0;
    worker->served_ns = worker->heard_ns = worker->beat_ns = now_ns();
    worker->beat = 0;
    given_up = false;
    if (first_word >= 0)
        close(first_word);
    first_word = -1;
    log_line(LEVEL_INFO, "worker %d serves (number %u; %zu requests are sent again)", worker->pid,
             started, again);
    counters.resent += again;
    relay_flush();
    snprintf(text, sizeof text, "{\"ok\":true,\"worker\":%d}", worker->pid);
    if (worker->client >= 0)
        control_reply(worker->client, text);
    worker->client = -1;
}

/*
 * A worker that served or was to serve will not. What follows is decided here. `own_fault`: it was
 * not killed or stopped by somebody else, so that a request may be what it failed at.
 */
static void lose(struct worker *worker, const char *why, bool own_fault)
{
    bool settled = worker->state == SERVING && now_ns() - worker->served_ns >= SETTLED_NS;

    if (worker->state == SERVING && own_fault)
        relay_blame();
    worker->state = LEAVING;
    worker->kill_ns = 0;
    if (worker == serving)
        serving = NULL;
    if (worker == candidate)
        candidate = NULL;
    report_failure(worker->client, why);
    worker->client = -1;
    if (settled)
        failures = 0;
    if (settled && candidate == NULL && !ending)
        start(-1, -1);
    else
        failed();
}

/* Kills a worker, and replaces it if it served or was to serve; `own_fault` is that of lose. */
static void condemn(struct worker *worker, const char *why, bool own_fault)
{
    if (!worker->buried)
        kill(worker->pid, SIGKILL);
    worker->kill_ns = 0;
    if (worker->state == LEAVING)
        return;
    log_line(LEVEL_WARNING, "worker %d %s: it is killed and replaced", worker->pid, why);
    lose(worker, why, own_fault);
}

void workers_start(int word)
{
    first_word = word;
    start(-1, -1);
}

void workers_reload(int client, int word)
{
    const char *why = ending              ? "the mount is about to end"
                      : candidate != NULL ? "a worker is being started already"
                                          : NULL;

    if (why == NULL) {
        if (!given_up && serving == NULL)
            failures = 0;
        start(client, word);
        return;
    }
    if (word >= 0)
        close(word);
    report_failure(client, why);
}

void workers_end(void)
{
    ending = true;
    start_ns = 0;
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++) {
        if (worker->state == ABSENT || worker->state == LEAVING)
            continue;
        report_failure(worker->client, "the mount has ended");
        worker->client = -1;
        if (worker->channel >= 0)
            send(worker->channel, "E", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        dismiss(worker);
    }
    serving = candidate = NULL;
}

/* ---- receiving ---- */

/* Handles the reply to a heartbeat: that of a candidate makes it serve. */
static void take_beat(struct worker *worker, const char *message)
{
    struct fuse_out_header header;

    memcpy(&header, message, sizeof header);
    if (header.unique != worker->beat)
        return;
    worker->beat = 0;
    if (worker->state == CANDIDATE)
        promote(worker);
}

/* Handles one message from a worker's requests. */
static void take_message(struct worker *worker, const char *message, size_t length)
{
    bool first = !relay_initialised();

    if (worker->state == LEAVING) /* somebody else has been given what it answers */
        return;
    worker->heard_ns = now_ns();
    switch (relay_answer(message, length, worker->state == SERVING)) {
    case ANSWER_TAKEN:
        break;
    case ANSWER_BROKEN:
        condemn(worker, "sent what is no reply", true);
        break;
    case ANSWER_OTHER:
        condemn(worker, "answered INIT otherwise than the kernel was told", true);
        break;
    case ANSWER_INIT:
        if (first) {
            promote(worker);
            keeper_ready();
        } else {
            send_beat(worker, worker->heard_ns);
        }
        break;
    case ANSWER_HEARTBEAT:
        take_beat(worker, message);
        break;
    }
}

/* Takes what lies in a worker's requests, up to a batch. False: its end is closed. */
static bool read_requests(struct worker *worker)
{
    static char buffer[ANSWER_MAX];

    for (int i = 0; i < BATCH; i++) {
        ssize_t length =
            recv(worker->requests, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);

        if (length > 0)
            take_message(worker, buffer, (size_t)length);
        else
            return length < 0 && (errno == EAGAIN || errno == EINTR);
    }
    return true;
}

/* Keeps a lease, instead of the one before it. */
static void keep_lease(int lease)
{
    static int kept = -1;

    if (kept >= 0)
        close(kept);
    kept = lease;
}

/* Takes one message from a worker's channel. False: none is there; *closed: its end is closed. */
static bool read_channel(struct worker *worker, bool *closed)
{
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
    struct cmsghdr *header;
    int fds[2];
    size_t count = 0;

    *closed = length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR);
    if (length <= 0)
        return false;
    header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(header), count * sizeof(int));
    }
    if (length == 1 && text[0] == 'L' && count == 1 && !(message.msg_flags & MSG_CTRUNC)) {
        keep_lease(fds[0]);
        return true;
    }
    complain("worker %d sent a message on its channel that has no meaning", worker->pid);
    while (count > 0)
        close(fds[--count]);
    return true;
}

/* Reads a worker's channel, and closes it when its other end is closed. */
static void serve_channel(struct worker *worker)
{
    bool closed = false;

    for (int i = 0; i < BATCH && read_channel(worker, &closed); i++)
        continue;
    if (closed) {
        close(worker->channel);
        worker->channel = -1;
    }
}

/* Reads a worker's requests; one that closed them has a moment to exit, so that we know how. */
static void serve_requests(struct worker *worker)
{
    if (read_requests(worker))
        return;
    close(worker->requests);
    worker->requests = -1;
    if (worker->state == SERVING || worker->state == CANDIDATE)
        worker->kill_ns = now_ns() + CLOSED_NS;
}

/*
 * Lists descriptors worker by worker: where poll is to look, and whose it is. A candidate's channel
 * is read once it serves: until then its lease is its own.
 */
void workers_poll(struct pollfd fds[WORKERS_FDS])
{
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++) {
        bool more = worker == serving && requests_unsent() != NULL;
        bool live = worker->state != ABSENT;

        *fds++ = (struct pollfd){.fd = live ? worker->requests : -1,
                                 .events = (short)(POLLIN | (more ? POLLOUT : 0))};
        *fds++ = (struct pollfd){.fd = worker == serving ? worker->channel : -1,
                                 .events = POLLIN};
    }
}

void workers_serve(const struct pollfd fds[WORKERS_FDS])
{
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++, fds += 2) {
        if (fds[0].revents & POLLOUT && worker == serving)
            relay_flush();
        if (fds[0].revents & (POLLIN | POLLERR | POLLHUP))
            serve_requests(worker);
        /* What was polled is still this worker's: only workers_child frees a place. */
        if (fds[1].revents != 0 && worker == serving)
            serve_channel(worker);
    }
}

/* ---- time ---- */

/* Kills a worker whose time has come. */
static void check_patience(struct worker *worker, uint64_t now)
{
    if (worker->state == ABSENT || worker->kill_ns == 0 || now < worker->kill_ns)
        return;
    if (worker->state == LEAVING)
        log_line(LEVEL_WARNING, "worker %d did not end, and is killed", worker->pid);
    condemn(worker, worker->requests < 0 ? "closed its requests"
                    : worker->state == CANDIDATE ? "did not become ready in time" : "failed", true);
}

/* Sends the heartbeat that is due, and replaces a worker that answers nothing. */
static void check_health(struct worker *worker, uint64_t now, bool paused)
{
    uint64_t interval = requests_count() != 0 ? BEAT_BUSY_NS : BEAT_IDLE_NS;

    if (paused)
        worker->heard_ns = now;
    if (worker->beat == 0 && now - worker->beat_ns >= interval)
        send_beat(worker, now);
    if ((worker->beat != 0 || requests_owed() != 0) &&
        now_ns() - worker->heard_ns >= SILENCE_NS)
        condemn(worker, "has not answered for 10 s", true);
}

int workers_tick(void)
{
    static uint64_t last_ns;
    uint64_t now = now_ns();
    /* The keeper itself stood still (SIGSTOP, a frozen cgroup): that was not the worker's silence. */
    bool paused = last_ns != 0 && now - last_ns > BEAT_IDLE_NS + NS_PER_S;

    last_ns = now;
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++)
        check_patience(worker, now);
    if (serving != NULL)
        check_health(serving, now, paused);
    if (start_ns != 0 && now >= start_ns)
        start(-1, -1);
    if (requests_count() != 0 || candidate != NULL || start_ns != 0 || ending)
        return TICK_MS;
    return serving != NULL && serving->beat != 0 ? 1000 : (int)(BEAT_IDLE_NS / NS_PER_MS);
}

/* ---- the ends of processes ---- */

/* Says how a child ended. Returns whether that was its own doing. */
static bool describe(const siginfo_t *news, char *text, size_t size)
{
    if (news->si_code == CLD_EXITED) {
        snprintf(text, size, "exited with code %d", news->si_status);
        return news->si_status != 0;
    }
    snprintf(text, size, "was killed by signal %d", news->si_status);
    return news->si_status != SIGKILL && news->si_status != SIGTERM;
}

/* A worker's process has ended: what it had still said counts, then its place is free. */
static void bury(struct worker *worker, const siginfo_t *news)
{
    char why[64];
    bool own_fault;

    worker->buried = true;
    for (int i = 0; i < BATCH && worker->requests >= 0 && read_requests(worker); i++)
        continue;
    if (worker == serving && worker->channel >= 0)
        serve_channel(worker);
    own_fault = describe(news, why, sizeof why);
    if (worker->state != LEAVING) {
        /* One that exits before the kernel knows the mount had a reason that another has as well. */
        bool final = !relay_initialised() && news->si_code == CLD_EXITED;

        log_line(LEVEL_WARNING, "worker %d %s", worker->pid, why);
        ending = ending || final;
        lose(worker, why, own_fault);
        if (final)
            keeper_end(news->si_status != 0 ? news->si_status : EXIT_MOUNT);
    }
    if (worker->requests >= 0)
        close(worker->requests);
    if (worker->channel >= 0)
        close(worker->channel);
    worker->state = ABSENT;
}

void workers_child(const siginfo_t *news)
{
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++) {
        if (worker->state == ABSENT || worker->pid != news->si_pid)
            continue;
        if (news->si_code == CLD_STOPPED || news->si_code == CLD_TRAPPED)
            condemn(worker, "was stopped", false);
        else
            bury(worker, news);
        return;
    }
}

bool workers_given_up(void)
{
    return given_up;
}

bool workers_left(void)
{
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++)
        if (worker->state != ABSENT)
            return true;
    return false;
}

pid_t workers_serving(void)
{
    return serving != NULL ? serving->pid : 0;
}

unsigned workers_started(void)
{
    return started;
}
