/* mapped.h: a segment in memory that outlives its process. See mapped.c. */
#ifndef FASTTRACE_MAPPED_H
#define FASTTRACE_MAPPED_H

#include "spool/segment_writer.h"

typedef struct {
    char *map;         /* NULL while none is open */
    int fd;            /* of its file, while one is open */
    uint64_t size;     /* written so far */
    uint64_t reserved; /* what tmpfs has given: size <= reserved <= room */
    uint64_t room;     /* what is mapped */
} MappedSegment;

static inline bool mapped_is_open(const MappedSegment *segment) { return segment->map != NULL; }

/* Makes the file, which must not exist; false where it cannot be had. `room` is in whole pages. */
bool mapped_open(MappedSegment *segment, const char *path, uint64_t room);

/* Adds one frame. False when it finds no room any more: the segment is to be ended. */
bool mapped_append(MappedSegment *segment, const RawFrame *frame);

/* Cuts the file to the bytes written, and closes the segment. */
void mapped_end(MappedSegment *segment);

/* Closes the descriptor in a forked child, which has no mapping; the file belongs to its parent. */
void mapped_forget(MappedSegment *segment);

#endif
