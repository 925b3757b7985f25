/* no_locks.c: flock() of files below $NO_LOCKS fails, as on a network's file system that has no locks. For
 * LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int flock(int fd, int operation)
{
    static int (*real)(int, int);
    const char *below = getenv("NO_LOCKS");
    char link[64], path[4096];
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "flock");
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size > 0 && below != NULL) {
        path[size] = '\0';
        if (strncmp(path, below, strlen(below)) == 0) {
            errno = ENOLCK;
            return -1;
        }
    }
    return real(fd, operation);
}
