/* Readers that trust nothing: threads that read files and blocks at random, and compare every byte.
 *
 * load [-t THREADS] [-s SECONDS | -n OPERATIONS] [-d MOUNT] [-e] [-b BLOB -p POOL] LIST CONTENTS
 *
 * LIST has a line for each file: offset and length of its right bytes in CONTENTS, and its path.
 * BLOB is one large file that repeats POOL. -d drops what the kernel has cached of the mount, names
 * and pages, every second, which is root's to do; no other mount loses anything. -e drops the pages
 * of each file before it is read. -n ends each thread
 * after so many operations, which are the same ones each time. SIGTERM ends it early.
 * Prints one JSON object; exit code 0 says only that it ran: errors and wrong bytes are in it.
 *
 * An operation is open, read to the end and close of a file; open, one pread and close of a block;
 * or the listing of a directory that must name the file. Its wait is that of all its calls.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 256, BLOCK = 128 << 10, LISTS_IN = 16 };

struct file {
    size_t offset, length;
    char *path;
    char *directory; /* path up to its last slash */
    char *name;      /* what follows */
};

struct counts {
    uint64_t files, blocks, lists, bytes, errors, wrong, over_100ms, over_1s;
    double longest_s;
    char longest_of[32];
};

struct reader {
    pthread_t thread;
    uint64_t random;
    char *buffer;
    struct counts counts;
};

static struct file *files;
static size_t file_count, longest_file;
static const char *contents, *pool, *blob;
static const char *dropping;         /* the mount that loses its caches; NULL is none */
static unsigned long mount_options; /* its own, for mount(2) */
static size_t contents_size, pool_size, blob_size;
static int evicting; /* set before there are threads */
static long limit;   /* operations of a thread; 0 is any number */
static atomic_bool ending;
static atomic_int reading; /* threads that have not ended */
static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;
static char first_trouble[512]; /* under `telling` */

/* Ends the program: it could not even begin. */
static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* Seconds on a clock that only goes forward. */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The next of a reader's random numbers (xorshift64*). */
static uint64_t chance(struct reader *self) {
    self->random ^= self->random >> 12;
    self->random ^= self->random << 25;
    self->random ^= self->random >> 27;
    return self->random * 2685821657736338717ULL;
}

/* Keeps what went wrong first, for people. */
static void tell(const char *path, const char *what) {
    pthread_mutex_lock(&telling);
    if (!first_trouble[0])
        snprintf(first_trouble, sizeof first_trouble, "%s: %s", path, what);
    pthread_mutex_unlock(&telling);
}

/* Counts a call that failed, as errno has it. */
static void count_error(struct reader *self, const char *path) {
    int number = errno;
    char text[128];
    self->counts.errors++;
    tell(path, strerror_r(number, text, sizeof text));
}

/* Counts content that is not the right one. */
static void count_wrong(struct reader *self, const char *path, const char *what) {
    self->counts.wrong++;
    tell(path, what);
}

/* Reads until `length` bytes or the end; how many, -1 with errno when a call failed. */
static ssize_t read_up_to(int fd, char *into, size_t length, off_t offset) {
    size_t have = 0;
    while (have < length) {
        ssize_t got = pread(fd, into + have, length - have, offset + (off_t)have);
        if (got < 0)
            return -1;
        if (!got)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

/* Opens, reads at most `length` bytes at `offset`, closes; how many, -1 after counting an error. */
static ssize_t fetch(struct reader *self, const char *path, size_t length, off_t offset) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        count_error(self, path);
        return -1;
    }
    if (evicting)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ssize_t got = read_up_to(fd, self->buffer, length, offset);
    if (got < 0)
        count_error(self, path);
    else
        self->counts.bytes += (uint64_t)got;
    close(fd);
    return got;
}

/* One whole file; asks for a byte more than there is, to see the end. */
static void read_file(struct reader *self, const struct file *file) {
    self->counts.files++;
    ssize_t got = fetch(self, file->path, file->length + 1, 0);
    if (got < 0)
        return;
    if ((size_t)got != file->length)
        count_wrong(self, file->path, "wrong length");
    else if (memcmp(self->buffer, contents + file->offset, file->length))
        count_wrong(self, file->path, "wrong bytes");
}

