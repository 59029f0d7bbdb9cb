/*
 * What is set, and told, once the mount is there: how far the kernel reads ahead, and that a
 * service manager may go on. The mount itself is never looked at: who serves it would wait for
 * itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "keeper.h"

/* Reads a path of mountinfo in place: octal escapes stand for blanks and backslashes. */
static void unescape(char *path)
{
    char *to = path;

    while (*path) {
        if (path[0] == '\\' && path[1] && path[2] && path[3]) {
            *to++ = (char)((path[1] - '0') * 64 + (path[2] - '0') * 8 + (path[3] - '0'));
            path += 4;
        } else {
            *to++ = *path++;
        }
    }
    *to = '\0';
}

/*
 * Writes the absolute path of `point` into `path`; only its parent is looked at. False when that
 * failed.
 */
static bool absolute(const char *point, char path[PATH_MAX])
{
    char parent[PATH_MAX], real[PATH_MAX];
    size_t length = strlen(point);
    const char *name;
    int written;

    while (length > 1 && point[length - 1] == '/')
        length--;
    if (snprintf(parent, sizeof parent, "%.*s", (int)length, point) >= PATH_MAX)
        return false;
    name = strrchr(parent, '/');
    name = name ? name + 1 : parent;
    written = snprintf(path, PATH_MAX, "%.*s.", (int)(name - parent), parent);
    if (written < 0 || written >= PATH_MAX || !realpath(path, real))
        return false;
    return snprintf(path, PATH_MAX, "%s%s%s", real, real[1] ? "/" : "", name) < PATH_MAX;
}

/* Finds the device number of what was mounted last on `path`. False when nothing is. */
static bool device_number(const char *path, unsigned *major, unsigned *minor)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (!mounts)
        return false;
    while (getline(&line, &size, mounts) > 0) {
        char mounted[PATH_MAX];
        unsigned a, b;

        if (sscanf(line, "%*s %*s %u:%u %*s %4095s", &a, &b, mounted) != 3)
            continue;
        unescape(mounted);
        if (strcmp(mounted, path) == 0) {
            *major = a;
            *minor = b;
            found = true;
        }
    }
    free(line);
    fclose(mounts);
    return found;
}

void read_ahead_set(const char *point, unsigned kilobytes)
{
    char path[PATH_MAX], file[64];
    unsigned major, minor;
    int fd;

    if (!absolute(point, path) || !device_number(path, &major, &minor))
        return;
    snprintf(file, sizeof file, "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
    fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    dprintf(fd, "%u\n", kilobytes);
    close(fd);
}

void service_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = path ? strlen(path) : 0;
    int fd;

    if (length < 2 || length >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, length);
    if (address.sun_path[0] == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL,
               (const struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        log_line(LEVEL_WARNING, "cannot tell %s to %s: %s", state, path, strerror(errno));
    close(fd);
}
