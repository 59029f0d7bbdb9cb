/*
 * The keeper holds one mount: it relays requests between the kernel and a worker, and outlives the
 * worker. Nothing here blocks for long but two threads (notices.c, pages.c); docs/processes.md tells
 * the whole story.
 * The files, from the top: main.c, ending.c and device.c; relay.c with init.c, requests.c and
 * readers.c; worker.c with wire.c and spawn.c; then those that can be read each for itself.
 */
#ifndef CAFS_KEEPER_H
#define CAFS_KEEPER_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- main.c: the options, the loop, the service manager ---- */

enum { EXIT_USAGE = 2, EXIT_MOUNT = 8 }; /* 8: the keeper, or a worker, cannot start */

extern struct settings {
    int fd, word; /* -1: none */
    unsigned read_ahead;
    char *options;
    const char *user, *control, *live, *point;
    char **command;
} settings;

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);

enum { NS_PER_MS = 1000000, TICK_MS = 100 }; /* between looks, while there is something to see */
#define NS_PER_S UINT64_C(1000000000)

/* The kernel has its reply to INIT. */
void keeper_ready(void);

/* Tells a service manager (NOTIFY_SOCKET) "READY=1" and the like. Nothing happens without one. */
void service_notify(const char *state);

/* ---- ending.c: how the keeper ends ---- */

/* Ends the keeper, which unmounts if the mount is there; the first call counts. */
void keeper_end(int code);

/* Someone asks it to end: it drains; asked again it detaches the mount; a third time ends at once. */
void ending_ask(void);

/* Handles news of a child from waitid. False: it is none that unmounts. */
bool ending_child(const siginfo_t *news);

/* Unmounts if it is time to. Returns whether there is more to be done later. */
bool ending_tick(void);

/* Whether the end has begun; whether the mount has gone. */
bool ending_begun(void);
bool ending_mount(void);

/* The exit code, once nothing is left to be done; -1 before. */
int ending_code(void);

/* ---- device.c: /dev/fuse ---- */

/* Mounts, or takes the descriptor of --fd. Returns the descriptor, -1 when that was logged. */
int device_open(void);

/* Takes requests, as many as there are places and turns. The end of the mount ends the keeper. */
void device_serve(void);

/* Writes one message to the kernel. */
void device_write(const void *message, size_t length);

/* Lets go of the device. */
void device_close(void);

/* ---- relay.c: every message between the kernel and a worker. It needs nothing but a buffer; what
 * it does to the outside are device_write, worker_send, workers_given_up, readers_look_at,
 * notices_push, notices_settle, pages_forget and log_line ---- */

enum {
    DATA_MAX = 256 << 10,         /* bytes of content in one message (ADR 0009) */
    ANSWER_MAX = DATA_MAX + 4096, /* the longest reply */
    DEVICE_READ = 8192,           /* what the kernel wants to be offered for each request */
};

/* What has been done since the start, for `status`. */
struct counters {
    uint64_t relayed;         /* requests taken for the worker */
    uint64_t answered;        /* requests that were answered here */
    uint64_t resent;          /* requests that a second worker had to be given, or the same again */
    uint64_t interrupted;     /* requests whose reader was killed */
    uint64_t notices;         /* notifications taken */
    uint64_t notices_dropped; /* notifications that were not */
};
extern struct counters counters;

/* Heartbeats carry this bit in their unique; the kernel counts up from 2. */
#define HEARTBEAT_BIT (UINT64_C(1) << 63)

/*
 * Handles a request of the kernel: answers it, or remembers it and sends it as soon as may be.
 * `message` holds the first DEVICE_READ bytes if it is longer.
 */
void relay_request(const char *message, size_t length);

/* Sends what the worker has not got yet, as far as it takes it. */
void relay_flush(void);

