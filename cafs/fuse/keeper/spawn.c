/*
 * Starting a worker: its descriptors, its user, its environment. What can be made ready is made
 * ready before the first start, so that nothing is allocated or looked up later.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FD_REQUESTS = 3,
    FD_CHANNEL = 4,
    FD_WORD = 5,
    FD_ABOVE = 10, /* copies are made here, so that none lies where another is to go */
    SENDING_MIN = ANSWER_MAX + 32, /* bytes; the kernel keeps 32 of a socket's for itself */
};

static char *const *command;
static const struct passwd *user; /* libc's, which is asked once; NULL: the keeper's own */
static gid_t groups[NGROUPS_MAX];
static int group_count = NGROUPS_MAX;

/* Makes the environment that of the worker's user. Returns 0, or -1: no memory. */
static int become_home(void)
{
    char **kept = environ;

    for (char **variable = environ; *variable != NULL; variable++)
        if (strncmp(*variable, "XDG_", 4) != 0)
            *kept++ = *variable;
    *kept = NULL;
    return setenv("HOME", user->pw_dir, 1) != 0 || setenv("USER", user->pw_name, 1) != 0
               ? -1
               : setenv("LOGNAME", user->pw_name, 1);
}

int spawn_prepare(char *const argv[], const char *name)
{
    command = argv;
    if (name == NULL)
        return 0;
    if (geteuid() != 0) {
        log_line(LEVEL_ERROR, "only root can run the worker as another user (%s)", name);
        return -1;
    }
    if ((user = getpwnam(name)) == NULL) {
        log_line(LEVEL_ERROR, "there is no user %s", name);
        return -1;
    }
    if (getgrouplist(name, user->pw_gid, groups, &group_count) < 0 || become_home() != 0) {
        log_line(LEVEL_ERROR, "the worker cannot run as %s: too many groups, or no memory", name);
        return -1;
    }
    return 0;
}

/* Gives up root for the worker's user. Returns 0, or -1 with errno. */
static int become_user(void)
{
    if (user == NULL)
        return 0;
    if (setgroups((size_t)group_count, groups) != 0 || setgid(user->pw_gid) != 0)
        return -1;
    return setuid(user->pw_uid);
}

/* Puts the descriptors where the worker looks for them; all others are close-on-exec. 0 or -1. */
static int place_descriptors(int requests, int channel, int word)
{
    int none = open("/dev/null", O_RDWR | O_CLOEXEC);
    int from[] = {none, STDERR_FILENO, requests, channel, word < 0 ? none : word};
    const int to[] = {STDIN_FILENO, STDOUT_FILENO, FD_REQUESTS, FD_CHANNEL, FD_WORD};

    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, FD_ABOVE)) < 0)
            return -1;
    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        if (dup2(from[i], to[i]) < 0)
            return -1;
    return 0;
}

/* Becomes the worker. Returns only when that failed, with errno. */
static void become_worker(pid_t keeper, int requests, int channel, int word)
{
    sigset_t none;

    sigemptyset(&none);
    signal(SIGINT, SIG_IGN); /* from a terminal these come to both; the keeper ends its worker */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    if (place_descriptors(requests, channel, word) != 0 || become_user() != 0)
        return;
    /* After setuid, which would undo it; the keeper may be gone by now. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != keeper)
        _exit(EXIT_MOUNT);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(command[0], command);
}

/* Lets a socket send the longest reply, which the default does not. Returns 0, or -1 when logged. */
static int widen(int socket)
{
    const int wanted = SENDING_MIN; /* of which the kernel makes twice as much */
    socklen_t size = sizeof(int);
    int given = 0;

    if (setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted) != 0)
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
    getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &given, &size);
    if (given >= SENDING_MIN)
        return 0;
    log_line(LEVEL_ERROR,
             "a socket may send %d bytes at once, and a worker's replies want %d: "
             "raise it, sysctl net.core.wmem_max=212992 is the kernel's own",
             given, SENDING_MIN);
    errno = EMSGSIZE;
    return -1;
}

pid_t spawn(int word, int *requests, int *channel)
{
    int pairs[2][2] = {{-1, -1}, {-1, -1}}; /* of requests and channel: our end, and the worker's */
    pid_t keeper = getpid(), pid = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[0]) == 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[1]) == 0 &&
        widen(pairs[0][1]) == 0)
        pid = fork();
    if (pid == 0) {
        become_worker(keeper, pairs[0][1], pairs[1][1], word);
        log_open(); /* a worker's descriptor may have taken the place of the log's */
        log_line(LEVEL_ERROR, "%s: cannot be started: %s", command[0], strerror(errno));
        _exit(EXIT_MOUNT);
    }
    if (pid < 0)
        log_line(LEVEL_ERROR, "no worker can be started: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        if (pairs[i][1] >= 0)
            close(pairs[i][1]);
        if (pid < 0 && pairs[i][0] >= 0)
            close(pairs[i][0]);
    }
    *requests = pairs[0][0];
    *channel = pairs[1][0];
    return pid;
}
