/* Preloaded into a node and its server, this makes a node's disk hang or fail: a sync of a file in
 * the folder of a node hangs while that folder has a file `hang`, and fails while it has a file
 * `fail`, but for those of its server. $FAULTS_IN is what a node's folder has before its name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether the folder of the node that the file is in has a file of that name. */
static int has(int fd, const char *name, const char *but_for) {
    char link[64], path[PATH_MAX], fault[PATH_MAX + 16];
    const char *marker = getenv("FAULTS_IN");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !marker) return 0;
    path[length] = 0;
    char *node = strstr(path, marker);
    if (!node || (but_for && strstr(node, but_for))) return 0;
    char *end = strchr(node + strlen(marker), '/');
    if (!end) return 0;
    snprintf(fault, sizeof fault, "%.*s/%s", (int)(end - path), path, name);
    return access(fault, F_OK) == 0;
}

static int faulty(int fd) {
    while (has(fd, "hang", NULL)) usleep(20000);
    if (!has(fd, "fail", "/mysql/")) return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return faulty(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return faulty(fd) ? -1 : real(fd);
}
