/*
 * How the keeper ends: the mount is unmounted by whomever, or nobody can serve it, or somebody
 * wants it to end. A child unmounts, since that may take as long as a request.
 */
#include "keeper.h"

#include <errno.h>
#include <sys/wait.h>

#define AGAIN_NS (NS_PER_S / 5)

static unsigned asked;      /* how often somebody wanted it to end */
static bool ended;          /* the mount has gone, or is given up */
static int exit_code;
static pid_t unmounting;    /* the child that does it, 0: there is none */
static bool unmounted;      /* it has done it; what lies at the mount point now is not ours */
static bool due;            /* it is to be tried, from again_ns on */
static uint64_t again_ns;

void keeper_end(int code)
{
    if (ended)
        return;
    ended = true;
    exit_code = code;
    /* A connection that was aborted, or that nobody serves, leaves a mount that is dead. */
    due = settings.fd < 0 && !unmounted;
    again_ns = 0;
    if (asked == 0)
        service_notify("STOPPING=1");
    device_close();
    workers_end();
}

void ending_ask(void)
{
    static const char *const how[] = {"unmounting", "unmounting while in use", "at once"};

    asked++;
    log_line(LEVEL_INFO, "asked to end: %s",
             settings.fd >= 0 ? "closing" : how[asked < 3 ? asked - 1 : 2]);
    if (asked == 1)
        service_notify("STOPPING=1");
    due = settings.fd < 0 && !unmounted;
    again_ns = 0;
    if (asked > 2) /* a notification may wait in the kernel for one of these, and we for it */
        relay_fail();
    if (asked > 2 || settings.fd >= 0)
        keeper_end(0);
}

bool ending_child(const siginfo_t *news)
{
    static bool said;
    int error;

    if (unmounting == 0 || news->si_pid != unmounting)
        return false;
    if (news->si_code == CLD_STOPPED || news->si_code == CLD_TRAPPED)
        return true;
    unmounting = 0;
    error = unmount_ended(settings.point, news);
    if (error == 0) {
        unmounted = true;
        due = false;
    } else if (error == EBUSY && !ended) {
        if (!said)
            log_line(LEVEL_INFO, "%s is in use: it is unmounted once it is not", settings.point);
        said = due = true;
        again_ns = now_ns() + AGAIN_NS;
    } else if (error == EINVAL && !ended) {
        log_line(LEVEL_ERROR, "cannot unmount %s: it is not what lies there now", settings.point);
    }
    return true;
}

bool ending_tick(void)
{
    if (due && unmounting == 0 && now_ns() >= again_ns) {
        pid_t child = unmount_start(settings.point, ended || asked > 1);

        unmounting = child > 0 ? child : 0;
        due = child <= 0 && !ended;
        again_ns = now_ns() + AGAIN_NS;
    }
    return due || unmounting != 0;
}

bool ending_begun(void)
{
    return asked != 0 || ended;
}

bool ending_mount(void)
{
    return ended;
}

int ending_code(void)
{
    bool done = ended && !due && unmounting == 0 && !workers_left();

    return done || asked > 2 ? exit_code : -1;
}
