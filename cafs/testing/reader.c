/* One reader that does one thing, so that it can be caught in the middle of it.
 *
 * reader read FILE OFFSET     one byte by pread(2)
 * reader map FILE OFFSET      one byte of a mapping of the whole file
 * reader stat PATH            stat(2)
 * reader list PATH            opendir(3) and the whole of readdir(3)
 * reader signalled FILE       the whole file to stdout, while it gets SIGURG 1,000 times a second
 * reader ask PATH COUNT       COUNT times statfs(2), and as many getxattr(2) of security.capability
 *
 * Prints "begin" on stderr before the call that may block. Exit code: 0, or 1 with the error told.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10, TICK_NS = 1000000 };

static timer_t timer;
static volatile sig_atomic_t signals;

/* Ends the program with what errno says. */
static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Tells who watches that the next call is the one. */
static void begin(void) {
    if (write(STDERR_FILENO, "begin\n", 6) != 6)
        exit(1);
}

static int open_or_fail(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    return fd;
}

/* Reads a byte at an offset. */
static void read_byte(const char *path, off_t offset) {
    char byte;
    int fd = open_or_fail(path);
    begin();
    if (pread(fd, &byte, 1, offset) != 1)
        fail("pread");
}

/* Touches a byte of a mapping. */
static void touch_byte(const char *path, off_t offset) {
    struct stat status;
    int fd = open_or_fail(path);
    if (fstat(fd, &status))
        fail(path);
    const volatile char *mapped =
        mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        fail("mmap");
    begin();
    (void)mapped[offset];
}

/* Looks at a path. */
static void look(const char *path) {
    struct stat status;
    begin();
    if (stat(path, &status))
        fail("stat");
}

/* Lists a directory. */
static void list(const char *path) {
    begin();
    DIR *stream = opendir(path);
    if (!stream)
        fail("opendir");
    errno = 0;
    while (readdir(stream))
        ;
    if (errno)
        fail("readdir");
}

/* Counts a signal, and those that came while it was pending. */
static void count_signal(int number) {
    (void)number;
    signals += 1 + timer_getoverrun(timer);
}

/* Asks the kernel for SIGURG at this process every millisecond. */
static void start_signals(void) {
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG};
    struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
    if (sigaction(SIGURG, &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &timer) ||
        timer_settime(timer, 0, &every, NULL))
        fail("signals");
}

/* Writes all of it; a pipe's write is no part of what is looked at, so it may be interrupted. */
static void write_all(const char *bytes, size_t length) {
    while (length) {
        ssize_t put = write(STDOUT_FILENO, bytes, length);
        if (put < 0 && errno != EINTR)
            fail("write");
        if (put > 0) {
            bytes += put;
            length -= (size_t)put;
        }
    }
}

/* Copies a file to stdout under a rain of signals; their number goes to stderr. */
static void read_signalled(const char *path) {
    static char piece[PIECE];
    start_signals();
    int fd = open_or_fail(path);
    begin();
    ssize_t got;
    while ((got = read(fd, piece, sizeof piece)) > 0)
        write_all(piece, (size_t)got);
    if (got < 0)
        fail("read");
    fprintf(stderr, "signals %d\n", (int)signals);
}

/* Asks what the kernel never remembers: one question goes to the worker, one to the keeper. */
static void ask(const char *path, long count) {
    struct statfs room;
    char value[16];
    begin();
    for (long i = 0; i < count; i++) {
        if (statfs(path, &room))
            fail("statfs");
        if (getxattr(path, "security.capability", value, sizeof value) >= 0 || errno != ENODATA)
            fail("getxattr");
    }
}

int main(int argc, char **argv) {
    const char *verb = argc > 2 ? argv[1] : "";
    long number = argc > 3 ? atol(argv[3]) : 0;
    if (!strcmp(verb, "read"))
        read_byte(argv[2], number);
    else if (!strcmp(verb, "map"))
        touch_byte(argv[2], number);
    else if (!strcmp(verb, "stat"))
        look(argv[2]);
    else if (!strcmp(verb, "list"))
        list(argv[2]);
    else if (!strcmp(verb, "signalled"))
        read_signalled(argv[2]);
    else if (!strcmp(verb, "ask"))
        ask(argv[2], number);
    else {
        fprintf(stderr, "usage: reader read|map|stat|list|signalled|ask PATH [NUMBER]\n");
        return 2;
    }
    return 0;
}
