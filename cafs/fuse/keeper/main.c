/*
 * The program: its options, its loop, and its end. One thread does all of it and never blocks for
 * long; two others (notices.c, pages.c) write notifications.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { INHERITED_MAX = 1024 };
#define LOOK_NS (NS_PER_S / 10)

struct settings settings = {.fd = -1, .word = -1, .options = (char[]){""}};

static int signals;
static char *manager; /* where a service manager listens, NULL: there is none */

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void keeper_ready(void)
{
    service_notify("READY=1");
    if (settings.read_ahead != 0)
        read_ahead_set(settings.read_ahead);
}

/* Takes signals, and news of children: one SIGCHLD may stand for many. */
static void serve_signals(void)
{
    struct signalfd_siginfo news;
    siginfo_t child;

    while (read(signals, &news, sizeof news) == (ssize_t)sizeof news)
        if (news.ssi_signo != SIGCHLD)
            ending_ask();
    for (;;) {
        child.si_pid = 0;
        if (waitid(P_ALL, 0, &child, WEXITED | WSTOPPED | WNOHANG) != 0 || child.si_pid == 0)
            return;
        if (!ending_child(&child))
            workers_child(&child);
    }
}

/* ---- the service manager ---- */

/* Finds the service manager, and hides it from workers. */
static void find_manager(void)
{
    const char *path = getenv("NOTIFY_SOCKET");

    manager = path != NULL ? strdup(path) : NULL;
    unsetenv("NOTIFY_SOCKET");
}

void service_notify(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = manager != NULL ? strlen(manager) : 0;
    int fd;

    if (length < 2 || length >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, manager, length);
    if (address.sun_path[0] == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL,
               (const struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        log_line(LEVEL_WARNING, "cannot tell %s to %s: %s", state, manager, strerror(errno));
    close(fd);
}

/* ---- the loop ---- */

/* Serves until the mount, whose device this is, has ended and nobody is left; the exit code. */
static int run(int device)
{
    struct pollfd fds[2 + WORKERS_FDS + CONTROL_FDS];
    struct pollfd *const of_workers = fds + 2, *const of_control = fds + 2 + WORKERS_FDS;
    uint64_t look_ns = 0;
    int code, wait_ms = 0;

    while ((code = ending_code()) < 0) {
        bool room = requests_count() < REQUESTS_MAX;

        fds[0] = (struct pollfd){.fd = signals, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = ending_mount() ? -1 : device, .events = room ? POLLIN : 0};
        workers_poll(of_workers);
        control_poll(of_control);
        if (poll(fds, sizeof fds / sizeof *fds, wait_ms) < 0 && errno != EINTR) {
            log_line(LEVEL_ERROR, "cannot wait: %s", strerror(errno));
            return EXIT_MOUNT;
        }
        workers_serve(of_workers);
        if (!ending_mount() && fds[1].revents != 0)
            device_serve();
        control_serve(of_control);
        if (fds[0].revents != 0)
            serve_signals();
        if (requests_count() != 0 && now_ns() - look_ns >= LOOK_NS) {
            readers_look();
            look_ns = now_ns();
        }
        wait_ms = workers_tick();
        if (ending_tick())
            wait_ms = TICK_MS;
    }
    return code;
}

/* ---- the start ---- */

/* Says how to call this program, which docs/processes.md explains, and ends it. */
static _Noreturn void misused(void)
{
    fputs("usage: cafs-keeper [--fd N] [--options LIST] [--user NAME] [--control PATH]\n"
          "                   [--live PATH] [--word N] [--read-ahead KB]\n"
          "                   MOUNT_POINT -- WORKER [ARGUMENT]...\n", stderr);
    exit(EXIT_USAGE);
}

/* Reads a number that is at least 0; anything else ends the program. */
static int number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < 0 || value > 1 << 30)
        misused();
    return (int)value;
}

/* Reads the command line into `settings`; a wrong one ends the program. */
static void parse(int count, char **arguments)
{
    static const struct option known[] = {
        {"fd", required_argument, NULL, 'f'},      {"options", required_argument, NULL, 'o'},
        {"user", required_argument, NULL, 'u'},    {"control", required_argument, NULL, 'c'},
        {"live", required_argument, NULL, 'l'},    {"word", required_argument, NULL, 'w'},
        {"read-ahead", required_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(count, arguments, "+", known, NULL)) != -1) {
        switch (option) {
        case 'f': settings.fd = number(optarg); break;
        case 'o': settings.options = optarg; break;
        case 'u': settings.user = optarg; break;
        case 'c': settings.control = optarg; break;
        case 'l': settings.live = optarg; break;
        case 'w': settings.word = number(optarg); break;
        case 'r': settings.read_ahead = (unsigned)number(optarg); break;
        default: misused();
        }
    }
    if (count - optind < 3 || strcmp(arguments[optind + 1], "--") != 0)
        misused();
    settings.point = arguments[optind];
    settings.command = arguments + optind + 2;
}

/*
 * Closes what was inherited and is not ours, so that no worker gets it; ours is close-on-exec. What
 * is missing of the first three is /dev/null, or the log would go to whatever is opened next.
 */
static void sort_inherited(void)
{
    int next;

    do
        next = open("/dev/null", O_RDWR);
    while (next >= 0 && next <= STDERR_FILENO);
    close(next);
    for (int fd = STDERR_FILENO + 1; fd < INHERITED_MAX; fd++)
        if (fd != settings.fd && fd != settings.word)
            close(fd);
        else
            fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Has signals come as messages. Returns 0, or -1 when it was logged. */
static int signals_open(void)
{
    struct sigaction hangup;
    sigset_t wanted;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* where it was ignored, the kernel would not tell of the dead */
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGCHLD);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup(1) */
        sigaddset(&wanted, SIGHUP);
    sigprocmask(SIG_SETMASK, &wanted, NULL);
    signals = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0)
        log_line(LEVEL_ERROR, "no signals can be received: %s", strerror(errno));
    return signals < 0 ? -1 : 0;
}

int main(int count, char **arguments)
{
    int device, code = EXIT_MOUNT;

    parse(count, arguments);
    sort_inherited();
    log_open();
    find_manager();
    if (spawn_prepare(settings.command, settings.user) == 0 && signals_open() == 0 &&
        (settings.control == NULL || control_open(settings.control) == 0) &&
        (device = device_open()) >= 0) {
        if (notices_start(device) == 0 && pages_start(device) == 0)
            workers_start(settings.word);
        else
            keeper_end(EXIT_MOUNT);
        code = run(device);
    }
    control_close();
    if (settings.live != NULL)
        unlink(settings.live);
    return code;
}
