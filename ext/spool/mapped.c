/* mapped.c: what a program spills, while tmpfs has room for it.
 *
 * The file of a segment is mapped and written to with memcpy, as a ring is: no system call for a
 * record, and the file outlives the process. tmpfs gives its pages before they are touched: a page
 * that it could not give would be a SIGBUS in the program. A new page costs more than what is
 * written to it, so a thread has them made ahead where there is time, and a segment whose frames
 * are delivered is written again from its start.
 *
 * Behind the last frame there are zeros, or the file ends, or, where the pages were used before,
 * SEGMENT_END stands there. The first eight bytes of a frame, never zero, are written last, when
 * what ends the segment behind it is there: what a killed program was writing is not there, nor is
 * what the pages held before. Pages are used again under another name, so whoever has read finds by
 * the name whether that was the segment (segment_reader.c). */
#include "spool/mapped.h"

#include "base/background.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What the program has made of a segment that no thread fills. */
#define PORTION ((uint64_t)8 << 10)

/* What a thread has made at a time: the program can need the lock of its address space. */
#define MAKER_PORTION ((uint64_t)64 << 10)

/* The part of its room that a segment has to hold for its pages to be kept. */
#define WORTH_KEEPING 8

/* How long the program sleeps between two looks at a thread that is to end. */
#define LOOK_NS 20000

/* Shared by the program and its thread. The thread touches it no more once `done` is set. */
struct PageMaker {
    int fd; /* the segment's, as is the mapping: they stay until the thread is done */
    char *map;
    uint64_t from, room;
    uint64_t made; /* pages up to here are there */
    int stop;
    int done;
};

static void *make_pages(void *argument)
{
    PageMaker *maker = argument;
    uint64_t at = maker->from;
    while (at < maker->room && !load_acquire(&maker->stop)) {
        sched_yield(); /* on a processor of the program's it would be in its way for milliseconds */
        uint64_t portion = maker->room - at < MAKER_PORTION ? maker->room - at : MAKER_PORTION;
        if (compat_reserve(maker->fd, at, portion) != 0) {
            break;
        }
        compat_populate(maker->map + at, (size_t)portion);
        at += portion;
        store_release(&maker->made, at);
    }
    store_release(&maker->done, 1);
    return NULL;
}

void mapped_make_pages(MappedSegment *segment)
{
    PageMaker *maker = calloc(1, sizeof *maker);
    if (maker == NULL) {
        return;
    }
    maker->fd = segment->fd;
    maker->map = segment->map;
    maker->from = segment->reserved;
    maker->room = segment->room;
    maker->made = maker->from;
    if (background_start(make_pages, maker)) {
        segment->maker = maker;
    }
    else {
        free(maker);
    }
}

/* Notes what the thread has made. */
static void look_at_maker(MappedSegment *segment)
{
    if (segment->maker == NULL) {
        return;
    }
    bool done = load_acquire(&segment->maker->done);
    uint64_t made = load_acquire(&segment->maker->made);
    if (made > segment->reserved) {
        segment->reserved = made;
    }
    if (done) {
        free(segment->maker);
        segment->maker = NULL;
    }
}

/* Waits until the thread has left the file and the mapping alone. */
static void end_maker(MappedSegment *segment)
{
    const struct timespec look = {.tv_nsec = LOOK_NS};
    while (segment->maker != NULL) {
        store_release(&segment->maker->stop, 1);
        look_at_maker(segment);
        if (segment->maker != NULL) {
            nanosleep(&look, NULL);
        }
    }
}

/* Makes sure of the pages up to `size`; false when tmpfs has none left. */
static bool reserve(MappedSegment *segment, uint64_t size)
{
    if (LIKELY(size <= segment->reserved)) {
        return true;
    }
    look_at_maker(segment);
    if (size <= segment->reserved) {
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

bool mapped_make(MappedSegment *segment, const char *path, uint64_t room)
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

/* Ends the frames at `size`. */
static void mark_end(MappedSegment *segment, uint64_t size)
{
    if (size + SEGMENT_END_SIZE <= segment->stale) {
        memcpy(segment->map + size, SEGMENT_END, SEGMENT_END_SIZE);
    }
    else if (size < segment->stale) {
        memset(segment->map + size, 0, (size_t)(segment->stale - size)); /* as is all behind it */
    }
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
    mark_end(segment, size);
    store_release((uint64_t *)(void *)at, first);
    segment->size = size;
    return true;
}

bool mapped_end(MappedSegment *segment)
{
    if (segment->size > segment->stale) {
        segment->stale = segment->size;
    }
    if (segment->size >= segment->room / WORTH_KEEPING) {
        flock(segment->fd, LOCK_UN);
        return true;
    }
    mapped_cut(segment);
    return false;
}

void mapped_cut(MappedSegment *segment)
{
    end_maker(segment);
    /* Where it cannot be cut there is what ends the frames. */
    int unused = ftruncate(segment->fd, (off_t)segment->size);
    (void)unused;
    mapped_close(segment);
}

bool mapped_begin_again(MappedSegment *segment)
{
    struct stat info;
    look_at_maker(segment);
    if (fstat(segment->fd, &info) != 0 || (uint64_t)info.st_size < segment->reserved ||
        flock(segment->fd, LOCK_EX | LOCK_NB) != 0 || futimens(segment->fd, NULL) != 0) {
        return false;
    }
    segment->size = SEGMENT_HEAD_SIZE;
    mark_end(segment, segment->size);
    if (segment->reserved < segment->room && segment->maker == NULL) {
        mapped_make_pages(segment);
    }
    return true;
}

void mapped_move(MappedSegment *to, MappedSegment *from)
{
    char *map = from->map;
    to->fd = from->fd;
    to->size = from->size;
    to->reserved = from->reserved;
    to->room = from->room;
    to->stale = from->stale;
    to->maker = from->maker;
    store_release(&to->map, map);
    store_release(&from->map, NULL);
}

void mapped_close(MappedSegment *segment)
{
    end_maker(segment);
    munmap(segment->map, (size_t)segment->room);
    segment->map = NULL;
    close(segment->fd);
}

void mapped_forget(MappedSegment *segment)
{
    segment->map = NULL;
    close(segment->fd);
}
