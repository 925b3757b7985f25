/* full_disk.c: a disk that is full behind the first 100 KiB of any file, to be preloaded.
 *
 * The variable FULL_DISK_BYTES, which may change meanwhile, says other bytes than these. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static off_t full(void)
{
    const char *bytes = getenv("FULL_DISK_BYTES");
    return bytes != NULL ? atol(bytes) : (off_t)100 << 10;
}

static off_t room(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return SSIZE_MAX;
    }
    return info.st_size < full() ? full() - info.st_size : 0;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (next == NULL) {
        next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    }
    off_t left = room(fd);
    if (size > 0 && left == 0) {
        errno = ENOSPC;
        return -1;
    }
    return next(fd, bytes, (off_t)size < left ? size : (size_t)left);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    ssize_t written = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n = write(fd, pieces[i].iov_base, pieces[i].iov_len);
        if (n < 0) {
            return written > 0 ? written : -1;
        }
        written += n;
        if ((size_t)n < pieces[i].iov_len) {
            break;
        }
    }
    return written;
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    if (offset + size > full()) {
        return ENOSPC;
    }
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return posix_fallocate(fd, offset, size);
}
