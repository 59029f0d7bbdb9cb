/*
 * Killed readers. The kernel tells of a killed reader only in some cases (never when it waits for
 * the page cache, nor when another signal came first), and keeps it until its request is answered.
 * So the keeper looks by itself after those who have waited for a while.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LOOKS_MAX = 256,               /* readers a tick: each costs some 20 us */
    PATIENCE_NS = 500 * NS_PER_MS, /* who waits less is not worth a look */
};

/* Whether the signals in a line "<name>:\t<hexadecimal>" of a status contain SIGKILL. */
static bool kill_pending(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line != NULL && (strtoull(line + strlen(name), NULL, 16) >> (SIGKILL - 1) & 1) != 0;
}

/*
 * Whether the thread `tid` has gone or is about to: it does not exist, has ended, or SIGKILL is
 * pending (as the kernel notes every fatal signal). What cannot be found out counts as no.
 */
static bool is_gone(int32_t tid)
{
    char path[32], status[4096];
    ssize_t length;
    int file;

    if (tid <= 0)
        return false;
    if (kill(tid, 0) != 0 && errno == ESRCH)
        return true;
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    length = read(file, status, sizeof status - 1);
    close(file);
    if (length <= 0)
        return false;
    status[length] = '\0';
    return strstr(status, "\nState:\tZ") != NULL || kill_pending(status, "\nSigPnd:\t") ||
           kill_pending(status, "\nShdPnd:\t");
}

/* Answers for a reader that has gone. A reply that comes later finds no request, and is dropped. */
static void release(struct request *request)
{
    relay_error(request->unique, EINTR);
    worker_tell_gone(request);
    requests_remove(request);
    counters.interrupted++;
}

void readers_look(void)
{
    static size_t place; /* where the last look ended */
    uint64_t now = now_ns();
    int32_t last = 0; /* one reader may have many requests: reading ahead */
    bool last_gone = false;
    int looks = 0;

    for (size_t i = 0; i < REQUESTS_MAX && looks < LOOKS_MAX; i++) {
        struct request *request = requests_at(place = (place + 1) % REQUESTS_MAX);

        if (request == NULL || request->tid == 0 || now - request->since_ns < PATIENCE_NS)
            continue;
        if (request->tid != last) {
            looks++;
            last = request->tid;
            last_gone = is_gone(last);
        }
        if (last_gone)
            release(request);
    }
}

void readers_look_at(uint64_t unique)
{
    struct request *request = requests_find(unique);

    if (request != NULL && is_gone(request->tid))
        release(request);
}
