/* segment.h: files on disk. See segment.c and docs/spool-format.md. */
#ifndef FASTTRACE_SEGMENT_H
#define FASTTRACE_SEGMENT_H

#include "record.h"

#define SEGMENT_HEAD_SIZE 16

/* Fills the SEGMENT_HEAD_SIZE bytes that every segment begins with. */
void segment_head(char *head);

/* write(), all of it; false with errno set. */
bool write_whole(int fd, const void *bytes, size_t size);

/* Appends one uncompressed frame that holds the record; false when out of memory. */
bool segment_raw_frame(Buffer *out, const Buffer *record);

#endif
