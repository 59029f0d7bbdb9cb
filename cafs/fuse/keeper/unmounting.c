/*
 * Unmounting, in a child process: it may take as long as the kernel likes, while the keeper goes on
 * to serve. The keeper has threads, so that its child does only what is safe in a signal handler,
 * and what it may have to say is composed before.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"

#ifndef __GLIBC__
#define strerrordesc_np strerror /* musl's only looks into a table */
#endif

enum { UNMOUNTED = 0, BUSY = 1, FAILED = 2, NO_SUCH_PROGRAM = 127 };

/* The start of the line that a child writes if it fails, and its length. */
static char complaint[PATH_MAX + 256];
static size_t complaint_length;

/* In the child: writes the complaint, with its reason, and ends. */
static _Noreturn void fail(const char *reason, size_t length)
{
    size_t room = sizeof complaint - complaint_length - 1;

    while (length > 0 && reason[length - 1] == '\n')
        length--;
    length = length < room ? length : room;
    memcpy(complaint + complaint_length, reason, length);
    complaint[complaint_length + length] = '\n';
    (void)!write(STDERR_FILENO, complaint, complaint_length + length + 1);
    _exit(FAILED);
}

/* In the child: unmounts as root, and ends. */
static _Noreturn void unmount_directly(const char *point, bool lazy)
{
    const char *reason;

    if (umount2(point, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        _exit(UNMOUNTED);
    if (errno == EBUSY)
        _exit(BUSY);
    reason = errno == EINVAL ? "it is no longer mounted there" : strerrordesc_np(errno);
    fail(reason, strlen(reason));
}

/* In a child of the child: becomes fusermount3, with its stderr going to `pipe`. */
static _Noreturn void become_fusermount(const char *point, bool lazy, int pipe)
{
    char *arguments[] = {(char[]){"fusermount3"}, (char[]){"-u"}, (char[]){"--"},
                         (char *)(uintptr_t)point, NULL};
    char *lazily[] = {arguments[0], arguments[1], (char[]){"-z"}, arguments[2], arguments[3], NULL};

    if (dup2(pipe, STDERR_FILENO) == STDERR_FILENO)
        execvp("fusermount3", lazy ? lazily : arguments);
    _exit(errno == ENOENT ? NO_SUCH_PROGRAM : FAILED);
}

/* Reads all from `pipe`, as much as there is room for. Returns the length. */
static size_t read_all(int pipe, char *text, size_t size)
{
    size_t length = 0;
    ssize_t more;

    while (length < size && ((more = read(pipe, text + length, size - length)) > 0 ||
                             (more < 0 && errno == EINTR)))
        length += more > 0 ? (size_t)more : 0;
    return length;
}

/* In the child: unmounts through fusermount3, and ends. Only its words tell why it failed. */
static _Noreturn void unmount_by_fusermount(const char *point, bool lazy)
{
    static const char missing[] = "fusermount3 is not installed";
    const char *busy = strerrordesc_np(EBUSY);
    char text[512];
    int ends[2], status = 0;
    size_t length;
    pid_t child;

    if (pipe(ends) != 0 || (child = fork()) < 0)
        fail("no process", 10);
    if (child == 0)
        become_fusermount(point, lazy, ends[1]);
    close(ends[1]);
    length = read_all(ends[0], text, sizeof text);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        _exit(UNMOUNTED);
    if (memmem(text, length, busy, strlen(busy)))
        _exit(BUSY);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SUCH_PROGRAM)
        fail(missing, sizeof missing - 1);
    fail(text, length);
}

/*
 * In the child: as a program expects it, and without the device, which must not stay open here
 * when the keeper has gone. Interrupts from the terminal are meant for the keeper.
 */
static void prepare(void)
{
    sigset_t none;

    syscall(SYS_close_range, 3U, UINT_MAX, 0U);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

pid_t unmount_start(const char *point, bool lazy)
{
    size_t length = log_head(complaint, sizeof complaint, LEVEL_ERROR);
    pid_t child;

    snprintf(complaint + length, sizeof complaint - length, "cannot unmount %s: ", point);
    complaint_length = strlen(complaint);
    child = fork();
    if (child < 0)
        log_line(LEVEL_ERROR, "cannot unmount %s: no process: %s", point, strerror(errno));
    if (child != 0)
        return child;
    prepare();
    if (geteuid() == 0)
        unmount_directly(point, lazy);
    unmount_by_fusermount(point, lazy);
}
