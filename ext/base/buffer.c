#include "base/buffer.h"

bool buffer_grow(Buffer *b, size_t extra)
{
    if (b->failed) {
        return false;
    }
    if (b->drains && b->cap >= SINK_ROOM) {
        Sink *sink = (Sink *)b;
        sink->drain(sink);
        if (b->failed || extra <= b->cap - b->len) {
            return !b->failed;
        }
    }
    if (extra > BUFFER_MAX || b->len > BUFFER_MAX - extra) {
        b->failed = b->too_large = true;
        return false;
    }
    size_t cap = b->cap ? b->cap : 512;
    size_t needed = b->len + extra;
    while (cap < needed) {
        cap *= 2;
    }
    if (needed > BUFFER_LARGE && cap > needed + needed / 4) {
        cap = needed + needed / 4;
    }
    if (cap > BUFFER_MAX) {
        cap = BUFFER_MAX; /* or what fits would pass it */
    }
    char *data = realloc(b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void buffer_shrink(Buffer *b)
{
    if (b->cap < BUFFER_LARGE) {
        return;
    }
    size_t cap = b->len > 0 ? b->len : 1;
    char *data = realloc(b->data, cap);
    if (data != NULL) {
        b->data = data;
        b->cap = cap;
    }
}

void buffer_decimal(Buffer *b, uint64_t value)
{
    char digits[20]; /* of 2^64 - 1 */
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buffer_append(b, digits + at, sizeof digits - at);
}

void *array_grow(void *items, const void *first, size_t *room, size_t size)
{
    void *grown = malloc(2 * *room * size);
    if (grown == NULL) {
        return NULL;
    }
    memcpy(grown, items, *room * size);
    if (items != first) {
        free(items);
    }
    *room *= 2;
    return grown;
}
