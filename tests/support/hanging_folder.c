/* hanging_folder.c: a network folder that hangs, to be preloaded.
 *
 * Listing a folder whose path contains "hangs", and opening and making what lies in it, waits as long
 * as there is a file whose path is in the variable HANGS_WHILE. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void wait_for(const char *path)
{
    const char *sign = getenv("HANGS_WHILE");
    while (sign != NULL && strstr(path, "hangs") != NULL && access(sign, F_OK) == 0) {
        usleep(1000);
    }
}

static int next_open(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    wait_for(path);
    return next(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return next_open("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return next_open("open64", path, flags, mode);
}

DIR *opendir(const char *path)
{
    DIR *(*next)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    wait_for(path);
    return next(path);
}

int mkdir(const char *path, mode_t mode)
{
    int (*next)(const char *, mode_t) = (int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "mkdir");
    wait_for(path);
    return next(path, mode);
}
