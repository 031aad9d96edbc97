/* Preloaded into a writer, this keeps beside the writer's folder ($PL_LIVE) the folder that a power
 * loss would leave ($PL_DURABLE): a file's content gets there by fsync and fdatasync only. Names
 * (rename, unlink) get there at once, as they do when a journal commits early. sync_file_range is
 * left out on purpose, since it empties no device's cache.
 *
 * With $PL_ROOM the folder's disk is full after so many bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RANGES_MAX 65536

/* What was written since its file's last sync, so that a sync copies no more than that. */
struct range {
    ino_t file;
    off_t from, to;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range ranges[RANGES_MAX];
static int ranges_count;
static long long written_bytes;

/* The durable twin of a path; 0 if the path is not in the folder. */
static int twin_of(const char *path, char *twin) {
    const char *live = getenv("PL_LIVE"), *durable = getenv("PL_DURABLE");
    size_t length = live ? strlen(live) : 0;
    if (!live || !durable || strncmp(path, live, length) != 0) return 0;
    snprintf(twin, PATH_MAX, "%s%s", durable, path + length);
    return 1;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static void die(const char *what) {
    perror(what);
    abort();
}

static void copy(int in, int out, off_t from, off_t to) {
    while (from < to) {
        off_t at = from;
        ssize_t copied = copy_file_range(in, &from, out, &at, to - from, 0);
        if (copied < 0) die("copy to the durable twin");
        if (copied == 0) return;
    }
}

static void persist_file(const char *path, const char *twin, const struct stat *status) {
    int in = open(path, O_RDONLY | O_CLOEXEC);
    int fresh = access(twin, F_OK) != 0;
    int out = open(twin, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (in < 0 || out < 0) die("open the durable twin");
    int whole = fresh || ranges_count == RANGES_MAX, kept = 0;
    for (int i = 0; i < ranges_count; i++) {
        if (ranges[i].file != status->st_ino)
            ranges[kept++] = ranges[i];
        else if (!whole)
            copy(in, out, ranges[i].from, ranges[i].to);
    }
    /* A full list may lack ranges of other files too; it stays full, and they are copied whole. */
    if (ranges_count < RANGES_MAX) ranges_count = kept;
    if (whole) copy(in, out, 0, status->st_size);
    if (ftruncate(out, status->st_size) != 0) die("cut the durable twin");
    close(in);
    close(out);
}

static int persist(int fd) {
    char path[PATH_MAX], twin[PATH_MAX];
    struct stat status;
    if (!path_of(fd, path) || !twin_of(path, twin) || fstat(fd, &status) != 0) return 0;
    pthread_mutex_lock(&lock);
    if (S_ISDIR(status.st_mode)) mkdir(twin, 0755);
    else persist_file(path, twin, &status);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return persist(fd); }
int fdatasync(int fd) { return persist(fd); }

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    char path[PATH_MAX], twin[PATH_MAX];
    struct stat status;
    if (!next) next = dlsym(RTLD_NEXT, "pwrite64");
    if (!path_of(fd, path) || !twin_of(path, twin) || fstat(fd, &status) != 0)
        return next(fd, bytes, count, offset);
    const char *room = getenv("PL_ROOM");
    pthread_mutex_lock(&lock);
    written_bytes += count;
    if (room && written_bytes > atoll(room)) {
        pthread_mutex_unlock(&lock);
        errno = ENOSPC;
        return -1;
    }
    ssize_t written = next(fd, bytes, count, offset);
    if (written > 0 && ranges_count < RANGES_MAX)
        ranges[ranges_count++] = (struct range){status.st_ino, offset, offset + written};
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

int rename(const char *from, const char *to) {
    static int (*next)(const char *, const char *);
    char from_twin[PATH_MAX], to_twin[PATH_MAX];
    if (!next) next = dlsym(RTLD_NEXT, "rename");
    if (twin_of(from, from_twin) && twin_of(to, to_twin)) next(from_twin, to_twin);
    return next(from, to);
}

int unlink(const char *path) {
    static int (*next)(const char *);
    char twin[PATH_MAX];
    if (!next) next = dlsym(RTLD_NEXT, "unlink");
    if (twin_of(path, twin)) next(twin);
    return next(path);
}