/* A block of up to 128 KiB anywhere in the blob. */
static void read_block(struct reader *self) {
    self->counts.blocks++;
    size_t offset = chance(self) % blob_size, length = 1 + chance(self) % BLOCK;
    ssize_t got = fetch(self, blob, length, (off_t)offset);
    if (got < 0)
        return;
    size_t right = length < blob_size - offset ? length : blob_size - offset;
    if ((size_t)got != right) {
        count_wrong(self, blob, "wrong length");
        return;
    }
    for (size_t done = 0; done < right;) {
        size_t place = (offset + done) % pool_size, part = right - done;
        if (part > pool_size - place)
            part = pool_size - place;
        if (memcmp(self->buffer + done, pool + place, part)) {
            count_wrong(self, blob, "wrong bytes");
            return;
        }
        done += part;
    }
}

/* The listing of a file's directory, which must have the file's name exactly once. */
static void list_directory(struct reader *self, const struct file *file) {
    self->counts.lists++;
    DIR *stream = opendir(file->directory);
    if (!stream) {
        count_error(self, file->directory);
        return;
    }
    int seen = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(stream)))
        seen += !strcmp(entry->d_name, file->name);
    if (errno)
        count_error(self, file->directory);
    else if (seen != 1)
        count_wrong(self, file->path, "not listed once");
    closedir(stream);
}

/* Books how long an operation took. */
static void book(struct counts *counts, double wait_s, const char *what) {
    counts->over_100ms += wait_s > 0.1;
    counts->over_1s += wait_s > 1;
    if (wait_s > counts->longest_s) {
        counts->longest_s = wait_s;
        snprintf(counts->longest_of, sizeof counts->longest_of, "%s", what);
    }
}

/* A thread of readers: random operations until the end. The last one to end ends the program. */
static void *run(void *argument) {
    struct reader *self = argument;
    for (long done = 0; !atomic_load(&ending) && (!limit || done < limit); done++) {
        const struct file *file = files + chance(self) % file_count;
        uint64_t kind = chance(self) % LISTS_IN;
        double start = now();
        if (!kind) {
            list_directory(self, file);
            book(&self->counts, now() - start, "list");
        } else if (blob && kind % 2) {
            read_block(self);
            book(&self->counts, now() - start, "block");
        } else {
            read_file(self, file);
            book(&self->counts, now() - start, "file");
        }
    }
    if (atomic_fetch_sub(&reading, 1) == 1)
        kill(getpid(), SIGTERM);
    return NULL;
}

/* Maps a whole file for reading. */
static const char *map(const char *path, size_t *size) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status))
        fail(path);
    *size = (size_t)status.st_size;
    const char *mapped = mmap(NULL, *size ? *size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED)
        fail(path);
    close(fd);
    return mapped;
}

/* Takes a line of LIST apart; its path is the list's from now on. */
static void add_file(char *path, size_t offset, size_t length) {
    static size_t room;
    if (file_count == room) {
        room = room ? 2 * room : 1024;
        files = realloc(files, room * sizeof *files);
        if (!files)
            fail("realloc");
    }
    char *slash = strrchr(path, '/');
    if (!slash || length > contents_size || offset > contents_size - length) {
        fprintf(stderr, "load: bad line for %s\n", path);
        exit(2);
    }
    char *directory = strndup(path, (size_t)(slash - path));
    files[file_count++] = (struct file){offset, length, path, directory, slash + 1};
    if (length > longest_file)
        longest_file = length;
}

/* Reads LIST. */
static void read_list(const char *path) {
    FILE *list = fopen(path, "r");
    if (!list)
        fail(path);
    size_t offset, length;
    char *file;
    while (fscanf(list, "%zu %zu %m[^\n]", &offset, &length, &file) == 3)
        add_file(file, offset, length);
    fclose(list);
    if (!file_count) {
        fprintf(stderr, "load: %s lists nothing\n", path);
        exit(2);
    }
}

