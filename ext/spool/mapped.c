/* mapped.c: what a program spills, while tmpfs has room for it.
 *
 * The file of a segment is mapped and written to with memcpy, as a ring is: no system call for a
 * record, and the file outlives the process. tmpfs gives its pages in portions, before they are
 * touched: a page that it could not give would be a SIGBUS in the program. Behind the last frame
 * there are zeros until the segment is ended. The first eight bytes of a frame, never zero, are
 * written last: what a killed program was writing is not there. */
#include "spool/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define PORTION ((uint64_t)8 << 10)

/* Makes sure of the pages up to `size`; false when tmpfs has none left. */
static bool reserve(MappedSegment *segment, uint64_t size)
{
    if (LIKELY(size <= segment->reserved)) {
        return true;
    }
    uint64_t wanted = (size + PORTION - 1) / PORTION * PORTION;
    if (wanted > segment->room) {
        wanted = segment->room;
    }
    if (compat_reserve(segment->fd, segment->reserved, wanted - segment->reserved) != 0) {
        return false;
    }
    segment->reserved = wanted;
    return true;
}

bool mapped_open(MappedSegment *segment, const char *path, uint64_t room)
{
    *segment = (MappedSegment){.room = room};
    void *map = NULL;
    char head[SEGMENT_HEAD_SIZE];
    segment_head(head);
    segment->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (segment->fd < 0) {
        return false;
    }
    /* The head is written before there are pages behind it: a reader that finds the file sees no
     * head yet, or all of it, and never zeros in its place. It is locked before: a segment with a
     * head that is not locked is written no more. */
    if (flock(segment->fd, LOCK_EX | LOCK_NB) != 0 ||
        !write_whole(segment->fd, head, sizeof head)) {
        goto error;
    }
    map = compat_map_unforked(segment->fd, (size_t)room);
    if (map == NULL || !reserve(segment, sizeof head)) {
        goto error;
    }
    segment->map = map;
    segment->size = sizeof head;
    return true;
error:
    if (map != NULL) {
        munmap(map, (size_t)room);
    }
    close(segment->fd);
    unlink(path);
    return false;
}

bool mapped_append(MappedSegment *segment, const RawFrame *frame)
{
    uint64_t size = segment->size + raw_frame_size(frame);
    if (UNLIKELY(size > segment->room || !reserve(segment, size))) {
        return false;
    }
    char *at = segment->map + segment->size;
    uint64_t first;
    memcpy(&first, &frame->head, sizeof first);
    memcpy(at + sizeof first, (const char *)&frame->head + sizeof first,
           sizeof frame->head - sizeof first);
    memcpy(at + sizeof frame->head, frame->record, frame->size);
    memset(at + sizeof frame->head + frame->size, 0, frame->padding);
    store_release((uint64_t *)(void *)at, first);
    segment->size = size;
    return true;
}

void mapped_end(MappedSegment *segment)
{
    munmap(segment->map, (size_t)segment->room);
    segment->map = NULL;
    /* Where it cannot be cut there are zeros, which readers know. */
    int unused = ftruncate(segment->fd, (off_t)segment->size);
    (void)unused;
    close(segment->fd);
}

void mapped_forget(MappedSegment *segment)
{
    segment->map = NULL;
    close(segment->fd);
}
