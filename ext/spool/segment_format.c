#include "spool/segment_format.h"

#include <errno.h>
#include <unistd.h>

#define SEGMENT_VERSION 1

static const char SEGMENT_MAGIC[8] = "MFTSEG1";

const char SEGMENT_END[SEGMENT_END_SIZE] = "\0\0\0\0\0\0\0\0MFT END";

void segment_head(char *head)
{
    uint32_t words[2] = {SEGMENT_VERSION, 0};
    memcpy(head, SEGMENT_MAGIC, sizeof SEGMENT_MAGIC);
    memcpy(head + sizeof SEGMENT_MAGIC, words, sizeof words);
}

bool write_whole(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n < 0 ? errno : EIO; /* a device that takes nothing and says nothing */
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}