enum answer {
    ANSWER_TAKEN,     /* relayed, or dropped for a good reason */
    ANSWER_BROKEN,    /* not a reply at all: whoever sends this is not to be trusted */
    ANSWER_INIT,      /* a reply to INIT which is the one that the kernel has, by now or before */
    ANSWER_OTHER,     /* a reply to INIT that is unlike the one that the kernel has */
    ANSWER_HEARTBEAT, /* a reply to a heartbeat; the unique in it says which */
};

/*
 * Handles a message of a worker, of any content. That of one that does not serve yet may answer
 * INIT and heartbeats, and notify; its other replies are dropped.
 */
enum answer relay_answer(const char *message, size_t length, bool serving);

/* The worker's answer to a READ or READDIR of this node and offset was lost: it is sent again. */
void relay_again(uint64_t node, uint64_t offset);

/* Answers a request with an error (0: success) and no more. */
void relay_error(uint64_t unique, int error);

/* Answers all that wait with EIO. */
void relay_fail(void);

/*
 * A worker has failed, perhaps at one of the requests that it had: one that was under way in three
 * such failures is answered with EIO, so that it cannot bring down all workers to come.
 */
void relay_blame(void);

/* ---- init.c: what the kernel and the workers agree on at first ---- */

/* Keeps the kernel's INIT, of at least a header, and has it sent (workers_initialise). */
void init_request(const char *message, size_t length);

/* Returns the kernel's INIT with its length; NULL before it has come. */
const char *init_requested(size_t *length);

/* Whether the kernel offers a flag of INIT's first 32. */
bool init_offers(uint32_t flag);

/* Handles what may be a worker's reply to INIT, of at least a header. The first goes to the kernel. */
enum answer init_reply(const char *message, size_t length);

/* Whether the kernel has its reply to INIT. */
bool init_answered(void);

/* ---- requests.c: the requests that nobody has answered yet, in the order in which they are to be
 * sent: first those that the worker has, then those that it has not got yet ---- */

enum {
    REQUESTS_MAX = 4096,
    REQUEST_SIZE = 320, /* any with one name fits; all places taken, the keeper stays below 4 MiB */
};

struct request {
    struct request *before, *after; /* neighbours in the order */
    struct request *chain;          /* the next with the same hash, or the next unused one */
    uint64_t unique;                /* 0: unused */
    uint64_t since_ns;              /* when it came */
    int32_t tid;                    /* the thread that waits, 0: not known */
    uint32_t length;
    bool sent;        /* the worker has it */
    uint8_t refusals; /* how often a worker answered EINTR to it, though its reader is there */
    uint8_t blames;   /* how many workers failed while they had it */
    char message[REQUEST_SIZE];
};

/*
 * Remembers a request of at most REQUEST_SIZE bytes, as the last that is to be sent.
 * Returns NULL when all places are taken, or its unique waits already.
 */
struct request *requests_add(const void *message, size_t length);

/* Returns the request with this unique; NULL: there is none. */
struct request *requests_find(uint64_t unique);

/* Forgets a request. */
void requests_remove(struct request *request);

/* Returns the first that is to be sent, NULL when the worker has them all. */
struct request *requests_unsent(void);

/* The worker has got what requests_unsent returned. */
void requests_sent(struct request *request);

/* A request that had been sent is to be sent again, after all others. */
void requests_again(struct request *request);

/* All are to be sent again, in the order. Returns how many had been sent. */
size_t requests_restart(void);

/* How many wait; how many of these the worker has. */
size_t requests_count(void);
size_t requests_owed(void);

/* Returns the request at a place below REQUESTS_MAX, NULL when none is there. */
struct request *requests_at(size_t place);

/* ---- readers.c: the kernel does not always say that a reader was killed ---- */

/* Looks after those who have waited for a while, at most a few hundred at once. */
void readers_look(void);

/* Looks after the reader of one request, whether or not it waits still. */
void readers_look_at(uint64_t unique);

/* ---- worker.c: who serves, who shall, who did ---- */

