/* failing_malloc.c: memory that is short for chosen libraries, to be preloaded.
 *
 * malloc(), calloc() and realloc() fail where a library calls them whose path contains one of two
 * names, from the n-th call on. Python's own memory is left to _testcapi.set_nomemory(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

static long left = -1; /* calls until the first that fails; -1: none fails */
static long failed;

/* Arms the shim: so many calls succeed; -1: all do. */
void fail_after(long calls)
{
    left = calls;
    failed = 0;
}

/* The number of calls that have failed since. */
long failures(void) { return failed; }

static int fails(void *caller)
{
    Dl_info info;
    if (left < 0 || dladdr(caller, &info) == 0 || info.dli_fname == NULL ||
        (strstr(info.dli_fname, "_core.") == NULL && strstr(info.dli_fname, "libzstd") == NULL)) {
        return 0;
    }
    if (left > 0) {
        left--;
        return 0;
    }
    failed++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}
