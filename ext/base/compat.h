/* compat.h: the only place that knows about versions and platforms.
 *
 * Everything else is written against the Limited API of CPython 3.10 and POSIX. */
#ifndef FASTTRACE_COMPAT_H
#define FASTTRACE_COMPAT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <pyconfig.h>
/* A build of CPython without the GIL has no Limited API. */
#if !defined(Py_LIMITED_API) && !defined(Py_GIL_DISABLED)
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
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#if defined(__linux__)
#include <sys/random.h>
#endif
#if defined(__APPLE__)
#include <mach/vm_inherit.h>
#include <sys/stat.h>
#include <unistd.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

/* Attributes are asked for by attribute_named() and call_method(): getattr.h says why. The tests'
 * own programs, which call what they test for a moment, may do without. */
#ifndef FASTTRACE_TEST_PROGRAM
#undef PyObject_CallMethod
#pragma GCC poison PyObject_GetAttrString PyObject_HasAttrString PyObject_CallMethod
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

/* Gives what the C library has freed back to the system, where that does not do so by itself. */
static inline void compat_give_memory_back(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* Keeps a mapping from a forked child, which has memory of its own; unmaps it, and gives NULL and
 * errno, where that cannot be done. */
static inline void *compat_keep_from_child(void *map, size_t size)
{
    if (map == MAP_FAILED) {
        return NULL;
    }
#if defined(MADV_DONTFORK) || defined(__APPLE__)
#if defined(MADV_DONTFORK)
    int failed = madvise(map, size, MADV_DONTFORK);
#else
    int failed = minherit(map, size, VM_INHERIT_NONE);
#endif
    if (failed != 0) {
        int saved = errno;
        munmap(map, size);
        errno = saved;
        return NULL;
    }
#endif
    return map;
}

/* Maps a file to be written, for this process and not for a forked child; NULL and errno. */
static inline void *compat_map_unforked(int fd, size_t size)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return compat_keep_from_child(map, size);
}

/* Memory for this process and not for a forked child; NULL and errno. It is no file, so no limit on
 * the size of files counts, and no other process can find it. */
static inline void *compat_map_memory(size_t size)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return compat_keep_from_child(map, size);
}

/* A second mapping of what compat_map_memory() gave, which outlives the first one; NULL and errno.
 * A forked child has it too, so that there, too, it may be unmapped. */
static inline void *compat_map_again(void *memory, size_t size)
{
#if defined(__linux__)
    void *map =
        mremap(memory, 0, size, MREMAP_MAYMOVE); /* of shared memory: a copy of the mapping */
    if (map == MAP_FAILED) {
        return NULL;
    }
    if (madvise(map, size, MADV_DOFORK) != 0) {
        int saved = errno;
        munmap(map, size);
        errno = saved;
        return NULL;
    }
    return map;
#else
    (void)memory;
    (void)size;
    errno = ENOSYS;
    return NULL;
#endif
}

/* The lowest address and the size of this thread's stack; 0 on success. */
static inline int compat_stack_of_thread(void **lowest, size_t *size)
{
#if defined(__linux__)
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
        return -1;
    }
    int failed = pthread_attr_getstack(&attributes, lowest, size);
    pthread_attr_destroy(&attributes);
    return failed ? -1 : 0;
#else
    *size = pthread_get_stacksize_np(pthread_self());
    *lowest = (char *)pthread_get_stackaddr_np(pthread_self()) - *size;
    return 0;
#endif
}

/* Bytes that a file of this process may have. */
static inline uint64_t compat_file_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur
                                                                                   : UINT64_MAX;
}

/* What is reserved of a file at a time, and how often a single page of it is tried. */
#define COMPAT_RESERVE_PORTION ((uint64_t)1 << 20)
#define COMPAT_RESERVE_PAGE ((uint64_t)4096)
#define COMPAT_RESERVE_TRIES 1000

/* Makes sure of a file's bytes from `offset` on: 0, or an errno. What is there already stays. */
static inline int compat_allocate(int fd, uint64_t offset, uint64_t size)
{
#if defined(__APPLE__)
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return errno;
    }
    /* Blocks can be reserved behind the end of a file only. What lies before it was reserved when
     * the file got that long: by a call of this function. */
    uint64_t end = offset + size, has = (uint64_t)status.st_size;
    if (end <= has) {
        return 0;
    }
    fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t)(end - has), 0};
    return fcntl(fd, F_PREALLOCATE, &store) != 0 || ftruncate(fd, (off_t)end) != 0 ? errno : 0;
#else
    return posix_fallocate(fd, (off_t)offset, (off_t)size);
#endif
}

/* As compat_allocate(), in portions. tmpfs gives up, and takes back what it has given, when a
 * signal arrives in the middle. Under an interval timer that is quicker than a portion, smaller
 * ones come through; the tries end nevertheless. */
static inline int compat_reserve(int fd, uint64_t offset, uint64_t size)
{
    uint64_t portion = COMPAT_RESERVE_PORTION;
    int tries = 0;
    if (size > compat_file_limit() || offset > compat_file_limit() - size) {
        return EFBIG; /* asked for it all the same, the kernel would send SIGXFSZ */
    }
    while (size > 0) {
        uint64_t now = size < portion ? size : portion;
        int failed = compat_allocate(fd, offset, now);
        if (failed == EINTR && tries < COMPAT_RESERVE_TRIES) {
            tries += portion == COMPAT_RESERVE_PAGE;
            portion = portion / 2 > COMPAT_RESERVE_PAGE ? portion / 2 : COMPAT_RESERVE_PAGE;
            continue;
        }
        if (failed) {
            return failed;
        }
        offset += now;
        size -= now;
        tries = 0;
    }
    return 0;
}

/* Has pages of a shared mapping made and mapped before they are touched, where the system can do so
 * at once. */
static inline void compat_populate(void *map, size_t size)
{
#if defined(MADV_POPULATE_WRITE)
    int unused = madvise(map, size, MADV_POPULATE_WRITE); /* Linux before 5.14 does not know it */
    (void)unused;
#else
    (void)map;
    (void)size;
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
