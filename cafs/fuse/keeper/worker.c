/*
 * Workers: who serves, who shall, and who did. One that is started is a candidate until it has
 * answered INIT as the first did, and a heartbeat; then it serves, and whoever served before is
 * told to leave. One that ends, hangs, stops or talks nonsense is replaced.
 */
#include "keeper.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    STARTS_MAX = 8,   /* that fail in a row */
    LAST_ROUNDS = 8,  /* of reading what a dead worker has said: its socket holds less */
    CONFIRM_MS = 1,   /* between looks whether it is time to confirm a reload */
};
#define LEAVING_NS (15 * NS_PER_S)     /* for a worker to end after SIGTERM */
#define CANDIDATE_NS (30 * NS_PER_S)   /* from INIT until it serves */
#define CLOSED_NS (2 * NS_PER_S)       /* to exit, for one that closed its requests */
#define CONFIRM_NS (1 * NS_PER_S)      /* for what it has the kernel forget once it serves */
#define SILENCE_NS (10 * NS_PER_S)     /* while it owes something */
#define SETTLED_NS (1 * NS_PER_S)      /* of service, after which its end is no failure to start */
#define BEAT_BUSY_NS (1 * NS_PER_S)    /* between heartbeats while requests wait, */
#define BEAT_IDLE_NS (5 * NS_PER_S)    /* and while none do */
#define DELAY_FIRST_NS (NS_PER_S / 10) /* after a first failure; doubled with each */
#define DELAY_MAX_NS (10 * NS_PER_S)

static struct worker workers[WORKERS_MAX];
static struct worker *serving, *candidate;
static unsigned started, failures;
static uint64_t start_ns; /* when the next is to be started, 0: no such time */
static bool given_up, ending;
static int first_word = -1; /* until a worker serves */

#define FOR_EACH(worker)                                                                         \
    for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++)

bool worker_send(const void *message, size_t length)
{
    return serving != NULL && wire_send(serving, message, length);
}

void worker_tell_gone(const struct request *request)
{
    if (serving != NULL && request->sent)
        wire_tell(serving, 'G', request->message, request->length);
}

/* ---- starting and failing ---- */

/* Tells who asked for a worker (-1: nobody; and so it is from now on) why it does not serve. */
static void refuse(int *client, const char *why)
{
    char text[256];

    if (*client < 0)
        return;
    snprintf(text, sizeof text, "{\"ok\":false,\"why\":\"%s\"}", why);
    control_reply(*client, text);
    *client = -1;
}

/* A start failed: decides what follows, unless somebody serves or is about to. */
static void failed(void)
{
    if (serving != NULL || candidate != NULL || given_up || ending)
        return;
    if (++failures < STARTS_MAX) {
        uint64_t delay = DELAY_FIRST_NS << (failures - 1);

        start_ns = now_ns() + (delay < DELAY_MAX_NS ? delay : DELAY_MAX_NS);
        return;
    }
    given_up = true;
    log_line(LEVEL_ERROR,
             "%u workers failed one after the other: every request fails from now on; "
             "find out why, then run `cafs reload MOUNT`",
             failures);
    relay_fail();
    if (!init_answered())
        keeper_end(EXIT_MOUNT);
}

void workers_initialise(void)
{
    size_t length;
    const char *init = init_requested(&length);

    if (init == NULL || candidate == NULL)
        return;
    wire_send(candidate, init, length);
    candidate->kill_ns = now_ns() + CANDIDATE_NS;
}

/* Starts a worker as the candidate. `client` asked for it (-1: nobody); `word` is owned. */
static void start(int client, int word)
{
    struct worker *place = NULL;

    start_ns = 0;
    FOR_EACH(worker)
        if (worker->state == ABSENT)
            place = worker;
    if (place != NULL) {
        *place = (struct worker){.client = client};
        place->pid = spawn(word >= 0 ? word : first_word, &place->requests, &place->channel);
    }
    if (word >= 0)
        close(word);
    if (place == NULL || place->pid < 0) {
        refuse(&client, place == NULL ? "former workers have not ended yet"
                                      : "no process can be started");
        failed();
        return;
    }
    started++;
    place->state = CANDIDATE;
    candidate = place;
    workers_initialise();
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
        if (serving == NULL)
            failures = 0;
        start(client, word);
        return;
    }
    if (word >= 0)
        close(word);
    refuse(&client, why);
}

