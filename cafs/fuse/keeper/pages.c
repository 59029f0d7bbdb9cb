/*
 * Pages that the kernel is to forget, written by a thread of their own: the kernel waits for those
 * that are being read, for as long as their source takes, and nothing else that it is to forget may
 * wait for that (notices.c).
 *
 * They are kept as ranges of inodes, since what turns out to be wrong is whole trees: a million files
 * are one place here. When the kernel keeps the thread until there are no places, a range is widened
 * to take in the next one: what lies between loses its pages too, and no inode is left out.
 */
#include "keeper.h"

#include <linux/fuse.h>
#include <pthread.h>

/* A range is not widened by more: the inodes of a mount lie close, only nonsense is this far away. */
enum { RANGES_MAX = 1024, GAP_MAX = 1 << 24 };

/* Inodes that follow each other, both ends included. */
struct range {
    uint64_t next, last;
};

static struct range ranges[RANGES_MAX];
static size_t first, count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

/* Waits for an inode whose pages are to go, and takes it off the ranges. */
static uint64_t take(void)
{
    uint64_t inode;

    pthread_mutex_lock(&lock);
    while (count == 0)
        pthread_cond_wait(&arrived, &lock);
    inode = ranges[first].next;
    if (inode == ranges[first].last) {
        first = (first + 1) % RANGES_MAX;
        count--;
    } else {
        ranges[first].next++;
    }
    pthread_mutex_unlock(&lock);
    return inode;
}

/* The thread: has the kernel forget one inode's pages after the other's. */
static void *write_all(void *argument)
{
    int device = (int)(intptr_t)argument;
    struct {
        struct fuse_out_header header;
        struct fuse_notify_inval_inode_out told; /* from 0 on, without an end: all pages */
    } message = {.header = {.len = sizeof message, .error = FUSE_NOTIFY_INVAL_INODE}};

    for (;;) {
        message.told.ino = take();
        notice_write(device, &message, sizeof message);
    }
    return NULL;
}

int pages_start(int device)
{
    return writer_start(write_all, device);
}

/* How far an inode lies from a range; 0: in it. */
static uint64_t gap(const struct range *range, uint64_t inode)
{
    if (inode < range->next)
        return range->next - inode;
    return inode > range->last ? inode - range->last : 0;
}

/* Widens the nearest range, all places being taken; `lock` is held. False: it is too far away. */
static bool widen(uint64_t inode)
{
    struct range *nearest = &ranges[0];

    for (size_t place = 1; place < RANGES_MAX; place++)
        if (gap(&ranges[place], inode) < gap(nearest, inode))
            nearest = &ranges[place];
    if (gap(nearest, inode) > GAP_MAX)
        return false;
    if (inode < nearest->next)
        nearest->next = inode;
    else if (inode > nearest->last)
        nearest->last = inode;
    return true;
}

bool pages_forget(uint64_t inode)
{
    struct range *last;
    bool fits = true;

    pthread_mutex_lock(&lock);
    last = &ranges[(first + count + RANGES_MAX - 1) % RANGES_MAX];
    if (count != 0 && inode != 0 && inode - 1 == last->last)
        last->last = inode;
    else if (count == RANGES_MAX)
        fits = widen(inode);
    else if (count == 0 || gap(last, inode) != 0)
        ranges[(first + count++) % RANGES_MAX] = (struct range){inode, inode};
    pthread_cond_signal(&arrived);
    pthread_mutex_unlock(&lock);
    return fits;
}
