/* segment_writer.h: writing segments, frame by frame by a program that spills, or whole by a
 * sender. See segment_writer.c. */
#ifndef FASTTRACE_SEGMENT_WRITER_H
#define FASTTRACE_SEGMENT_WRITER_H

#include "base/buffer.h"

/* Appends one uncompressed frame that holds the record; false when out of memory. */
bool segment_raw_frame(Buffer *out, const Buffer *record);

/* Writes a segment of records (a list of bytes) under another name and renames it: the segment is
 * there whole or not at all. `level`: of zstd. `*size`: the bytes of the file. 0, or -1 with an
 * exception or, without one, errno. */
int segment_write_file(const char *path, PyObject *records, int level, unsigned long long *size);

#endif