/* ---- serving and leaving ---- */

/* Has a worker end by itself, within a while. */
static void dismiss(struct worker *worker)
{
    worker->state = LEAVING;
    worker->kill_ns = now_ns() + LEAVING_NS;
    if (!worker->buried)
        kill(worker->pid, SIGTERM);
}

/* Tells who asked for a worker, if anybody did, that it serves. */
static void confirm(struct worker *worker)
{
    char text[64];

    if (worker->client < 0)
        return;
    snprintf(text, sizeof text, "{\"ok\":true,\"worker\":%d}", worker->pid);
    control_reply(worker->client, text);
    worker->client = -1;
}

/*
 * Confirms a reload, when a name shows what it means now: the new worker has answered since it knows
 * that it serves, and the kernel has forgotten what it was told to. A reader may hold that up, but not
 * for long. Returns whether somebody waits on.
 */
static bool confirm_when_forgotten(void)
{
    if (serving == NULL || serving->client < 0)
        return false;
    if ((serving->beat != 0 || !notices_settled()) && now_ns() - serving->served_ns < CONFIRM_NS)
        return true;
    confirm(serving);
    return false;
}

/* Makes the candidate the one that serves: it gets everything that waits. */
static void promote(void)
{
    struct worker *worker = candidate;
    bool tried = worker->beat_ns != 0;
    size_t again = requests_restart();

    if (serving != NULL) {
        confirm(serving);
        dismiss(serving);
    }
    serving = worker;
    candidate = NULL;
    worker->state = SERVING;
    worker->kill_ns = worker->beat = 0;
    worker->served_ns = worker->heard_ns = worker->beat_ns = now_ns();
    given_up = false;
    if (first_word >= 0)
        close(first_word);
    first_word = -1;
    log_line(LEVEL_INFO, "worker %d serves (number %u; %zu requests are sent again)", worker->pid,
             started, again);
    counters.resent += again;
    if (tried)
        wire_beat(worker); /* by which it knows that it serves */
    relay_flush();
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
    refuse(&worker->client, why);
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

void workers_end(void)
{
    ending = true;
    start_ns = 0;
    serving = candidate = NULL;
    FOR_EACH(worker) {
        if (worker->state == ABSENT || worker->state == LEAVING)
            continue;
        refuse(&worker->client, "the mount has ended");
        wire_tell(worker, 'E', "", 0);
        dismiss(worker);
    }
}

/* ---- what workers send ---- */

/* Handles the reply to a heartbeat: that of a candidate makes it serve. */
static void take_beat(struct worker *worker, const char *message)
{
    struct fuse_out_header header;

    memcpy(&header, message, sizeof header);
    if (header.unique != worker->beat)
        return;
    worker->beat = 0;
    if (worker->state == CANDIDATE)
        promote();
}

void worker_take(struct worker *worker, const char *message, size_t length)
{
    bool first = !init_answered();

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
        if (!first) {
            wire_beat(worker);
            break;
        }
        promote();
        keeper_ready();
        break;
    case ANSWER_HEARTBEAT:
        take_beat(worker, message);
        break;
    }
}

/* Each has two places of `fds`. A candidate's channel waits: until it serves, its lease is its own. */
void workers_poll(struct pollfd fds[WORKERS_FDS])
{
    FOR_EACH(worker) {
        bool more = worker == serving && requests_unsent() != NULL;

        *fds++ = (struct pollfd){.fd = worker->state != ABSENT ? worker->requests : -1,
                                 .events = (short)(POLLIN | (more ? POLLOUT : 0))};
        *fds++ = (struct pollfd){.fd = worker == serving ? worker->channel : -1,
                                 .events = POLLIN};
    }
}

