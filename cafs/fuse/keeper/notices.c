/*
 * Notifications to the kernel (invalidate this inode, forget that name), written by a thread of
 * their own: the kernel takes locks for them that a LOOKUP or a READ may hold until its reply
 * comes, and that reply is the other thread's to write. O_NONBLOCK does not help there.
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
#define SETTLE_NS (50 * NS_PER_MS)

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

/*
 * True for answers that say nothing about us: the kernel does not know the inode or the name (most
 * notifications are about what nobody has looked at), it is in use, or the mount has ended.
 */
static bool is_normal(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ENOTEMPTY || error == EBUSY ||
           error == ENODEV || error == EPIPE;
}

/* The thread: writes what is queued, in order. Failures are logged, each time they have doubled. */
static void *write_all(void *argument)
{
    int device = (int)(intptr_t)argument;
    uint64_t failures = 0;

    for (;;) {
        struct notice notice;

        take(&notice);
        if (write(device, notice.bytes, notice.length) >= 0 || is_normal(errno))
            continue;
        failures++;
        if ((failures & (failures - 1)) == 0)
            log_line(LEVEL_WARNING, "the kernel refused a notification: %s (%llu so far)",
                     strerror(errno), (unsigned long long)failures);
    }
    return NULL;
}

int notices_start(int device)
{
    pthread_t thread;
    pthread_condattr_t clock;
    sigset_t all, before;
    int error;

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&settled, &clock);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, write_all, (void *)(intptr_t)device);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        log_line(LEVEL_ERROR, "cannot start the thread for notifications: %s", strerror(error));
        return -1;
    }
    pthread_detach(thread);
    return 0;
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

void notices_settle(void)
{
    uint64_t limit_ns = now_ns() + SETTLE_NS;
    struct timespec limit;

    limit.tv_sec = (time_t)(limit_ns / NS_PER_S);
    limit.tv_nsec = (long)(limit_ns % NS_PER_S);
    pthread_mutex_lock(&lock);
    while ((count > 0 || writing) && !held_up)
        if (pthread_cond_timedwait(&settled, &lock, &limit) == ETIMEDOUT)
            held_up = true;
    pthread_mutex_unlock(&lock);
}
