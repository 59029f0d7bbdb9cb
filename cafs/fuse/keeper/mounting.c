/*
 * Mounting. Root calls mount(2) itself; others ask fusermount3, which is set-uid root and sends the
 * device back over a socket. Unmounting is unmounting.c's.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the kernel is told of every mount: no request above 256 KiB, as max_pages in INIT's reply. */
#define MAX_READ "max_read=262144"

/* What is known of the mount: its device number, which is nobody else's. */
static struct statx ours;

/*
 * Looks which file system lies at `point`, without asking it: the kernel knows. (libc's statx is
 * avoided since it may turn into a stat, which would wait for ourselves.) False: not to be found out.
 */
static bool look(const char *point, struct statx *found)
{
    return syscall(SYS_statx, AT_FDCWD, point, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, found) == 0;
}

bool mount_is_ours(const char *point)
{
    struct statx found;

    if (ours.stx_dev_major == 0 && ours.stx_dev_minor == 0) /* could not be found out */
        return true;
    return look(point, &found) && found.stx_dev_major == ours.stx_dev_major &&
           found.stx_dev_minor == ours.stx_dev_minor;
}

void read_ahead_set(unsigned kilobytes)
{
    char path[64];
    int file;

    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", ours.stx_dev_major,
             ours.stx_dev_minor);
    file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    dprintf(file, "%u\n", kilobytes);
    close(file);
}

/* ---- by root ---- */

/* What is to be done about a /dev/fuse that cannot be opened. */
static const char *device_hint(int error)
{
    switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return ": load the kernel's module (modprobe fuse) or give the container that device";
    case EACCES:
    case EPERM:
        return ": let this user or container open it";
    default:
        return "";
    }
}

/* What is to be done about a mount(2) that failed. */
static const char *mount_hint(int error)
{
    switch (error) {
    case EPERM:
    case EACCES:
        return ": this root may not mount (a container needs CAP_SYS_ADMIN)";
    case ENODEV:
        return ": this kernel has no FUSE";
    case ENOENT:
    case ENOTDIR:
        return ": make that directory first";
    case ENOTCONN:
        return ": a dead mount is in the way, unmount it first";
    default:
        return "";
    }
}

/* Mounts `device` with `options`, which are cut into pieces. Returns 0, or -1 when it was logged. */
static int mount_device(int device, const char *point, char *options)
{
    enum { FSNAME, RO, SUID, DEV, ALLOW_OTHER, DEFAULT_PERMISSIONS };
    static char *const known[] = {"fsname", "ro", "suid", "dev", "allow_other",
                                  "default_permissions", NULL};
    const char *others = "", *permissions = "", *source = "cafs";
    unsigned long flags = MS_NOSUID | MS_NODEV;
    char *value, data[256];

    while (*options != '\0')
        switch (getsubopt(&options, known, &value)) {
        case FSNAME: source = value != NULL ? value : source; break;
        case RO: flags |= MS_RDONLY; break;
        case SUID: flags &= ~(unsigned long)MS_NOSUID; break;
        case DEV: flags &= ~(unsigned long)MS_NODEV; break;
        case ALLOW_OTHER: others = ",allow_other"; break;
        case DEFAULT_PERMISSIONS: permissions = ",default_permissions"; break;
        default:
            log_line(LEVEL_ERROR, "unknown mount option %s: there are fsname=, ro, suid, dev, "
                                  "allow_other and default_permissions", value);
            return -1;
        }
    snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=%u,group_id=%u," MAX_READ "%s%s",
             device, geteuid(), getegid(), others, permissions);
    if (mount(source, point, "fuse.cafs", flags, data) == 0)
        return 0;
    log_line(LEVEL_ERROR, "cannot mount on %s: %s%s", point, strerror(errno), mount_hint(errno));
    return -1;
}

/* Mounts as root. Returns the device, or -1 when it was logged. */
static int mount_directly(const char *point, char *options)
{
    int device = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (device < 0) {
        log_line(LEVEL_ERROR, "cannot open /dev/fuse: %s%s", strerror(errno), device_hint(errno));
        return -1;
    }
    if (mount_device(device, point, options) == 0)
        return device;
    close(device);
    return -1;
}

/* ---- by others ---- */

void fusermount_become(const char *const arguments[])
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(errno == ENOENT ? NO_SUCH_PROGRAM : EXIT_FAILURE);
}

/* In a child: has fusermount3 mount, and send the device over `socket`. */
static _Noreturn void ask_to_mount(int socket, const char *point, const char *options)
{
    char list[PATH_MAX], number[16];
    const char *const arguments[] = {"fusermount3", "-o", list, "--", point, NULL};

    snprintf(list, sizeof list, "%s%s" MAX_READ ",subtype=cafs", options, *options ? "," : "");
    snprintf(number, sizeof number, "%d", socket);
    if (fcntl(socket, F_SETFD, 0) == 0 && setenv("_FUSE_COMMFD", number, 1) == 0)
        fusermount_become(arguments);
    _exit(EXIT_FAILURE);
}

/* Says why fusermount3 sent no device; it has said its part on stderr. */
static void explain_fusermount(const char *point, const char *options, int status)
{
    const char *why = "fusermount3 refused, for the reason above";

    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SUCH_PROGRAM)
        why = "fusermount3 is not installed, and only root can do without it (Debian's package "
              "fuse3)";
    else if (strstr(options, "allow_other"))
        why = "fusermount3 refused; it takes allow_other from users only when /etc/fuse.conf has "
              "user_allow_other";
    log_line(LEVEL_ERROR, "cannot mount on %s: %s", point, why);
}

/* Mounts as a user. Returns the device, or -1 when it was logged. */
static int mount_by_fusermount(const char *point, const char *options)
{
    int ends[2], device, status = 0;
    pid_t child;
    char byte;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        log_line(LEVEL_ERROR, "cannot mount on %s: no socket: %s", point, strerror(errno));
        return -1;
    }
    child = fork();
    if (child == 0)
        ask_to_mount(ends[1], point, options);
    close(ends[1]);
    if (child < 0) {
        log_line(LEVEL_ERROR, "cannot mount on %s: no process: %s", point, strerror(errno));
        close(ends[0]);
        return -1;
    }
    receive(ends[0], &byte, sizeof byte, 0, &device);
    close(ends[0]);
    waitpid(child, &status, 0);
    if (device < 0)
        explain_fusermount(point, options, status);
    else
        fcntl(device, F_SETFL, O_NONBLOCK);
    return device;
}

int mount_open(const char *point, char *options)
{
    int device = geteuid() == 0 ? mount_directly(point, options)
                                : mount_by_fusermount(point, options);

    if (device >= 0)
        look(point, &ours);
    return device;
}
