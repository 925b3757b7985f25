/* frame.h: records one after another, in a ring and in the frames of a segment.
 *
 * Each record stands behind an 8-byte head, its length and its checksum, both little-endian, and is
 * padded to 8 bytes. */
#ifndef FASTTRACE_FRAME_H
#define FASTTRACE_FRAME_H

#include "base/buffer.h"

typedef struct {
    uint32_t length;
    uint32_t checksum;
} RecordHead;

#define RECORD_PADDING(length) ((8 - ((length) & 7)) & 7)
#define RECORD_FRAME_SIZE(length) (sizeof(RecordHead) + (length) + RECORD_PADDING(length))

/* Four independent multiply-rotate lanes: about 10 bytes a nanosecond, and it finds every torn or
 * overwritten record. It guards against damage, not against an adversary. */
uint64_t checksum64(const void *bytes, size_t size);

static inline uint32_t checksum32(const void *bytes, size_t size)
{
    uint64_t sum = checksum64(bytes, size);
    return (uint32_t)(sum ^ sum >> 32);
}

#define CHECKSUM_BLOCK 32

/* checksum64() of pieces that follow one another. */
typedef struct {
    uint64_t lane[4];
    unsigned char rest[CHECKSUM_BLOCK]; /* the beginning of the next block */
    size_t held;                        /* bytes of it */
} Checksum;

/* `size`: of all pieces together. */
void checksum_begin(Checksum *checksum, uint64_t size);
void checksum_add(Checksum *checksum, const void *bytes, size_t size);
uint64_t checksum_end(const Checksum *checksum);

static inline RecordHead record_head(const char *record, size_t size)
{
    return (RecordHead){.length = (uint32_t)size, .checksum = checksum32(record, size)};
}

/* Appends one framed record. */
void frame_append(Buffer *out, const char *record, size_t size);

/* Appends (end position, kind, trace id, record) to `list` for a record, a bytes object: kind 0 and
 * an id of zeros where it is none. 0, or -1 with an exception. */
RUNS_PYTHON int frames_add(PyObject *list, uint64_t position, PyObject *record);

typedef enum {
    FRAMES_WHOLE,   /* all whole frames of the run were read; the last one may be cut off */
    FRAMES_DAMAGED, /* the run is damaged behind what was read */
    FRAMES_FAILED,  /* an exception is set */
} FramesResult;

/* Calls frames_add() for every whole frame in the run. `base` is the position of the run's first
 * byte,
 * `*used` the bytes that were read. Allocates Python objects, which may run the garbage collector:
 * nobody but this thread may let go of `bytes` meanwhile. */
RUNS_PYTHON FramesResult frames_to_list(PyObject *list, const char *bytes, size_t size,
                                        uint64_t base, size_t *used);

#endif