/* Keeps the options that a remount must repeat; statvfs(3) and mount(2) have the same bits. */
static void look_at_mount(void) {
    struct statvfs status;
    if (statvfs(dropping, &status))
        fail(dropping);
    mount_options = status.f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

/* Drops what the kernel has cached of the mount. A remount drops the names that nobody uses
   (fs/super.c, reconfigure_super), and FUSE keeps no inode and no page without a name; otherwise it
   changes nothing. The blob is always in somebody's use. */
static void drop_caches(void) {
    if (mount(NULL, dropping, NULL, MS_REMOUNT | mount_options, NULL))
        fail(dropping);
    int fd = blob ? open(blob, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

/* Sleeps for a second, or until SIGTERM; whether that came. */
static int second(void) {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    struct timespec time = {1, 0};
    return sigtimedwait(&ends, NULL, &time) == SIGTERM;
}

/* Adds up what all readers counted. */
static struct counts sum(const struct reader *readers, int count) {
    struct counts all = {0};
    for (int i = 0; i < count; i++) {
        const struct counts *one = &readers[i].counts;
        all.files += one->files;
        all.blocks += one->blocks;
        all.lists += one->lists;
        all.bytes += one->bytes;
        all.errors += one->errors;
        all.wrong += one->wrong;
        all.over_100ms += one->over_100ms;
        all.over_1s += one->over_1s;
        if (one->longest_s > all.longest_s) {
            all.longest_s = one->longest_s;
            memcpy(all.longest_of, one->longest_of, sizeof all.longest_of);
        }
    }
    return all;
}

/* Prints the counts. The trouble's text has no quotes but those that paths might have. */
static void report(const struct counts *all, double took_s) {
    for (char *c = first_trouble; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
            *c = '?';
    printf("{\"files\":%llu,\"blocks\":%llu,\"lists\":%llu,\"bytes\":%llu,\"errors\":%llu,"
           "\"wrong\":%llu,\"over_100ms\":%llu,\"over_1s\":%llu,\"longest_s\":%.6f,"
           "\"longest_of\":\"%s\",\"took_s\":%.3f,\"trouble\":\"%s\"}\n",
           (unsigned long long)all->files, (unsigned long long)all->blocks,
           (unsigned long long)all->lists, (unsigned long long)all->bytes,
           (unsigned long long)all->errors, (unsigned long long)all->wrong,
           (unsigned long long)all->over_100ms, (unsigned long long)all->over_1s, all->longest_s,
           all->longest_of, took_s, first_trouble);
}

/* Runs the readers for so many seconds, or until SIGTERM, and waits for their last operations. */
static struct counts read_for(struct reader *readers, int threads, int seconds) {
    atomic_store(&reading, threads);
    for (int i = 0; i < threads; i++) {
        readers[i].random = 88172645463325252ULL + 7919ULL * (uint64_t)i;
        readers[i].buffer = malloc((longest_file > BLOCK ? longest_file : BLOCK) + 1);
        if (!readers[i].buffer || pthread_create(&readers[i].thread, NULL, run, readers + i))
            fail("thread");
    }
    for (int left = seconds; left > 0 && !second(); left--)
        if (dropping)
            drop_caches();
    atomic_store(&ending, 1);
    for (int i = 0; i < threads; i++)
        pthread_join(readers[i].thread, NULL);
    return sum(readers, threads);
}

int main(int argc, char **argv) {
    static struct reader readers[MAX_THREADS];
    int threads = 16, seconds = 10, option;
    while ((option = getopt(argc, argv, "t:s:n:d:eb:p:")) != -1)
        switch (option) {
        case 't': threads = atoi(optarg); break;
        case 's': seconds = atoi(optarg); break;
        case 'n': limit = atol(optarg); seconds = INT_MAX; break;
        case 'd': dropping = optarg; break;
        case 'e': evicting = 1; break;
        case 'b': blob = optarg; break;
        case 'p': pool = map(optarg, &pool_size); break;
        default: return 2;
        }
    if (argc - optind != 2 || threads < 1 || threads > MAX_THREADS || !blob != !pool) {
        fprintf(stderr, "usage: load [-t THREADS] [-s SECONDS | -n OPERATIONS] [-d MOUNT] "
                        "[-e] [-b BLOB -p POOL] LIST CONTENTS\n");
        return 2;
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    contents = map(argv[optind + 1], &contents_size);
    read_list(argv[optind]);
    struct stat status;
    if (blob && (stat(blob, &status) || !(blob_size = (size_t)status.st_size)))
        fail(blob);
    if (dropping)
        look_at_mount();
    double start = now();
    struct counts all = read_for(readers, threads, seconds);
    report(&all, now() - start);
    return 0;
}
