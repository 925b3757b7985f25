/* mapped.c: what a program spills, while tmpfs has room for it.
 *
 * The file of a segment is mapped and written to with memcpy, as a ring is: no system call for a
 * record, and the file outlives the process. tmpfs gives its pages before they are touched: a page
 * that it could not give would be a SIGBUS in the program. A new page costs more than what is
 * written to it, so a thread has them made ahead where there is time, and a segment whose frames
 * are delivered is written again from its start.
 *
 * Behind the last frame there are eight zeros or more until the segment is ended; then the file
 * ends there. The first eight bytes of a frame, never zero, are written last, when the eight behind
 * the frame are zeros: what a killed program was writing is not there, nor is what the pages held
 * before. Whoever reads a segment while it is used again finds that its generation, in its head, is
 * another (segment_reader.c): it is raised before the first byte of the new use. */
#include "spool/mapped.h"

#include "base/background.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What the program has made of a segment that no thread fills. */
#define PORTION ((uint64_t)8 << 10)

/* What a thread has made at a time: the program can need the lock of its address space. */
#define MAKER_PORTION ((uint64_t)64 << 10)

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
    if (size < segment->stale) {
        memset(segment->map + size, 0, sizeof first); /* all is padded to so much */
    }
    store_release((uint64_t *)(void *)at, first);
    segment->size = size;
    return true;
}

void mapped_end(MappedSegment *segment, bool keep)
{
    if (segment->size > segment->stale) {
        segment->stale = segment->size;
    }
    if (keep) {
        flock(segment->fd, LOCK_UN);
        return;
    }
    end_maker(segment);
    /* Where it cannot be cut there are zeros, and behind them what the pages held before. */
    int unused = ftruncate(segment->fd, (off_t)segment->size);
    (void)unused;
    mapped_close(segment);
}

bool mapped_begin_again(MappedSegment *segment)
{
    const char no_frame[8] = {0};
    struct stat info;
    uint32_t generation = segment->generation + 1;
    look_at_maker(segment);
    if (fstat(segment->fd, &info) != 0 || (uint64_t)info.st_size < segment->reserved ||
        flock(segment->fd, LOCK_EX | LOCK_NB) != 0 || futimens(segment->fd, NULL) != 0) {
        return false;
    }
    char *at = segment->map + SEGMENT_HEAD_SIZE;
    memcpy(at - sizeof generation, &generation, sizeof generation);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before whatever is written from now on */
    memcpy(at, no_frame, sizeof no_frame);
    segment->generation = generation;
    segment->size = SEGMENT_HEAD_SIZE;
    if (segment->reserved < segment->room && segment->maker == NULL) {
        mapped_make_pages(segment);
    }
    return true;
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
