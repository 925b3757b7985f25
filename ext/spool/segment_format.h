/* segment_format.h: the layout of a segment file, also in docs/spool-format.md.
 *
 *   segment  head, then frames
 *   head     "MFTSEG1\0", u32 version, u32 zero
 *   frame    SegmentFrame, then the stored bytes
 *   content  records, each behind its 8-byte head (record/frame.h)
 *
 * Integers are little-endian. A frame stands for itself: damage yields what precedes it, and a
 * frame that is still being written is not there yet: the file ends before it, or there are zeros.
 */
#ifndef FASTTRACE_SEGMENT_FORMAT_H
#define FASTTRACE_SEGMENT_FORMAT_H

#include "base/buffer.h"

#include <assert.h>

#define SEGMENT_HEAD_SIZE 16

enum { CODEC_RAW = 0, CODEC_ZSTD = 1 };

/* The head of a frame. Its first eight bytes are never zero. */
typedef struct {
    uint32_t content_size; /* of the records, not compressed */
    uint32_t stored_size;  /* of the bytes that follow the head */
    uint32_t codec;
    uint32_t records;
    uint64_t checksum; /* checksum64 of the stored bytes */
} SegmentFrame;

static_assert(offsetof(SegmentFrame, stored_size) == 4 && offsetof(SegmentFrame, codec) == 8 &&
                  offsetof(SegmentFrame, records) == 12 && offsetof(SegmentFrame, checksum) == 16 &&
                  sizeof(SegmentFrame) == 24,
              "the head of a frame");

/* Stands behind the last frame where the memory was used before: what follows means nothing. Its
 * first eight bytes, zeros, are those of a frame that is not there. */
#define SEGMENT_END_SIZE 16
extern const char SEGMENT_END[SEGMENT_END_SIZE];

/* Fills the SEGMENT_HEAD_SIZE bytes that every segment begins with. */
void segment_head(char *head);

/* write(), all of it; false with errno set. */
bool write_whole(int fd, const void *bytes, size_t size);

#endif
