/*
 * Mounting. Root calls mount(2) itself; others ask fusermount3, which is set-uid root and sends the
 * device back over a socket. Unmounting is unmounting.c's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"

/* What a list of mount options comes to, for mount(2). */
struct wanted {
    unsigned long flags;
    char source[256];
    char data[256];
};

/* What the kernel is told of every mount: no request above 128 KiB, as max_pages in INIT's reply. */
#define MAX_READ "max_read=131072"

enum { NO_SUCH_PROGRAM = 127 }; /* as a shell says it */

/* Copies the option at `from` up to its comma into `to`, "\\," read as ",". Returns what follows. */
static const char *next_option(const char *from, char *to, size_t size)
{
    size_t length = 0;

    while (*from && *from != ',') {
        if (*from == '\\' && from[1])
            from++;
        if (length + 1 < size)
            to[length++] = *from;
        from++;
    }
    to[length] = '\0';
    return *from ? from + 1 : from;
}

/* Puts one option into `wanted`. False for one that is not known. */
static bool take_option(const char *option, struct wanted *wanted)
{
    if (strncmp(option, "fsname=", 7) == 0) {
        snprintf(wanted->source, sizeof wanted->source, "%s", option + 7);
    } else if (strcmp(option, "ro") == 0) {
        wanted->flags |= MS_RDONLY;
    } else if (strcmp(option, "suid") == 0) {
        wanted->flags &= ~(unsigned long)MS_NOSUID;
    } else if (strcmp(option, "dev") == 0) {
        wanted->flags &= ~(unsigned long)MS_NODEV;
    } else if (strcmp(option, "default_permissions") == 0 || strcmp(option, "allow_other") == 0) {
        if (!strstr(wanted->data, option)) {
            strcat(wanted->data, ",");
            strcat(wanted->data, option);
        }
    } else {
        return *option == '\0';
    }
    return true;
}

/* Reads a list of mount options; `device` is /dev/fuse. Returns 0, or -1 when it was logged. */
static int read_options(const char *options, int device, struct wanted *wanted)
{
    char option[sizeof wanted->source];

    *wanted = (struct wanted){.flags = MS_NOSUID | MS_NODEV, .source = "cafs"};
    snprintf(wanted->data, sizeof wanted->data,
             "fd=%d,rootmode=40000,user_id=%u,group_id=%u," MAX_READ, device, geteuid(), getegid());
    while (*options) {
        options = next_option(options, option, sizeof option);
        if (!take_option(option, wanted)) {
            log_line(LEVEL_ERROR,
                     "unknown mount option %s: there are fsname=, ro, suid, dev, allow_other and "
                     "default_permissions",
                     option);
            return -1;
        }
    }
    return 0;
}

/* Says why /dev/fuse could not be opened, and what to do. */
static void explain_device(int error)
{
    if (error == ENOENT || error == ENODEV || error == ENXIO)
        log_line(LEVEL_ERROR, "cannot open /dev/fuse: %s: load the kernel's module (modprobe fuse) "
                              "or give the container that device", strerror(error));
    else if (error == EACCES || error == EPERM)
        log_line(LEVEL_ERROR, "cannot open /dev/fuse: %s: let this user or container open it",
                 strerror(error));
    else
        log_line(LEVEL_ERROR, "cannot open /dev/fuse: %s", strerror(error));
}

/* Says why mount(2) failed, and what to do. */
static void explain_mount(const char *point, int error)
{
    const char *hint = "";

    if (error == EPERM || error == EACCES)
        hint = ": this root may not mount (a container needs CAP_SYS_ADMIN)";
    else if (error == ENODEV)
        hint = ": this kernel has no FUSE";
    else if (error == ENOENT || error == ENOTDIR)
        hint = ": make that directory first";
    else if (error == ENOTCONN)
        hint = ": a dead mount is in the way, unmount it first";
    log_line(LEVEL_ERROR, "cannot mount on %s: %s%s", point, strerror(error), hint);
}

/* Mounts as root. Returns the device, or -1 when it was logged. */
static int mount_directly(const char *point, const char *options)
{
    struct wanted wanted;
    int device = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (device < 0) {
        explain_device(errno);
        return -1;
    }
    if (read_options(options, device, &wanted) == 0) {
        if (mount(wanted.source, point, "fuse.cafs", wanted.flags, wanted.data) == 0)
            return device;
        explain_mount(point, errno);
    }
    close(device);
    return -1;
}

/* Becomes fusermount3, with the signals that a program expects. Returns only if that failed. */
static void become_fusermount(char *const arguments[])
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execvp("fusermount3", arguments);
}

/* In a child: becomes fusermount3, which is to send the device over `socket`. */
static _Noreturn void ask_to_mount(int socket, const char *point, const char *options)
{
    char list[PATH_MAX], number[16];
    char *arguments[] = {(char[]){"fusermount3"}, (char[]){"-o"}, list, (char[]){"--"},
                         (char *)(uintptr_t)point, NULL};
    int wanted = snprintf(list, sizeof list, "%s%s" MAX_READ ",subtype=cafs", options,
                          *options ? "," : "");

    if (wanted < 0 || (size_t)wanted >= sizeof list)
        _exit(1);
    snprintf(number, sizeof number, "%d", socket);
    if (fcntl(socket, F_SETFD, 0) == 0 && setenv("_FUSE_COMMFD", number, 1) == 0)
        become_fusermount(arguments);
    _exit(errno == ENOENT ? NO_SUCH_PROGRAM : 1);
}

/* Receives one descriptor over `socket`; -1 when its other end was closed without. */
static int receive_device(int socket)
{
    _Alignas(struct cmsghdr) char rights[CMSG_SPACE(sizeof(int))];
    char byte;
    struct iovec into = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = rights,
                             .msg_controllen = sizeof rights};
    const struct cmsghdr *item;
    ssize_t length;
    int device;

    do
        length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    item = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!item || item->cmsg_type != SCM_RIGHTS || item->cmsg_len != CMSG_LEN(sizeof device))
        return -1;
    memcpy(&device, CMSG_DATA(item), sizeof device);
    return device;
}

/* Says why fusermount3 sent no device; it has said its part on stderr. */
static void explain_fusermount(const char *point, const char *options, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SUCH_PROGRAM)
        log_line(LEVEL_ERROR, "cannot mount on %s: fusermount3 is not installed, and only root can "
                              "do without it (Debian's package fuse3)", point);
    else if (strstr(options, "allow_other"))
        log_line(LEVEL_ERROR, "cannot mount on %s: fusermount3 refused; it takes allow_other from "
                              "users only when /etc/fuse.conf has user_allow_other", point);
    else
        log_line(LEVEL_ERROR, "cannot mount on %s: fusermount3 refused, for the reason above",
                 point);
}

/* Mounts as a user. Returns the device, or -1 when it was logged. */
static int mount_by_fusermount(const char *point, const char *options)
{
    int ends[2], device, status = 0;
    pid_t child;

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
    device = receive_device(ends[0]);
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (device >= 0 && fcntl(device, F_SETFL, O_NONBLOCK) != 0) {
        close(device);
        device = -1;
    }
    if (device < 0)
        explain_fusermount(point, options, status);
    return device;
}

int mount_open(const char *point, const char *options)
{
    return geteuid() == 0 ? mount_directly(point, options) : mount_by_fusermount(point, options);
}
