/* fail_malloc.c: a library for LD_PRELOAD that lets allocations fail.
 *
 * While it is armed, calls of malloc, calloc, realloc and posix_memalign are counted that come from
 * one range of code (the core's) in the thread that armed it; those whose number lies between two
 * bounds fail. Everything else goes to the C library as ever. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static uintptr_t code_start, code_end;
static long first_failing, last_failing, calls;
static __thread bool armed;

/* Counts the calls from this code only. */
void fail_malloc_of(uintptr_t start, uintptr_t end)
{
    code_start = start;
    code_end = end;
}

/* From now on lets the calls fail that have these numbers, which begin with 0. */
void fail_malloc_arm(long first, long last)
{
    first_failing = first;
    last_failing = last;
    calls = 0;
    armed = true;
}

/* Lets all calls pass again; returns how many were counted. */
long fail_malloc_disarm(void)
{
    armed = false;
    return calls;
}

static bool fails(const void *caller)
{
    if (!armed || (uintptr_t)caller < code_start || (uintptr_t)caller >= code_end) {
        return false;
    }
    long number = calls++;
    return number >= first_failing && number <= last_failing;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size)
{
    if (fails(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    if (fails(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    if (fails(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (fails(CALLER)) {
        return ENOMEM;
    }
    *memory = __libc_memalign(alignment, size);
    return *memory != NULL ? 0 : ENOMEM;
}
