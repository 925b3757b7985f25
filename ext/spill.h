/* spill.h: the segments that an agent writes itself while its ring is full. See spill.c. */
#ifndef FASTTRACE_SPILL_H
#define FASTTRACE_SPILL_H

#include "mapped.h"

typedef struct {
    char *prefix;           /* owned: the path of the segments up to their number */
    uint64_t max_bytes;     /* that the spool folder may hold; 0: nothing is written there */
    int fd;                 /* of the open segment on disk, or -1 */
    uint64_t size;          /* of that segment */
    uint64_t room;          /* what it may grow to */
    uint64_t not_before_ns; /* when a failed try, or a measurement, is repeated */
    bool failing;           /* the last try failed */
    bool nearly_full;       /* new traces must wait until the folder holds less */

    char *memory_prefix;           /* owned: the same on tmpfs, which is tried first; or NULL */
    uint64_t memory_segment_bytes; /* of each there */
    uint64_t memory_max_bytes;     /* of all there, of every agent of the spool */
    uint64_t memory_not_before_ns; /* when it is tried again after it was full */
    MappedSegment memory;          /* open: then there is none on disk */

    Buffer frame;
} Spill;

/* `memory_prefix` may be NULL. False when out of memory. */
bool spill_init(Spill *spill, const char *prefix, uint64_t max_bytes, const char *memory_prefix,
                uint64_t ring_bytes);

/* Lets go of everything; an open segment is only ended by spill_end. */
void spill_free(Spill *spill);

static inline bool spill_is_in_memory(const Spill *spill) { return mapped_is_open(&spill->memory); }

static inline bool spill_is_open(const Spill *spill)
{
    return spill->fd >= 0 || spill_is_in_memory(spill);
}

/* Writes one record. `*sequence` is the number of the segment; it is raised when one is ended.
 * False when the folder has no room or cannot be written. */
bool spill_write(Spill *spill, uint64_t *sequence, const Buffer *record);

/* Ends the open segment, if there is one. */
void spill_end(Spill *spill, uint64_t *sequence);

/* Whether the folder holds nearly what it may; measured anew, once a second. */
bool spill_is_nearly_full(Spill *spill);

#endif
