/* spill.c: where an agent's records go while its ring is full.
 *
 * One write() a record, to a segment of the agent's own: half a microsecond, and it outlives the
 * process. The spool folder's bound is kept here too, for an agent may be alone for long: a new
 * segment gets what the folder has room for. An eighth of the bound is for the traces that have
 * begun; new ones are refused when only that is left. */
#include "spill.h"

#include "ids.h"
#include "segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_MAX_BYTES ((uint64_t)16 << 20)
#define RETRY_NS 1000000000u

bool spill_init(Spill *spill, const char *prefix, uint64_t max_bytes)
{
    *spill = (Spill){.fd = -1, .max_bytes = max_bytes, .failing = max_bytes == 0};
    spill->prefix = strdup(prefix);
    return spill->prefix != NULL;
}

void spill_free(Spill *spill)
{
    if (spill->fd >= 0) {
        close(spill->fd);
        spill->fd = -1;
    }
    buffer_free(&spill->frame);
    free(spill->prefix);
    spill->prefix = NULL;
}

/* The folder of the prefix; false when it is too long. */
static bool folder_of(const Spill *spill, char *folder, size_t room)
{
    const char *slash = strrchr(spill->prefix, '/');
    size_t size = slash != NULL ? (size_t)(slash - spill->prefix) : 0;
    if (size == 0 || size >= room) {
        return false;
    }
    memcpy(folder, spill->prefix, size);
    folder[size] = '\0';
    return true;
}

/* What the files of the folder hold, in bytes. */
static uint64_t folder_bytes(const Spill *spill)
{
    char path[4096];
    uint64_t bytes = 0;
    DIR *folder = folder_of(spill, path, sizeof path) ? opendir(path) : NULL;
    if (folder == NULL) {
        return 0;
    }
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        struct stat info;
        if (fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(info.st_mode)) {
            bytes += (uint64_t)info.st_size;
        }
    }
    closedir(folder);
    return bytes;
}

/* Returns the bytes that may still be written. */
static uint64_t measure(Spill *spill)
{
    uint64_t held = folder_bytes(spill);
    spill->nearly_full = held >= spill->max_bytes - spill->max_bytes / 8;
    return held < spill->max_bytes ? spill->max_bytes - held : 0;
}

bool spill_is_nearly_full(Spill *spill)
{
    uint64_t now = steady_ns();
    if (spill->nearly_full && now >= spill->not_before_ns) {
        spill->not_before_ns = now + RETRY_NS;
        measure(spill);
    }
    return spill->nearly_full;
}

static int open_segment(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static bool spill_open(Spill *spill, uint64_t sequence, uint64_t needed)
{
    char path[4096], folder[4096];
    uint64_t room = measure(spill);
    uint64_t most =
        spill->max_bytes / 8 < SEGMENT_MAX_BYTES ? spill->max_bytes / 8 : SEGMENT_MAX_BYTES;
    int n =
        snprintf(path, sizeof path, "%s-%06llu.seg", spill->prefix, (unsigned long long)sequence);
    if (n < 0 || (size_t)n >= sizeof path || room < SEGMENT_HEAD_SIZE + needed) {
        return false;
    }
    spill->fd = open_segment(path);
    if (spill->fd < 0 && errno == ENOENT && folder_of(spill, folder, sizeof folder) &&
        mkdir(folder, 0700) == 0) {
        spill->fd = open_segment(path); /* somebody had removed the folder */
    }
    if (spill->fd < 0) {
        return false;
    }
    spill->room = room < most ? room : most;
    char head[SEGMENT_HEAD_SIZE];
    segment_head(head);
    spill->size = sizeof head;
    return write_whole(spill->fd, head, sizeof head);
}

void spill_end(Spill *spill, uint64_t *sequence)
{
    if (spill->fd >= 0) {
        close(spill->fd);
        spill->fd = -1;
        store_release(sequence, *sequence + 1);
    }
}

static bool spill_failed(Spill *spill)
{
    spill->failing = true;
    spill->not_before_ns = steady_ns() + RETRY_NS;
    return false;
}

bool spill_write(Spill *spill, uint64_t *sequence, const Buffer *record)
{
    if (spill->max_bytes == 0 || (spill->failing && steady_ns() < spill->not_before_ns)) {
        return false;
    }
    buffer_clear(&spill->frame);
    if (!segment_raw_frame(&spill->frame, record)) {
        return false;
    }
    if (spill->fd >= 0 && spill->size + spill->frame.len > spill->room) {
        spill_end(spill, sequence);
    }
    if (spill->fd < 0 && !spill_open(spill, *sequence, spill->frame.len)) {
        spill_end(spill, sequence);
        return spill_failed(spill);
    }
    if (!write_whole(spill->fd, spill->frame.data, spill->frame.len)) {
        /* A frame that was written in part (the disk is full) is cut off again, so that what
         * follows it can be read. */
        if (ftruncate(spill->fd, (off_t)spill->size) != 0 ||
            lseek(spill->fd, (off_t)spill->size, SEEK_SET) < 0) {
            spill_end(spill, sequence);
        }
        return spill_failed(spill);
    }
    spill->failing = false;
    spill->size += spill->frame.len;
    return true;
}
