/*
 * /dev/fuse: a read takes one request of the kernel, a write gives it one message. In tests it may
 * be a SOCK_SEQPACKET socket that speaks like it.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64 }; /* requests taken at once before others have their turn */

static int device = -1;
static bool is_socket;

int device_open(void)
{
    socklen_t size = sizeof(int);
    int type, flags;

    if (settings.fd < 0)
        return device = mount_open(settings.point, settings.options);
    device = settings.fd;
    flags = fcntl(device, F_GETFL);
    if (flags < 0) {
        log_line(LEVEL_ERROR, "descriptor %d: %s", device, strerror(errno));
        return -1;
    }
    is_socket = getsockopt(device, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    if (!is_socket)
        fcntl(device, F_SETFL, flags | O_NONBLOCK);
    return device;
}

void device_write(const void *message, size_t length)
{
    ssize_t written = is_socket ? send(device, message, length, MSG_NOSIGNAL)
                                : write(device, message, length);

    /* ENOENT: nobody waits for it any more; ENODEV, EPIPE: the mount has gone, as reading tells. */
    if (written < 0 && errno != ENOENT && errno != ENODEV && errno != EPIPE && !ending_mount())
        complain("the kernel refused a message of %zu bytes: %s", length, strerror(errno));
}

void device_serve(void)
{
    static char buffer[DEVICE_READ];

    for (int i = 0; i < BATCH && (i == 0 || requests_count() < REQUESTS_MAX); i++) {
        ssize_t length = is_socket ? recv(device, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC)
                                   : read(device, buffer, sizeof buffer);

        if (length > 0) {
            relay_request(buffer, (size_t)length);
            continue;
        }
        if (length < 0 && errno == EAGAIN)
            return;
        if (length < 0 && (errno == EINTR || errno == ENOENT)) /* the request was withdrawn */
            continue;
        if (length == 0 || errno == ENODEV || errno == ECONNRESET) {
            keeper_end(0);
            return;
        }
        log_line(LEVEL_ERROR, "/dev/fuse cannot be read: %s", strerror(errno));
        keeper_end(EXIT_MOUNT); /* nobody can serve the mount any more */
        return;
    }
}

void device_close(void)
{
    int none = open("/dev/null", O_RDWR | O_CLOEXEC);

    /* The number stays taken: a thread of notices.c or pages.c may be about to write to it. */
    if (none < 0)
        return;
    dup3(none, device, O_CLOEXEC);
    close(none);
}
