/* mapped.h: a segment in memory that outlives its process. See mapped.c. */
#ifndef FASTTRACE_MAPPED_H
#define FASTTRACE_MAPPED_H

#include "spool/segment_writer.h"

/* A thread that has pages made before they are needed. */
typedef struct PageMaker PageMaker;

typedef struct {
    char *map;         /* NULL while there is none */
    int fd;            /* of its file, while there is one */
    uint64_t size;     /* written so far */
    uint64_t reserved; /* what tmpfs has given: size <= reserved <= room */
    uint64_t room;     /* what is mapped */
    uint64_t stale;    /* where ends what the pages held before; 0: they are new */
    PageMaker *maker;  /* owned; NULL: there is none, or it is done */
} MappedSegment;

static inline bool mapped_is_there(const MappedSegment *segment) { return segment->map != NULL; }

/* Makes the file, which must not exist; false where it cannot be had. `room` is in whole pages. */
bool mapped_make(MappedSegment *segment, const char *path, uint64_t room);

/* Has all its pages made by a thread, while the program goes on. */
void mapped_make_pages(MappedSegment *segment);

/* Adds one frame. False when it finds no room any more: the segment is to be ended. */
bool mapped_append(MappedSegment *segment, const RawFrame *frame);

/* Ends the segment: nothing is added any more. True: its pages are there for another use. False: it
 * holds too few of them; mapped_cut() was done. */
bool mapped_end(MappedSegment *segment);

/* Ends the segment, cuts the file to the bytes written, and lets go of it. */
void mapped_cut(MappedSegment *segment);

/* Begins a segment that was kept anew, with no frame in it. Its file must be nobody else's now.
 * False where its pages are gone, or it is locked. */
bool mapped_begin_again(MappedSegment *segment);

/* Moves what there is of a segment from one place to another. A child that is forked by another
 * thread in the middle finds it in one of them, or in both. */
void mapped_move(MappedSegment *to, MappedSegment *from);

/* Lets go of a segment that is not being written. */
void mapped_close(MappedSegment *segment);

/* Closes the descriptor in a forked child, which has no mapping; the file belongs to its parent. */
void mapped_forget(MappedSegment *segment);

#endif