void workers_serve(const struct pollfd fds[WORKERS_FDS])
{
    /* Only workers_child frees a place, so that what was polled is still this worker's. */
    FOR_EACH(worker) {
        if (fds[0].revents & POLLOUT && worker == serving)
            relay_flush();
        if (fds[0].revents & (POLLIN | POLLERR | POLLHUP))
            wire_read(worker);
        /* One that closed its requests may be about to exit, and its code says why. */
        if (fds[0].revents != 0 && worker->requests < 0 && worker->state != LEAVING)
            worker->kill_ns = now_ns() + CLOSED_NS;
        if (fds[1].revents != 0 && worker == serving)
            wire_listen(worker);
        fds += 2;
    }
}

/* ---- time ---- */

/* Kills a worker whose time has come. */
static void check_patience(struct worker *worker)
{
    if (worker->state == ABSENT || worker->kill_ns == 0 || now_ns() < worker->kill_ns)
        return;
    if (worker->state == LEAVING)
        log_line(LEVEL_WARNING, "worker %d did not end, and is killed", worker->pid);
    condemn(worker, worker->requests < 0 ? "closed its requests" : "did not become ready in time",
            true);
}

/* Sends the heartbeat that is due, and replaces a worker that answers nothing. */
static void check_health(struct worker *worker, bool paused)
{
    if (paused)
        worker->heard_ns = now_ns();
    if (worker->beat == 0 &&
        now_ns() - worker->beat_ns >= (requests_count() != 0 ? BEAT_BUSY_NS : BEAT_IDLE_NS))
        wire_beat(worker);
    /* What waits for room in its socket counts too: one that hangs does not make any. */
    if ((worker->beat != 0 || requests_count() != 0) &&
        now_ns() - worker->heard_ns >= SILENCE_NS)
        condemn(worker, "has not answered for 10 s", true);
}

int workers_tick(void)
{
    static uint64_t last_ns;
    uint64_t now = now_ns();
    /* The keeper itself stood still (SIGSTOP, a frozen cgroup): the silence was not the worker's. */
    bool paused = last_ns != 0 && now - last_ns > BEAT_IDLE_NS + NS_PER_S;

    last_ns = now;
    FOR_EACH(worker)
        check_patience(worker);
    if (serving != NULL)
        check_health(serving, paused);
    if (start_ns != 0 && now >= start_ns)
        start(-1, -1);
    if (confirm_when_forgotten())
        return CONFIRM_MS;
    if (requests_count() != 0 || candidate != NULL || start_ns != 0 || ending)
        return TICK_MS;
    return (int)((serving != NULL && serving->beat != 0 ? BEAT_BUSY_NS : BEAT_IDLE_NS) / NS_PER_MS);
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

/* Reads what an ended worker had still said, as far as it counts, and closes its sockets. */
static void hear_out(struct worker *worker)
{
    /* Its end is closed, so that this reads until wire_read closes ours, unless a child has it. */
    for (int round = 0; round < LAST_ROUNDS && worker->requests >= 0; round++)
        wire_read(worker);
    if (worker == serving)
        wire_listen(worker);
    if (worker->requests >= 0)
        close(worker->requests);
    if (worker->channel >= 0)
        close(worker->channel);
    worker->requests = worker->channel = -1;
}

/* A worker's process has ended: what it had still said counts, then its place is free. */
static void bury(struct worker *worker, const siginfo_t *news)
{
    char why[64];
    bool own_fault = describe(news, why, sizeof why);

    worker->buried = true;
    hear_out(worker);
    if (worker->state != LEAVING) {
        /* One that exits before the kernel knows the mount had a reason that another has as well. */
        bool final = !init_answered() && news->si_code == CLD_EXITED;

        log_line(LEVEL_WARNING, "worker %d %s", worker->pid, why);
        ending = ending || final;
        lose(worker, why, own_fault);
        if (final)
            keeper_end(news->si_status != 0 ? news->si_status : EXIT_MOUNT);
    }
    worker->state = ABSENT;
}

void workers_child(const siginfo_t *news)
{
    FOR_EACH(worker) {
        if (worker->state == ABSENT || worker->pid != news->si_pid)
            continue;
        if (news->si_code == CLD_STOPPED || news->si_code == CLD_TRAPPED)
            condemn(worker, "was stopped", false);
        else
            bury(worker, news);
        return;
    }
}

/* ---- what others ask ---- */

bool workers_given_up(void)
{
    return given_up;
}

bool workers_left(void)
{
    FOR_EACH(worker)
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
