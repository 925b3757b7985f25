/* spare_segments.h: pages of spilled segments that are used again. See spare_segments.c. */
#ifndef FASTTRACE_SPARE_SEGMENTS_H
#define FASTTRACE_SPARE_SEGMENTS_H

#include "spool/mapped.h"

/* What may be spilled to memory: so many rings, and no more than an eighth of the spool's bound. */
#define MEMORY_RINGS 8

/* How many a program keeps: all that its spool may hold in memory. */
#define SPARES_MAX MEMORY_RINGS

typedef struct {
    MappedSegment used[SPARES_MAX]; /* ended; the sender reads them, or is done with them */
    uint64_t sequence[SPARES_MAX];  /* the number that each had last */
    MappedSegment fresh;            /* never written; its pages are being made */
} Spares;

/* Ends the segment with this number, and keeps its pages where they are worth it. */
void spares_keep(Spares *spares, MappedSegment *segment, const char *prefix, uint64_t sequence);

/* Whether there is a segment that spares_take() would find. */
bool spares_have_one(const Spares *spares, const char *prefix);

/* Makes a new one ahead, and has its pages made. */
void spares_make(Spares *spares, const char *prefix, uint64_t room);

/* Takes one to be written as the segment with this number; false where there is none. */
bool spares_take(Spares *spares, const char *prefix, uint64_t sequence, MappedSegment *segment);

/* Lets go of all; removes those that are not being delivered. */
void spares_close(Spares *spares, const char *prefix);

/* Closes the descriptors in a forked child. */
void spares_after_fork(Spares *spares);

#endif
