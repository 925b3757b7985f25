/* segment_writer.h: writing segments, frame by frame by a program that spills, or whole by a
 * sender. See segment_writer.c. */
#ifndef FASTTRACE_SEGMENT_WRITER_H
#define FASTTRACE_SEGMENT_WRITER_H

#include "record/frame.h"
#include "spool/segment_format.h"

/* An uncompressed frame of one record, which is not copied: three pieces, one after another. */
typedef struct {
    struct {
        SegmentFrame frame;
        RecordHead record;
    } head;
    const char *record; /* borrowed */
    size_t size;        /* of the record */
    size_t padding;     /* zeros behind it */
} RawFrame;

RawFrame segment_raw_frame(const Buffer *record);

static inline size_t raw_frame_size(const RawFrame *frame)
{
    return sizeof frame->head + frame->size + frame->padding;
}

/* Writes a frame, all of it; false with errno set, and a part of it written perhaps. */
bool raw_frame_write(int fd, const RawFrame *frame);

/* Writes a segment of records (a list of bytes) under another name and renames it: the segment is
 * there whole or not at all. `level`: of zstd. `*size`: the bytes of the file. 0, or -1 with an
 * exception or, without one, errno. */
int segment_write_file(const char *path, PyObject *records, int level, unsigned long long *size);

#endif
