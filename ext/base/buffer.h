/* buffer.h: a growable run of bytes.
 *
 * Raw malloc, so that it may be used without the GIL. A failed allocation sets `failed` and turns
 * later appends into no-ops: writers append freely and check once at the end. `too_large` is set
 * besides where more memory would not have helped, since the content has passed BUFFER_MAX. */
#ifndef FASTTRACE_BUFFER_H
#define FASTTRACE_BUFFER_H

#include "compat.h"

typedef struct {
    char *data; /* owned */
    size_t len;
    size_t cap;
    bool failed;
    bool too_large; /* only with `failed` */
    bool drains;    /* it is a Sink's */
} Buffer;

/* One record, and one value, may not be larger than this: offsets inside a span are 32 bits. */
#define BUFFER_MAX ((size_t)1 << 30)

/* From here on a buffer is large: it grows by a quarter and not to twice its size, it is not kept
 * for the next value, and what it holds is moved to another owner where a smaller one is copied. */
#define BUFFER_LARGE ((size_t)1 << 20)

static inline void buffer_clear(Buffer *b)
{
    b->len = 0;
    b->failed = b->too_large = false;
}

static inline void buffer_free(Buffer *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
    b->failed = b->too_large = false;
}

/* A buffer for what is too large to be held: it grows up to SINK_ROOM and is then emptied by
 * `drain`, again and again. Writers append pieces of SINK_PIECE bytes at most; a larger one is held
 * whole. What drain() cannot use yet it leaves at the front; it sets `failed` where it fails. */
typedef struct Sink Sink;
typedef void (*SinkDrain)(Sink *sink); /* runs no Python code */
struct Sink {
    Buffer buffer; /* the first, so that buffer_grow() finds the sink */
    SinkDrain drain;
    void *to;      /* drain()'s own */
    size_t passed; /* bytes that were drained */
};

#define SINK_ROOM ((size_t)64 << 10)
#define SINK_PIECE ((size_t)16 << 10)

static inline Sink sink_into(SinkDrain drain, void *to)
{
    return (Sink){.buffer = {.drains = true}, .drain = drain, .to = to};
}

/* A drain() that only counts. */
static inline void sink_count(Sink *sink)
{
    sink->passed += sink->buffer.len;
    sink->buffer.len = 0;
}

/* Copies fewer than 32 bytes, without a call: most texts are as short. */
static inline __attribute__((always_inline)) void copy_small(char *to, const char *from,
                                                             size_t size)
{
    if (size >= 16) {
        memcpy(to, from, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    }
    else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    }
    else if (size >= 4) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    }
    else if (size > 0) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
}

/* Makes room for `extra` more bytes; false (and `failed`) when that cannot be had. */
bool buffer_grow(Buffer *b, size_t extra);

/* Gives back the memory behind what a large buffer holds. */
void buffer_shrink(Buffer *b);

/* Always inline, like the appends: most are of a few bytes, whose number the compiler then knows.
 */
static inline __attribute__((always_inline)) bool buffer_reserve(Buffer *b, size_t extra)
{
    if (LIKELY(!b->failed && extra <= b->cap - b->len)) {
        return true;
    }
    return buffer_grow(b, extra);
}

static inline __attribute__((always_inline)) void buffer_append(Buffer *b, const void *bytes,
                                                                size_t size)
{
    if (LIKELY(size != 0 &&
               buffer_reserve(b, size))) { /* an empty run may come as a NULL pointer */
        memcpy(b->data + b->len, bytes, size);
        b->len += size;
    }
}

/* Doubles an array that begins on its owner's stack, at `first`: `items` has `room` items of `size`
 * bytes, and is freed unless it is `first`. NULL where there is no memory; all is as it was then.
 */
void *array_grow(void *items, const void *first, size_t *room, size_t size);

static inline void buffer_byte(Buffer *b, unsigned char byte)
{
    if (LIKELY(buffer_reserve(b, 1))) {
        b->data[b->len++] = (char)byte;
    }
}

/* Appends a number's decimal digits. */
void buffer_decimal(Buffer *b, uint64_t value);

#endif