enum { WORKERS_MAX = 4, WORKERS_FDS = 2 * WORKERS_MAX };

struct worker {
    enum { ABSENT, CANDIDATE, SERVING, LEAVING } state;
    pid_t pid;
    bool buried;           /* its process is no more, and its pid may be another's by now */
    int requests, channel; /* -1: closed */
    int client;            /* of control.c, who asked for it; -1: nobody, or he was answered */
    uint64_t served_ns;    /* since when it serves */
    uint64_t kill_ns;      /* when patience with it ends, 0: there is no such time */
    uint64_t heard_ns;     /* when it last sent anything, or began to owe something */
    uint64_t beat;         /* the heartbeat that it has not answered, 0: none */
    uint64_t beat_ns;      /* when the last heartbeat was sent */
};

/* Starts the first worker; `word` is where it says how it went (-1: nowhere), owned from now on. */
void workers_start(int word);

/* Starts a worker that is to replace the one that serves; a client of control.c is told how it
 * went. `word` is owned from now on. */
void workers_reload(int client, int word);

/* Sends INIT to a candidate, which has from now on a time to become ready; if both are there. */
void workers_initialise(void);

/* Fills `fds` with what to wait for. */
void workers_poll(struct pollfd fds[WORKERS_FDS]);

/* Handles what poll found in `fds`, as workers_poll had filled them. */
void workers_serve(const struct pollfd fds[WORKERS_FDS]);

/* Does what is due: heartbeats, ends of patience, starts. Returns ms until it is to be called. */
int workers_tick(void);

/* Handles news of a child from waitid; one that is no worker is ignored. */
void workers_child(const siginfo_t *news);

/* Handles a message of a worker, of any content. */
void worker_take(struct worker *worker, const char *message, size_t length);

/* Sends a request to whoever serves. False: it does not take it now, or nobody serves. */
bool worker_send(const void *message, size_t length);

/* Tells whoever serves that nobody waits for a request any more. */
void worker_tell_gone(const struct request *request);

/* Ends all of them: the mount has ended. */
void workers_end(void);

/* Whether workers failed too often, so that requests fail until an admin acts. */
bool workers_given_up(void);

/* Whether a worker's process is left. */
bool workers_left(void);

/* The pid of the worker that serves, 0: none does; how many have been started. */
pid_t workers_serving(void);
unsigned workers_started(void);

/* ---- wire.c: a worker's sockets ---- */

/*
 * Receives a message, as recvmsg does, with the one descriptor that came with it: `right` is -1 when
 * it was not exactly one.
 */
ssize_t receive(int socket, void *text, size_t size, int flags, int *right);

/* Sends a request. False: the socket is full, or nobody is there any more. */
bool wire_send(struct worker *worker, const void *message, size_t length);

/* Sends a heartbeat, if the socket takes it. */
void wire_beat(struct worker *worker);

/* Sends a message on the channel: its kind and at most REQUEST_SIZE bytes. A full one loses it. */
void wire_tell(const struct worker *worker, char kind, const void *message, size_t length);

/* Takes messages (worker_take), as many as are there and have their turn; closes what is closed. */
void wire_read(struct worker *worker);

/* Likewise from the channel: the worker's lease, and which of its replies were lost. */
void wire_listen(struct worker *worker);

/* ---- spawn.c: starting the process of a worker ---- */

/*
 * Sets what is started: `command` ends with NULL and is kept; `user` is who it runs as, NULL: who
 * runs the keeper. Returns 0, or -1 when it was logged. Called once.
 */
int spawn_prepare(char *const command[], const char *user);

/*
 * Starts a worker whose descriptor for its word is `word` (-1: none). Gives this side's ends of its
 * requests and of its channel. Returns its pid; -1 when there is none and it was logged.
 */
pid_t spawn(int word, int *requests, int *channel);

/* ---- mounting.c: making the mount, before anything is served, so that it may block ---- */

