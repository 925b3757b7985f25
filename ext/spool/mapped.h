/* mapped.h: a segment in memory that outlives its process. See mapped.c. */
#ifndef FASTTRACE_MAPPED_H
#define FASTTRACE_MAPPED_H

#include "spool/segment_writer.h"

/* A thread that has pages made before they are needed. */
typedef struct PageMaker PageMaker;

typedef struct {
    char *map;           /* NULL while there is none */
    int fd;              /* of its file, while there is one */
    uint64_t size;       /* written so far */
    uint64_t reserved;   /* what tmpfs has given: size <= reserved <= room */
    uint64_t room;       /* what is mapped */
    uint64_t stale;      /* where ends what the pages held before; 0: they are new */
    uint32_t generation; /* how often the pages were used before */
    PageMaker *maker;    /* owned; NULL: there is none, or it is done */
} MappedSegment;

static inline bool mapped_is_there(const MappedSegment *segment) { return segment->map != NULL; }

/* Makes the file, which must not exist; false where it cannot be had. `room` is in whole pages. */
bool mapped_make(MappedSegment *segment, const char *path, uint64_t room);

/* Has all its pages made by a thread, while the program goes on. */
void mapped_make_pages(MappedSegment *segment);

/* Adds one frame. False when it finds no room any more: the segment is to be ended. */
bool mapped_append(MappedSegment *segment, const RawFrame *frame);

/* Ends the segment: nothing is added any more. `keep`: its pages are to be used again; else the
 * file is cut to the bytes written and let go. */
void mapped_end(MappedSegment *segment, bool keep);

/* Begins an ended segment anew, with no frame in it. Its file must be nobody else's now. False
 * where it has not all of its pages any more, or is locked. */
bool mapped_begin_again(MappedSegment *segment);

/* Lets go of a segment that is not being written. */
void mapped_close(MappedSegment *segment);

/* Closes the descriptor in a forked child, which has no mapping; the file belongs to its parent. */
void mapped_forget(MappedSegment *segment);

#endif
