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

/* Makes room for `extra` more bytes; false (and `failed`) when that cannot be had. */
bool buffer_grow(Buffer *b, size_t extra);

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

#endif