/*
 * Mounts on `point`: by mount(2) for root, through fusermount3 for others. `options` is a list with
 * commas, as mount(8) takes it, may be "", and is cut into pieces.
 * Returns /dev/fuse, opened close-on-exec and non-blocking; -1 when it failed and was logged.
 */
int mount_open(const char *point, char *options);

/* Whether what lies at `point` is the mount that was made; for a child, since looking may block. */
bool mount_is_ours(const char *point);

/* Sets how far the kernel reads ahead on the mount, KiB; where that may not be, nothing happens. */
void read_ahead_set(unsigned kilobytes);

enum { NO_SUCH_PROGRAM = 127 }; /* as a shell says it */

/* In a child: becomes fusermount3, with its `arguments`, or exits with NO_SUCH_PROGRAM or 1. */
_Noreturn void fusermount_become(const char *const arguments[]);

/* ---- unmounting.c: ending the mount, in a child ---- */

/*
 * Starts a child that unmounts the mount at `point`, lazily or not. One at a time.
 * Returns its pid, -1 when there is none and that was logged.
 */
pid_t unmount_start(const char *point, bool lazy);

/*
 * Returns how that child ended: 0: it unmounted; EBUSY: the mount is in use; EINVAL: it does not lie
 * there any more; -1: it failed, and why was logged.
 */
int unmount_ended(const char *point, const siginfo_t *news);

/* ---- control.c: commands of admins, on a unix socket ---- */

enum { CONTROL_CLIENTS = 4, CONTROL_FDS = CONTROL_CLIENTS + 1 };

/* Listens at `path` (mode 0600; a socket there is replaced). Returns 0, or -1 when logged. */
int control_open(const char *path);

/* Stops listening, if it did, and removes the socket. */
void control_close(void);

/* Fills `fds` with what to wait for. */
void control_poll(struct pollfd fds[CONTROL_FDS]);

/* Handles what poll found in `fds`, as control_poll had filled them. */
void control_serve(const struct pollfd fds[CONTROL_FDS]);

/* Answers a client with one datagram and hangs up; a client that has gone is no error. */
void control_reply(int client, const char *text);

/* ---- notices.c: notifications of names and attributes, written by a thread of their own, since the
 * kernel may hold them until a request is answered whose answer is queued behind them ---- */

enum { NOTICE_MAX = 512, NOTICES_MAX = 1024 };

/* Starts the thread that writes to `device`. Returns 0, or -1 when it was logged. */
int notices_start(int device);

/* Queues a notification of at most NOTICE_MAX bytes. False when the queue is full: it is dropped. */
bool notices_push(const void *message, size_t length);

/* Whether the kernel has what was queued. */
bool notices_settled(void);

/* Waits until it has; not for long, since it may wait for a reply first. */
void notices_settle(void);

/* Starts a thread of `run`, which is given `device` and gets no signals. 0, or -1 when logged. */
int writer_start(void *(*run)(void *), int device);

/* Writes a notification, for as long as the kernel takes; what it does not take is logged. */
void notice_write(int device, const void *message, size_t length);

/* ---- pages.c: notifications of pages, by another thread: the kernel may hold them for as long as
 * a source is silent ---- */

/* Starts the thread that writes to `device`. Returns 0, or -1 when it was logged. */
int pages_start(int device);

/*
 * Has the kernel forget all pages of an inode, and of others where too many wait that do not follow
 * each other. False: it is not near any of these, as no worker's inode is, and it is dropped.
 */
bool pages_forget(uint64_t inode);

/* ---- log.c: one line each on stderr; a line that would block is lost ---- */

enum level { LEVEL_INFO, LEVEL_WARNING, LEVEL_ERROR };

/* Finds out how to write to stderr; before that, lines may wait. */
void log_open(void);

/* Writes "<date> <time>,<ms> <LEVEL> cafs.keeper: <text>". Keeps errno. */
void log_line(enum level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Logs a warning about the kernel or a worker, at most one a second. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
