/*
 * Notifications to the kernel (attributes do not hold, forget that name), written by a thread of
 * their own: the kernel takes locks for them that a LOOKUP may hold until its reply comes, and that
 * reply is the main thread's to write. O_NONBLOCK does not help there. Those of pages are pages.c's.
 *
 * The thread shares with the others only the queue. It has no end but the process's.
 */
#include "keeper.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a reply waits for what was said before it. The kernel takes microseconds. */
#define SETTLE_NS (250 * NS_PER_MS)

struct notice {
    size_t length;
    unsigned char bytes[NOTICE_MAX];
};

/* Pages of the queue that were never needed are never touched, and cost no memory. */
static struct notice queue[NOTICES_MAX];
static size_t first, count;
static bool writing; /* the thread has one that is no longer in the queue */
static bool held_up; /* the kernel keeps that one for longer than SETTLE_NS */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static pthread_cond_t settled;

/* Waits for a notification and takes it off the queue; the one before it has been written. */
static void take(struct notice *into)
{
    pthread_mutex_lock(&lock);
    writing = held_up = false;
    if (count == 0)
        pthread_cond_signal(&settled);
    while (count == 0)
        pthread_cond_wait(&arrived, &lock);
    writing = true;
    into->length = queue[first].length;
    memcpy(into->bytes, queue[first].bytes, into->length);
    count--;
    first = count == 0 ? 0 : (first + 1) % NOTICES_MAX;
    pthread_mutex_unlock(&lock);
}

/* Whether the kernel has all that was queued; `lock` is held. */
static bool all_written(void)
{
    return count == 0 && !writing;
}

/*
 * True for answers that say nothing about us: the kernel does not know the inode or the name (most
 * notifications are about what nobody has looked at), it is in use, or the mount has ended.
 */
static bool is_normal(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ENOTEMPTY || error == EBUSY ||
           error == ENODEV || error == EPIPE;
}

/* Writes, and logs failures each time they have doubled. */
void notice_write(int device, const void *message, size_t length)
{
    static _Atomic uint64_t failures;
    uint64_t so_far;

    if (write(device, message, length) >= 0 || is_normal(errno))
        return;
    so_far = ++failures;
    if ((so_far & (so_far - 1)) == 0)
        log_line(LEVEL_WARNING, "the kernel refused a notification: %s (%llu so far)",
                 strerror(errno), (unsigned long long)so_far);
}

/* The thread: writes what is queued, in order. */
static void *write_all(void *argument)
{
    for (;;) {
        struct notice notice;

        take(&notice);
        notice_write((int)(intptr_t)argument, notice.bytes, notice.length);
    }
    return NULL;
}

int writer_start(void *(*run)(void *), int device)
{
    pthread_t thread;
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, run, (void *)(intptr_t)device);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        log_line(LEVEL_ERROR, "cannot start a thread for notifications: %s", strerror(error));
        return -1;
    }
    pthread_detach(thread);
    return 0;
}

int notices_start(int device)
{
    pthread_condattr_t clock;

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&settled, &clock);
    pthread_condattr_destroy(&clock);
    return writer_start(write_all, device);
}

bool notices_push(const void *message, size_t length)
{
    bool fits;

    pthread_mutex_lock(&lock);
    fits = count < NOTICES_MAX;
    if (fits) {
        struct notice *last = &queue[(first + count) % NOTICES_MAX];

        last->length = length;
        memcpy(last->bytes, message, length);
        count++;
        pthread_cond_signal(&arrived);
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

bool notices_settled(void)
{
    bool all;

    pthread_mutex_lock(&lock);
    all = all_written();
    pthread_mutex_unlock(&lock);
    return all;
}

void notices_settle(void)
{
    uint64_t limit_ns = now_ns() + SETTLE_NS;
    struct timespec limit;

    limit.tv_sec = (time_t)(limit_ns / NS_PER_S);
    limit.tv_nsec = (long)(limit_ns % NS_PER_S);
    pthread_mutex_lock(&lock);
    while (!all_written() && !held_up)
        if (pthread_cond_timedwait(&settled, &lock, &limit) == ETIMEDOUT)
            held_up = !all_written();
    pthread_mutex_unlock(&lock);
}
