/* compat.h: the only place that knows about versions and platforms.
 *
 * Everything else is written against the Limited API of CPython 3.10 and POSIX. */
#ifndef FASTTRACE_COMPAT_H
#define FASTTRACE_COMPAT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030a0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/random.h>
#endif

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Begins the declaration of a function that can run Python code: what is borrowed may be gone after
 * a call of it. .ci/check_python_calls.py checks that the right ones have it. */
#if defined(__clang__)
#define RUNS_PYTHON __attribute__((annotate("runs_python")))
#else
#define RUNS_PYTHON
#endif

/* For the counters of a ring, which processes share. */
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Writes eight bytes, the most significant first. */
static inline void compat_store_big_endian(void *bytes, uint64_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(bytes, &value, sizeof value);
}

/* Maps a file to be written, for this process and not for a forked child, which has files of its
 * own; NULL and errno. */
static inline void *compat_map_unforked(int fd, size_t size)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
#if defined(MADV_DONTFORK)
    if (madvise(map, size, MADV_DONTFORK) != 0) {
        int saved = errno;
        munmap(map, size);
        errno = saved;
        return NULL;
    }
#endif
    return map;
}

/* A descriptor of memory that no other process can open by a name; -1 and errno. */
static inline int compat_unnamed_memory(void)
{
#if defined(__linux__)
    return memfd_create("mlflow-fasttrace", MFD_CLOEXEC);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* Fills `size` bytes from the system's generator; 0 on success. */
static inline int compat_random_bytes(void *bytes, size_t size)
{
#if defined(__linux__)
    return getrandom(bytes, size, 0) == (ssize_t)size ? 0 : -1;
#else
    arc4random_buf(bytes, size);
    return 0;
#endif
}

#endif
