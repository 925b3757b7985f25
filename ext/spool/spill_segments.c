/* spill_segments.c: the segments that a program writes; ring_writer.c decides what goes there.
 *
 * They are the program's own: first to memory that outlives the process (mapped.c),
 * as much as a burst of a second needs, which the sender moves to disk when there is no server to
 * deliver it to; then to disk, one writev() a record. The spool folder's bound is kept here too,
 * for a program may be alone for long: a new segment gets what the folder has room for. An eighth
 * of the bound is for the traces that have begun; new ones are refused when only that is left. */
#include "spool/spill_segments.h"

#include "base/clock.h"
#include "spool/segment_format.h"
#include "spool/segment_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SEGMENT_MAX_BYTES ((uint64_t)16 << 20)

#define RETRY_NS 1000000000u

/* How long a program waits for the folder, once. It holds the GIL meanwhile. */
#define WAIT_NS ((uint64_t)1000000000u)

/* How long for what the folder holds, which the next trace may hear of as well. */
#define MEASURE_WAIT_NS ((uint64_t)20000000u)

bool spill_init(Spill *spill, const char *prefix, uint64_t max_bytes, const char *memory_prefix,
                uint64_t ring_bytes)
{
    *spill = (Spill){.fd = -1, .max_bytes = max_bytes, .failing = max_bytes == 0};
    spill->memory_segment_bytes = ring_bytes;
    spill->memory_max_bytes =
        ring_bytes * MEMORY_RINGS < max_bytes / 8 ? ring_bytes * MEMORY_RINGS : max_bytes / 8;
    spill->prefix = strdup(prefix);
    if (spill->prefix == NULL || memory_prefix == NULL) {
        return spill->prefix != NULL;
    }
    spill->memory_prefix = strdup(memory_prefix);
    return spill->memory_prefix != NULL;
}

/* Closes the descriptors of segments, which are not ended by that. */
static void close_segments(Spill *spill)
{
    if (spill_is_in_memory(spill)) {
        mapped_forget(&spill->memory);
    }
    spares_after_fork(&spill->spares);
    if (spill->fd >= 0) {
        close(spill->fd);
        spill->fd = -1;
    }
}

void spill_free(Spill *spill)
{
    close_segments(spill);
    folder_forget(&spill->opening);
    folder_forget(&spill->measuring);
    free(spill->prefix);
    free(spill->memory_prefix);
    spill->prefix = spill->memory_prefix = NULL;
}

void spill_after_fork(Spill *spill)
{
    close_segments(spill);
    folder_after_fork(spill->opening);
}

/* Notes what the spool folder holds. */
static void note_held(Spill *spill, uint64_t held)
{
    spill->nearly_full = held >= spill->max_bytes - spill->max_bytes / 8;
}

bool spill_is_nearly_full(Spill *spill)
{
    uint64_t now = steady_ns(), wait = 0, held;
    if (spill->nearly_full && now >= spill->not_before_ns) {
        spill->not_before_ns = now + RETRY_NS;
        wait = spill->measuring == NULL ? MEASURE_WAIT_NS : 0;
        folder_ask(&spill->measuring, spill->prefix, 0, spill->max_bytes, 0);
    }
    if (folder_wait(&spill->measuring, wait) == FOLDER_ANSWERED) {
        folder_take(&spill->measuring, &held);
        note_held(spill, held);
    }
    return spill->nearly_full;
}

/* Whether memory, or the disk, is not to be tried now. */
static bool memory_rests(const Spill *spill)
{
    return spill->memory_prefix == NULL ||
           (!spill_is_in_memory(spill) && steady_ns() < spill->memory_not_before_ns);
}

static bool disk_rests(const Spill *spill)
{
    return spill->failing && steady_ns() < spill->not_before_ns;
}

/* Whether there is memory for another segment, up to a part of what all may have: half of the tmpfs
 * is for others. */
static bool memory_has_room(const Spill *spill, uint64_t max_bytes)
{
    char folder[4096];
    struct statvfs tmpfs;
    uint64_t needed = spill->memory_segment_bytes;
    return folder_of(spill->memory_prefix, folder, sizeof folder) && statvfs(folder, &tmpfs) == 0 &&
           (uint64_t)tmpfs.f_bavail * tmpfs.f_frsize >=
               (uint64_t)tmpfs.f_blocks * tmpfs.f_frsize / 2 + needed &&
           folder_bytes(folder, "spill-") + needed <= max_bytes;
}

void spill_prepare(Spill *spill)
{
    if (spill->max_bytes > 0 && !memory_rests(spill) &&
        !spares_have_one(&spill->spares, spill->memory_prefix) &&
        memory_has_room(spill, spill->memory_max_bytes / 2)) {
        spares_make(&spill->spares, spill->memory_prefix, spill->memory_segment_bytes);
    }
}

/* Opens a segment in memory where that has room. */
static bool memory_open(Spill *spill, uint64_t sequence)
{
    char path[4096];
    if (!spares_take(&spill->spares, spill->memory_prefix, sequence, &spill->memory)) {
        if (memory_rests(spill)) {
            return false;
        }
        if (!memory_has_room(spill, spill->memory_max_bytes) ||
            !segment_path(path, sizeof path, spill->memory_prefix, sequence) ||
            !mapped_make(&spill->memory, path, spill->memory_segment_bytes)) {
            spill->memory_not_before_ns = steady_ns() + RETRY_NS;
            return false;
        }
    }
    spill->memory_not_before_ns = 0;
    spill_prepare(spill);
    return true;
}

