/* Times system calls on files, without an interpreter in between.
 *
 * probe stat|read LIST: LIST has one path a line. Prints the nanoseconds that the whole pass took.
 * "read" is open, read to the end (through one buffer), close.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20];

static void fail(const char *path) {
    perror(path);
    exit(1);
}

static void read_all(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        fail(path);
    ssize_t got;
    while ((got = read(file, buffer, sizeof buffer)) > 0)
        ;
    if (got < 0)
        fail(path);
    close(file);
}

int main(int argc, char **argv) {
    if (argc != 3 || (strcmp(argv[1], "stat") && strcmp(argv[1], "read"))) {
        fprintf(stderr, "usage: probe stat|read LIST\n");
        return 2;
    }
    int reading = !strcmp(argv[1], "read");
    FILE *list = fopen(argv[2], "r");
    if (!list)
        fail(argv[2]);
    char **paths = NULL;
    size_t count = 0, room = 0, size = 0;
    char *line = NULL;
    ssize_t length;
    while ((length = getline(&line, &size, list)) > 0) {
        line[length - 1] = 0;
        if (count == room) {
            room = room ? 2 * room : 1024;
            paths = realloc(paths, room * sizeof *paths);
            if (!paths)
                fail("realloc");
        }
        paths[count++] = strdup(line);
    }
    struct timespec start, stop;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (size_t i = 0; i < count; i++) {
        struct stat status;
        if (reading)
            read_all(paths[i]);
        else if (lstat(paths[i], &status))
            fail(paths[i]);
    }
    clock_gettime(CLOCK_MONOTONIC, &stop);
    printf("%lld\n", (stop.tv_sec - start.tv_sec) * 1000000000LL + stop.tv_nsec - start.tv_nsec);
    return 0;
}
