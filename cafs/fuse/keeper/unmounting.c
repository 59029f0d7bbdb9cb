/*
 * Unmounting, in a child process: it may take as long as the kernel likes, while the keeper goes on
 * to serve. The keeper has threads, so that its child does only what is safe in a signal handler.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int complaints = -1; /* what the child says on its stderr */

/*
 * In the child: unmounts. Its exit code is an errno; that of fusermount3, which it becomes where it
 * is not root, is not, and only its words tell why it failed.
 */
static _Noreturn void unmount(const char *point, bool lazy)
{
    const char *const arguments[] = {"fusermount3", lazy ? "-uz" : "-u", "--", point, NULL};

    /* The device must not stay open here when the keeper has gone. */
    syscall(SYS_close_range, 3U, UINT_MAX, 0U);
    signal(SIGINT, SIG_IGN); /* from a terminal it is meant for the keeper */
    if (!mount_is_ours(point))
        _exit(EINVAL);
    if (geteuid() == 0)
        _exit(umount2(point, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0 ? 0 : errno);
    fusermount_become(arguments);
}

pid_t unmount_start(const char *point, bool lazy)
{
    int ends[2];
    pid_t child = -1;

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        child = fork();
        if (child == 0) {
            dup2(ends[1], STDERR_FILENO);
            unmount(point, lazy);
        }
        close(ends[1]);
        complaints = ends[0];
        if (child < 0)
            close(complaints);
    }
    if (child < 0)
        log_line(LEVEL_ERROR, "cannot unmount %s: no process: %s", point, strerror(errno));
    return child;
}

int unmount_ended(const char *point, const siginfo_t *news)
{
    char text[512];
    ssize_t length = read(complaints, text, sizeof text - 1);
    int code = news->si_code == CLD_EXITED ? news->si_status : -1;

    close(complaints);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (strstr(text, strerror(EBUSY)) != NULL)
        code = EBUSY;
    if (code == 0 || code == EBUSY || code == EINVAL)
        return code;
    if (code == NO_SUCH_PROGRAM)
        strcpy(text, "fusermount3 is not installed");
    log_line(LEVEL_ERROR, "cannot unmount %s: %s", point,
             *text != '\0' ? text : code > 0 ? strerror(code) : "the attempt was killed");
    return -1;
}
