/*
 * The log: one line each on stderr, in the form of the worker's. Stderr may be a pipe whose reader
 * sleeps, a socket, or a terminal that was stopped: such a line is lost, since a keeper that waits
 * for its log would make every reader of the mount wait. The file description of stderr is shared
 * with others, so that it is not made non-blocking: what can be opened again is.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE_SIZE = 1024 }; /* below PIPE_BUF, so that lines of several writers do not mix */

static int target = STDERR_FILENO;
static bool is_socket;

void log_open(void)
{
    struct stat status;
    int again = -1;

    if (fstat(STDERR_FILENO, &status) != 0)
        return;
    is_socket = S_ISSOCK(status.st_mode);
    if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))
        again = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (again >= 0)
        target = again;
}

/* Writes a line, cut to LINE_SIZE. */
static void __attribute__((format(printf, 2, 0)))
write_line(enum level level, const char *format, va_list arguments)
{
    static const char *const names[] = {"INFO", "WARNING", "ERROR"};
    char line[LINE_SIZE];
    size_t length, start;
    struct timespec now;
    struct tm local;

    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    start = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S", &local);
    start += (size_t)snprintf(line + start, sizeof line - start, ",%03d %s cafs.keeper: ",
                              (int)(now.tv_nsec / NS_PER_MS), names[level]);
    vsnprintf(line + start, sizeof line - start, format, arguments);
    length = strlen(line);
    for (size_t i = start; i < length; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = '?';
    line[length++] = '\n'; /* no string any more */
    if (is_socket)
        send(target, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        (void)!write(target, line, length);
}

void log_line(enum level level, const char *format, ...)
{
    int saved = errno;
    va_list arguments;

    va_start(arguments, format);
    write_line(level, format, arguments);
    va_end(arguments);
    errno = saved;
}

void complain(const char *format, ...)
{
    static uint64_t last_ns;
    static unsigned left_out;
    char text[256];
    va_list arguments;

    if (last_ns != 0 && now_ns() - last_ns < NS_PER_S) {
        left_out++;
        return;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (left_out != 0)
        log_line(LEVEL_WARNING, "%s (%u more warnings were left out before)", text, left_out);
    else
        log_line(LEVEL_WARNING, "%s", text);
    last_ns = now_ns();
    left_out = 0;
}

