/*
 * Commands of admins: a unix SOCK_SEQPACKET socket, one command a connection, one datagram each
 * way. Whoever may connect is checked twice, by the socket's mode and by its peer's uid.
 */
#include "keeper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { COMMAND_MAX = 64, REPLY_MAX = 1024 };
#define PATIENCE_NS (5 * NS_PER_S) /* for who has connected to say something */

/* Who has connected, and said nothing yet; -1: nobody. */
static struct client {
    int connection;
    uint64_t since_ns;
} clients[CONTROL_CLIENTS] = {{-1, 0}, {-1, 0}, {-1, 0}, {-1, 0}};

static int listener = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

/* Binds and listens at `address`, which only its owner may use. Returns 0, or -1 with errno. */
static int listen_there(void)
{
    struct stat old;
    mode_t before;
    int bound;

    if (lstat(address.sun_path, &old) == 0 && S_ISSOCK(old.st_mode))
        unlink(address.sun_path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return -1;
    before = umask(0177);
    bound = bind(listener, (const struct sockaddr *)&address, sizeof address);
    umask(before);
    return bound != 0 ? -1 : listen(listener, 16);
}

int control_open(const char *path)
{
    int error = ENAMETOOLONG;

    if (strlen(path) < sizeof address.sun_path) {
        strcpy(address.sun_path, path);
        if (listen_there() == 0)
            return 0;
        error = errno;
        if (listener >= 0)
            close(listener);
        listener = -1;
    }
    log_line(LEVEL_ERROR, "cannot listen at %s: %s", path, strerror(error));
    return -1;
}

void control_close(void)
{
    if (listener < 0)
        return;
    close(listener);
    unlink(address.sun_path);
}

void control_poll(struct pollfd fds[CONTROL_FDS])
{
    bool room = false;

    for (int i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *client = &clients[i];

        if (client->connection >= 0 && now_ns() - client->since_ns > PATIENCE_NS) {
            close(client->connection);
            client->connection = -1;
        }
        room = room || client->connection < 0;
        fds[i] = (struct pollfd){.fd = client->connection, .events = POLLIN};
    }
    fds[CONTROL_CLIENTS] = (struct pollfd){.fd = room ? listener : -1, .events = POLLIN};
}

/* Takes one new connection, if its peer is the keeper's own user or root. */
static void admit(void)
{
    struct client *place = clients;
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (connection < 0)
        return;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        log_line(LEVEL_WARNING, "a command by uid %d is refused", (int)peer.uid);
        close(connection);
        return;
    }
    while (place->connection >= 0) /* control_poll has seen that there is room */
        place++;
    *place = (struct client){connection, now_ns()};
}

/* Answers with the state, as a JSON object. */
static void tell_status(int client)
{
    char text[REPLY_MAX];
    const char *state = ending_begun()           ? "ending"
                        : workers_given_up()     ? "given-up"
                        : !init_answered()       ? "starting"
                        : workers_serving() == 0 ? "recovering"
                                                 : "serving";

    snprintf(text, sizeof text,
             "{\"pid\":%d,\"state\":\"%s\",\"worker\":%d,\"workers\":%u,\"waiting\":%zu,"
             "\"relayed\":%llu,\"answered\":%llu,\"resent\":%llu,\"interrupted\":%llu,"
             "\"notices\":%llu,\"notices_dropped\":%llu}",
             getpid(), state, workers_serving(), workers_started(), requests_count(),
             (unsigned long long)counters.relayed, (unsigned long long)counters.answered,
             (unsigned long long)counters.resent, (unsigned long long)counters.interrupted,
             (unsigned long long)counters.notices, (unsigned long long)counters.notices_dropped);
    control_reply(client, text);
}

/* Takes the command of `client`, who is to be answered, now or later. */
static void obey(int client)
{
    char command[COMMAND_MAX];
    int right;
    ssize_t length = receive(client, command, sizeof command - 1, MSG_DONTWAIT, &right);

    command[length > 0 ? length : 0] = '\0';
    if (strcmp(command, "reload") == 0) {
        workers_reload(client, right);
        return;
    }
    if (right >= 0)
        close(right);
    if (strcmp(command, "status") == 0)
        tell_status(client);
    else
        control_reply(client, "{\"ok\":false,\"why\":\"this keeper knows status and reload\"}");
}

void control_serve(const struct pollfd fds[CONTROL_FDS])
{
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (fds[i].revents != 0) {
            clients[i].connection = -1;
            obey(fds[i].fd);
        }
    if (fds[CONTROL_CLIENTS].revents != 0)
        admit();
}

void control_reply(int client, const char *text)
{
    send(client, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(client);
}
