/* attributes.h: the attributes of a span, encoded when they are set. See attributes.c. */
#ifndef FASTTRACE_ATTRIBUTES_H
#define FASTTRACE_ATTRIBUTES_H

#include "value/wire.h"

/* One attribute: where it stands in `values`. */
typedef struct {
    uint32_t hash;       /* of the key's bytes */
    uint32_t start;      /* of the encoded key */
    uint32_t key_size;   /* 0: it was removed, or set again */
    uint32_t value_size; /* follows the key */
} Attribute;

typedef struct {
    Buffer values;      /* encoded key, encoded value, ... */
    Attribute *entries; /* the owner's inline ones, or owned */
    uint32_t used;      /* entries, removed ones included */
    uint32_t count;     /* attributes that are set */
    uint32_t room;
    uint64_t seen; /* a bit a hash: none of the names of a bit that is not set was ever added */
    size_t removed_bytes; /* of `values` that belong to no attribute any more */
    uint32_t *index;      /* owned; NULL while there are few entries: see attributes.c */
    uint32_t index_room;  /* a power of two */
} Attributes;

#define INLINE_ATTRIBUTES 8

/* An attribute's encoded name, and its hash. */
typedef struct {
    const char *bytes;
    uint32_t size;
    uint32_t hash;
} Key;

/* The names that this project sets itself. */
typedef enum {
    KEY_TRACE_ID,
    KEY_START_TIME,
    KEY_EXPERIMENT,
    KEY_TYPE,
    KEY_FUNCTION,
    KEY_INPUTS,
    KEY_OUTPUTS,
    KEY_LOG_LEVEL,
    KEY_DESCRIPTION,
    KEY_MODEL,
    KEY_COST,
    KNOWN_KEYS,
} KnownKey;

extern Key known_keys[KNOWN_KEYS];

#define ATTR_INPUTS "mlflow.spanInputs"
#define ATTR_OUTPUTS "mlflow.spanOutputs"

/* Nothing here runs Python code. */

/* To be called once, when the module is loaded. */
void attributes_prepare_keys(void);

/* A key from an encoded name; the bytes stay the caller's. */
Key key_of(const char *bytes, size_t size);

/* Looks through the attributes; attributes_find() first looks whether that is worth it. */
Attribute *attributes_look_for(const Attributes *attributes, Key key);

/* NULL when it is not set. */
static inline Attribute *attributes_find(const Attributes *a, Key key)
{
    bool may_be_set = a->seen >> (key.hash & 63) & 1;
    return UNLIKELY(may_be_set) ? attributes_look_for(a, key) : NULL;
}

/* Sets an attribute whose value is already encoded: it becomes the last one, as in OpenTelemetry.
 * False when there is no room for it: all is as it was then. */
bool attributes_set(Attributes *attributes, Attribute *inline_entries, Key key, const char *value,
                    size_t value_size);

/* Sets an attribute likewise, unless its value is large: false for most of those. */
bool attributes_try_set(Attributes *attributes, Attribute *inline_entries, Key key,
                        const char *value, size_t value_size);

/* Sets an attribute likewise, to the value that begins at `start` in a buffer and ends with it; the
 * key's bytes may be those in front of it. A value that is larger than all others together is not
 * copied: the attributes take over the buffer, and the caller gets theirs for it, empty. */
bool attributes_take(Attributes *attributes, Attribute *inline_entries, Key key, Buffer *from,
                     size_t start);

/* Where an attribute that is about to be added may be written in place, its encoded key and its
 * value behind that, in *room bytes; NULL where there is no room for one. The place is good until
 * anything else is done to the attributes, and stays theirs: attributes_add_written() makes an
 * attribute of what was written there, whose name may not be set. */
static inline char *attributes_place(const Attributes *a, size_t *room)
{
    *room = a->values.cap - a->values.len;
    return LIKELY(a->used < a->room && *room > 0) ? a->values.data + a->values.len : NULL;
}

void attributes_add_written(Attributes *attributes, Key key, size_t value_size);

/* Moves the attributes together, over what was removed, as attributes_add_all() wants them. */
void attributes_compact(Attributes *attributes);

/* Copies all attributes of `from`, which have been compacted and none of whose names is set. False
 * when there is no room. */
bool attributes_add_all(Attributes *attributes, Attribute *inline_entries, const Attributes *from);

/* False when it is not set. */
bool attributes_remove(Attributes *attributes, Key key);

/* Appends the attributes as the pairs of a map of `count` entries. */
void attributes_append(const Attributes *attributes, Buffer *out);

/* Writes them to a place that has room for all values; gives what lies behind. */
char *attributes_write(const Attributes *attributes, char *at);

static inline Reader attribute_value(const Attributes *a, const Attribute *entry)
{
    return reader_over(a->values.data + entry->start + entry->key_size, entry->value_size);
}

/* Frees all but the values. */
void attributes_free_entries(Attributes *attributes, Attribute *inline_entries);

void attributes_free(Attributes *attributes, Attribute *inline_entries);

#endif
