/* spill.h: the segments that an agent writes itself while its ring is full. See spill.c. */
#ifndef FASTTRACE_SPILL_H
#define FASTTRACE_SPILL_H

#include "buffer.h"

typedef struct {
    char *prefix;           /* owned: the path of the segments up to their number */
    uint64_t max_bytes;     /* that the spool folder may hold; 0: nothing is written there */
    int fd;                 /* of the open segment, or -1 */
    uint64_t size;          /* of the open segment */
    uint64_t room;          /* what it may grow to */
    uint64_t not_before_ns; /* when a failed try, or a measurement, is repeated */
    bool failing;           /* the last try failed */
    bool nearly_full;       /* new traces must wait until the folder holds less */
    Buffer frame;
} Spill;

/* False when out of memory. */
bool spill_init(Spill *spill, const char *prefix, uint64_t max_bytes);
void spill_free(Spill *spill);

static inline bool spill_is_open(const Spill *spill) { return spill->fd >= 0; }

/* Writes one record. `*sequence` is the number of the segment; it is raised when one is ended.
 * False when the folder has no room or cannot be written. */
bool spill_write(Spill *spill, uint64_t *sequence, const Buffer *record);

/* Ends the open segment, if there is one. */
void spill_end(Spill *spill, uint64_t *sequence);

/* Whether the folder holds nearly what it may; measured anew, once a second. */
bool spill_is_nearly_full(Spill *spill);

#endif
