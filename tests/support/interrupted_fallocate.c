/* interrupted_fallocate.c: an interval timer that always interrupts, to be preloaded.
 *
 * tmpfs gives up an allocation when a signal arrives in the middle. This one is always interrupted
 * where it is of more than 64 KiB, and every second time where it is not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int posix_fallocate(int fd, off_t offset, off_t size)
{
    static int calls;
    if (size > 64 << 10 || ++calls % 2) {
        return EINTR;
    }
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return posix_fallocate(fd, offset, size);
}
