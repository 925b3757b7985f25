/* spill_segments.h: the segments that a program writes itself. See spill_segments.c. */
#ifndef FASTTRACE_SPILL_SEGMENTS_H
#define FASTTRACE_SPILL_SEGMENTS_H

#include "spool/spare_segments.h"
#include "spool/spill_folder.h"

typedef struct {
    /* On disk. */
    char *prefix;           /* owned: the path of the segments up to their number */
    uint64_t max_bytes;     /* that the spool folder may hold; 0: nothing is written there */
    int fd;                 /* of the open segment, or -1 */
    uint64_t size;          /* bytes written to the open segment */
    uint64_t room;          /* bytes that the open segment may grow to */
    uint64_t not_before_ns; /* steady_ns: a failed try, or a measurement, is repeated then */
    bool failing;           /* the last try failed */
    bool nearly_full;       /* new traces must wait until the folder holds less */
    FolderTask *opening;    /* owned: the next segment is being opened; or NULL */
    FolderTask *measuring;  /* owned: the folder is being measured; or NULL */

    /* On tmpfs, which is tried first. */
    char *memory_prefix;           /* owned: the path of the segments; NULL: there is no tmpfs */
    uint64_t memory_segment_bytes; /* of one segment */
    uint64_t memory_max_bytes;     /* of all segments of all programs of the spool */
    uint64_t memory_not_before_ns; /* steady_ns: memory that was full is tried again then */
    MappedSegment memory;          /* while it is open there is no open segment on disk */
    Spares spares;                 /* for the next ones */
} Spill;

/* `memory_prefix` may be NULL. False when out of memory. */
bool spill_init(Spill *spill, const char *prefix, uint64_t max_bytes, const char *memory_prefix,
                uint64_t ring_bytes);

/* Lets go of everything; an open segment is only ended by spill_end or spill_close. */
void spill_free(Spill *spill);

static inline bool spill_is_in_memory(const Spill *spill)
{
    return mapped_is_there(&spill->memory);
}

static inline bool spill_is_open(const Spill *spill)
{
    return spill->fd >= 0 || spill_is_in_memory(spill);
}

/* Closes, in a forked child, the descriptors that it has of its parent's segments. It may do
 * nothing else: another thread of the parent may have been in the middle of anything. */
void spill_after_fork(Spill *spill);

/* Writes one record. `*sequence` is the number of the segment; it is raised when one is ended.
 * False when the folder has no room or cannot be written. */
bool spill_write(Spill *spill, uint64_t *sequence, const Buffer *record);

/* Ends the open segment, if there is one. */
void spill_end(Spill *spill, uint64_t *sequence);

/* The same, and nothing is written any more. */
void spill_close(Spill *spill, uint64_t *sequence);

/* Lets go of the memory that is kept for the next segments. */
void spill_let_spares_go(Spill *spill);

/* Has memory made for the next segment, if there is none yet: the ring is filling up. */
void spill_prepare(Spill *spill);

/* Whether the folder holds nearly what it may; measured anew, once a second. */
bool spill_is_nearly_full(Spill *spill);

#endif
