/*
 * Starting a worker: its descriptors, its user, its environment. What can be made ready is made
 * ready before the first start, so that nothing is allocated later.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
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
    EXIT_START = 8,
};

extern char **environ;

static char *const *command;
static char **environment;
static struct {
    const char *name; /* NULL: the keeper's own */
    uid_t uid;
    gid_t gid;
} user;

/* Whether a variable is not for the worker: the keeper's own, or another user's. */
static bool is_left_out(const char *variable, bool another)
{
    return strncmp(variable, "NOTIFY_SOCKET=", 14) == 0 ||
           (another && (strncmp(variable, "XDG_", 4) == 0 || strncmp(variable, "HOME=", 5) == 0 ||
                        strncmp(variable, "USER=", 5) == 0 ||
                        strncmp(variable, "LOGNAME=", 8) == 0));
}

/* Makes the worker's environment; `other` is NULL when it is the keeper's. 0, or -1: no memory. */
static int prepare_environment(const struct passwd *other)
{
    size_t count = 0, kept = 0;

    while (environ[count] != NULL)
        count++;
    environment = calloc(count + 4, sizeof *environment);
    if (environment == NULL)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (!is_left_out(environ[i], other != NULL))
            environment[kept++] = environ[i];
    if (other == NULL)
        return 0;
    return asprintf(&environment[kept], "HOME=%s", other->pw_dir) < 0 ||
                   asprintf(&environment[kept + 1], "USER=%s", other->pw_name) < 0 ||
                   asprintf(&environment[kept + 2], "LOGNAME=%s", other->pw_name) < 0
               ? -1
               : 0;
}

int spawn_prepare(char *const argv[], const char *name)
{
    const struct passwd *found = NULL;

    command = argv;
    if (name != NULL && geteuid() != 0) {
        log_line(LEVEL_ERROR, "only root can run the worker as another user (%s)", name);
        return -1;
    }
    if (name != NULL && (found = getpwnam(name)) == NULL) {
        log_line(LEVEL_ERROR, "there is no user %s", name);
        return -1;
    }
    if (found != NULL) {
        user.name = name;
        user.uid = found->pw_uid;
        user.gid = found->pw_gid;
    }
    if (prepare_environment(found) != 0) {
        log_line(LEVEL_ERROR, "no memory");
        return -1;
    }
    return 0;
}

/* Gives up root for the worker's user. Returns 0, or -1 with errno. */
static int become_user(void)
{
    if (user.name == NULL)
        return 0;
    if (initgroups(user.name, user.gid) != 0 || setgid(user.gid) != 0)
        return -1;
    return setuid(user.uid);
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
    signal(SIGINT, SIG_IGN); /* from a terminal it comes to both; the keeper ends its worker */
    signal(SIGPIPE, SIG_DFL);
    if (place_descriptors(requests, channel, word) != 0 || become_user() != 0)
        return;
    /* After setuid, which would undo it; the keeper may be gone by now. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != keeper)
        _exit(EXIT_START);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(command[0], command, environment);
}

pid_t spawn(int word, int *requests, int *channel)
{
    int ours[2] = {-1, -1}, theirs[2] = {-1, -1}, pair[2];
    pid_t keeper = getpid(), pid = -1;
    bool made = true;

    for (int i = 0; i < 2 && made; i++) {
        made = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0;
        if (made) {
            ours[i] = pair[0];
            theirs[i] = pair[1];
        }
    }
    if (made)
        pid = fork();
    if (pid == 0) {
        become_worker(keeper, theirs[0], theirs[1], word);
        log_line(LEVEL_ERROR, "%s: cannot be started: %s", command[0], strerror(errno));
        _exit(EXIT_START);
    }
    if (pid < 0)
        log_line(LEVEL_ERROR, "no worker can be started: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        if (theirs[i] >= 0)
            close(theirs[i]);
        if (pid < 0 && ours[i] >= 0)
            close(ours[i]);
    }
    *requests = ours[0];
    *channel = ours[1];
    return pid;
}
