/*
 * The log: one line each on stderr, in the form of the worker's. Stderr may be a pipe whose reader
 * sleeps, a socket, or a terminal that was stopped: such a line is lost, since a keeper that waits
 * for its log would make every reader of the mount wait. The file description of stderr is shared
 * with others, so that it is not made non-blocking: what can be opened again is.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"

/* Below PIPE_BUF, so that lines of several writers do not mix. */
enum { LINE_MAX_BYTES = 1024 };

static const char *const names[] = {"INFO", "WARNING", "ERROR"};

static pthread_once_t chosen = PTHREAD_ONCE_INIT;
static int target = STDERR_FILENO;
static bool is_socket;

/* Finds how to write to stderr without waiting: a pipe or a terminal is opened a second time. */
static void choose(void)
{
    struct stat status;

    if (fstat(STDERR_FILENO, &status) != 0)
        return;
    is_socket = S_ISSOCK(status.st_mode);
    if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
        int again = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (again >= 0)
            target = again;
    }
}

size_t log_head(char *line, size_t size, enum level level)
{
    struct timespec now;
    struct tm local;
    size_t length;

    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    length = strftime(line, size, "%Y-%m-%d %H:%M:%S", &local);
    length += (size_t)snprintf(line + length, size - length, ",%03d %s cafs.keeper: ",
                               (int)(now.tv_nsec / 1000000), names[level]);
    return length;
}

void log_line(enum level level, const char *format, ...)
{
    int saved = errno;
    char line[LINE_MAX_BYTES];
    size_t start = log_head(line, sizeof line, level);
    size_t room = sizeof line - start - 1, length;
    va_list arguments;
    int wanted;

    va_start(arguments, format);
    errno = saved;
    wanted = vsnprintf(line + start, room, format, arguments);
    va_end(arguments);
    length = wanted < 0 ? 0 : (size_t)wanted < room ? (size_t)wanted : room - 1;
    for (size_t i = start; i < start + length; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = '?';
    line[start + length] = '\n';

    pthread_once(&chosen, choose);
    if (is_socket)
        (void)!send(target, line, start + length + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        (void)!write(target, line, start + length + 1);
    errno = saved;
}