/* Writes the frame to memory; false where the disk is to take it. */
static bool memory_write(Spill *spill, uint64_t *sequence, const RawFrame *frame)
{
    MappedSegment *memory = &spill->memory;
    if (spill_is_in_memory(spill)) {
        if (LIKELY(mapped_append(memory, frame))) {
            return true;
        }
        spill_end(spill, sequence);
    }
    if (spill->fd >= 0 || spill->memory_prefix == NULL ||
        SEGMENT_HEAD_SIZE + raw_frame_size(frame) > spill->memory_segment_bytes ||
        !memory_open(spill, *sequence)) {
        return false;
    }
    if (mapped_append(memory, frame)) {
        return true;
    }
    /* Its first frame finds no room: the segment is ended, lest one on disk has its number. */
    spill_end(spill, sequence);
    spill->memory_not_before_ns = steady_ns() + RETRY_NS;
    return false;
}

/* Opens a segment on disk, by a thread that is waited for once. A folder that hangs is given up:
 * the number of the segment that the thread may still make there is not used again. */
static bool spill_open(Spill *spill, uint64_t *sequence, uint64_t needed)
{
    uint64_t held, limit = compat_file_limit();
    if (limit < SEGMENT_HEAD_SIZE + needed) {
        return false;
    }
    if (folder_wait(&spill->opening, 0) == FOLDER_WAITS) {
        return false;
    }
    folder_ask(&spill->opening, spill->prefix, *sequence, spill->max_bytes, needed);
    if (folder_wait(&spill->opening, WAIT_NS) == FOLDER_WAITS && folder_give_up(spill->opening)) {
        store_release(sequence, *sequence + 1);
        return false;
    }
    if (folder_wait(&spill->opening, 0) != FOLDER_ANSWERED) {
        return false;
    }
    spill->fd = folder_take(&spill->opening, &held);
    note_held(spill, held);
    if (spill->fd < 0) {
        return false;
    }
    uint64_t room = held < spill->max_bytes ? spill->max_bytes - held : 0;
    uint64_t most =
        spill->max_bytes / 8 < SEGMENT_MAX_BYTES ? spill->max_bytes / 8 : SEGMENT_MAX_BYTES;
    spill->room = room < most ? room : most;
    if (spill->room > limit) {
        spill->room = limit;
    }
    spill->size = SEGMENT_HEAD_SIZE;
    return true;
}

void spill_end(Spill *spill, uint64_t *sequence)
{
    if (!spill_is_open(spill)) {
        return;
    }
    if (spill_is_in_memory(spill)) {
        spares_keep(&spill->spares, &spill->memory, spill->memory_prefix, *sequence);
    }
    else {
        folder_close(spill->fd);
        spill->fd = -1;
    }
    store_release(sequence, *sequence + 1);
}

void spill_close(Spill *spill, uint64_t *sequence)
{
    spill_end(spill, sequence);
    spill_let_spares_go(spill);
}

void spill_let_spares_go(Spill *spill)
{
    if (spill->memory_prefix != NULL) {
        spares_close(&spill->spares, spill->memory_prefix);
    }
}

static bool spill_failed(Spill *spill)
{
    spill->failing = true;
    spill->not_before_ns = steady_ns() + RETRY_NS;
    return false;
}

/* Appends the frame to the segment on disk, or all is as it was: a frame that was written in part
 * (the disk is full) is cut off again, so that what follows it can be read. */
static bool disk_append(Spill *spill, uint64_t *sequence, const RawFrame *frame)
{
    if (raw_frame_write(spill->fd, frame)) {
        spill->size += raw_frame_size(frame);
        return true;
    }
    int saved = errno;
    if (ftruncate(spill->fd, (off_t)spill->size) != 0 ||
        lseek(spill->fd, (off_t)spill->size, SEEK_SET) < 0) {
        spill_end(spill, sequence);
    }
    errno = saved;
    return false;
}

static bool disk_write(Spill *spill, uint64_t *sequence, const RawFrame *frame)
{
    if (spill->fd >= 0 && spill->size + raw_frame_size(frame) > spill->room) {
        spill_end(spill, sequence);
    }
    if (spill->fd >= 0) {
        if (disk_append(spill, sequence, frame)) {
            return true;
        }
        if (errno != EFBIG) {
            return false;
        }
        spill_end(spill, sequence); /* the limit on the size of files was lowered */
    }
    return spill_open(spill, sequence, raw_frame_size(frame)) &&
           disk_append(spill, sequence, frame);
}

bool spill_write(Spill *spill, uint64_t *sequence, const Buffer *record)
{
    if (spill->max_bytes == 0 || (disk_rests(spill) && memory_rests(spill))) {
        return false;
    }
    RawFrame frame = segment_raw_frame(record);
    if (raw_frame_size(&frame) > BUFFER_MAX) { /* no reader would take it */
        return false;
    }
    if (memory_write(spill, sequence, &frame)) {
        spill->failing = false;
        return true;
    }
    if (disk_rests(spill)) {
        return false;
    }
    if (!disk_write(spill, sequence, &frame)) {
        return spill_failed(spill);
    }
    spill->failing = false;
    return true;
}
