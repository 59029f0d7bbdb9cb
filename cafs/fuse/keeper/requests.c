/*
 * The table of requests. All places are static; a place is touched only when as many wait at once,
 * so that memory stays small. The list is the order of sending, with a mark between those that the
 * worker has and those that it has not; the hash finds the request that a reply belongs to.
 */
#include "keeper.h"

#include <linux/fuse.h>
#include <string.h>

/* The kernel counts uniques up by 2, so that this spreads them evenly. */
#define BUCKET(unique) (((unique) >> 1) % REQUESTS_MAX)

static struct request table[REQUESTS_MAX];
static struct request *buckets[REQUESTS_MAX];
static struct request *first, *last, *unsent;
static struct request *unused;
static size_t touched, count, owed;

/* Returns a place that nobody uses, NULL when there is none. */
static struct request *take_place(void)
{
    struct request *place = unused;

    if (place != NULL)
        unused = place->chain;
    else if (touched < REQUESTS_MAX)
        place = &table[touched++];
    return place;
}

/* Puts a request behind all others, as one that is to be sent. */
static void append(struct request *request)
{
    request->before = last;
    request->after = NULL;
    request->sent = false;
    if (last != NULL)
        last->after = request;
    else
        first = request;
    last = request;
    if (unsent == NULL)
        unsent = request;
}

/* Takes a request out of the order. */
static void unlink_request(struct request *request)
{
    if (unsent == request)
        unsent = request->after;
    if (request->before != NULL)
        request->before->after = request->after;
    else
        first = request->after;
    if (request->after != NULL)
        request->after->before = request->before;
    else
        last = request->before;
    if (request->sent)
        owed--;
}

struct request *requests_add(const void *message, size_t length)
{
    struct fuse_in_header header;
    struct request *request;

    memcpy(&header, message, sizeof header);
    if (header.unique == 0 || requests_find(header.unique) != NULL)
        return NULL;
    request = take_place();
    if (request == NULL)
        return NULL;
    request->unique = header.unique;
    request->since_ns = now_ns();
    request->tid = (int32_t)header.pid;
    request->length = (uint32_t)length;
    request->refusals = request->blames = 0;
    memcpy(request->message, message, length);
    request->chain = buckets[BUCKET(header.unique)];
    buckets[BUCKET(header.unique)] = request;
    append(request);
    count++;
    return request;
}

struct request *requests_find(uint64_t unique)
{
    struct request *found = buckets[BUCKET(unique)];

    while (found != NULL && found->unique != unique)
        found = found->chain;
    return found;
}

void requests_remove(struct request *request)
{
    struct request **link = &buckets[BUCKET(request->unique)];

    while (*link != request)
        link = &(*link)->chain;
    *link = request->chain;
    unlink_request(request);
    request->unique = 0;
    request->chain = unused;
    unused = request;
    count--;
}

struct request *requests_unsent(void)
{
    return unsent;
}

void requests_sent(struct request *request)
{
    unsent = request->after;
    request->sent = true;
    owed++;
}

void requests_again(struct request *request)
{
    unlink_request(request);
    append(request);
}

size_t requests_restart(void)
{
    size_t had = owed;

    for (struct request *request = first; request != unsent; request = request->after)
        request->sent = false;
    unsent = first;
    owed = 0;
    return had;
}

size_t requests_count(void)
{
    return count;
}

size_t requests_owed(void)
{
    return owed;
}

struct request *requests_at(size_t place)
{
    return place < touched && table[place].unique != 0 ? &table[place] : NULL;
}
