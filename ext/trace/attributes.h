/* attributes.h: the attributes of a span, encoded when they are set. */
#ifndef FASTTRACE_ATTRIBUTES_H
#define FASTTRACE_ATTRIBUTES_H

#include "value/wire.h"

/* One attribute: where it stands in `values`. An attribute that is set again leaves its old bytes
 * behind as a hole and moves to the end, as in OpenTelemetry. */
typedef struct {
    uint32_t hash;  /* of the key's bytes */
    uint32_t start; /* of the encoded key */
    uint32_t key_size;
    uint32_t value_size; /* follows the key */
} Attribute;

typedef struct {
    Buffer values; /* encoded key, encoded value, ... */
    Attribute *entries;
    uint32_t count;
    uint32_t room;
    bool has_holes; /* otherwise `values` is exactly the entries, in order */
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

/* To be called once, when the module is loaded. */
void attributes_prepare_keys(void);

/* A key from an encoded name; the bytes stay the caller's. */
Key key_of(const char *bytes, size_t size);

/* NULL when it is not set. */
Attribute *attributes_find(const Attributes *attributes, Key key);

/* Sets an attribute whose value is already encoded. False when there is no memory. */
bool attributes_set(Attributes *attributes, Attribute *inline_entries, Key key, const char *value,
                    size_t value_size);

/* False when it is not set. */
bool attributes_remove(Attributes *attributes, Key key);

/* Room for so many more entries. */
bool attributes_reserve(Attributes *attributes, Attribute *inline_entries, uint32_t extra);

static inline Reader attribute_value(const Attributes *a, const Attribute *entry)
{
    return reader_over(a->values.data + entry->start + entry->key_size, entry->value_size);
}

void attributes_free(Attributes *attributes, Attribute *inline_entries);

#endif
