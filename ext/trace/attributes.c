/* attributes.c: a span's attributes, as encoded bytes. */
#include "trace/attributes.h"

/* Encoded by hand: a name of n < 32 bytes is the byte 0xa0 + n, then the name. */
static const char *const known_names[KNOWN_KEYS] = {
    [KEY_TRACE_ID] = "\xb5mlflow.traceRequestId",
    [KEY_START_TIME] = "\xb6mlflow.spanStartTimeNs",
    [KEY_EXPERIMENT] = "\xb3mlflow.experimentId",
    [KEY_TYPE] = "\xafmlflow.spanType",
    [KEY_FUNCTION] = "\xb7mlflow.spanFunctionName",
    [KEY_INPUTS] = "\xb1" ATTR_INPUTS,
    [KEY_OUTPUTS] = "\xb2" ATTR_OUTPUTS,
    [KEY_LOG_LEVEL] = "\xb3mlflow.spanLogLevel",
    [KEY_DESCRIPTION] = "\xb6mlflow.spanDescription",
    [KEY_MODEL] = "\xb0mlflow.llm.model",
    [KEY_COST] = "\xafmlflow.llm.cost",
};

/* Constant once the module is loaded. */
Key known_keys[KNOWN_KEYS];

/* Names differ at their ends: the last bytes and the length tell nearly all apart. */
static uint32_t key_hash(const char *bytes, size_t size)
{
    uint32_t hash = 2166136261u;
    size_t from = size > 12 ? size - 12 : 0;
    for (size_t i = from; i < size; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    }
    return hash ^ (uint32_t)size;
}

Key key_of(const char *bytes, size_t size)
{
    return (Key){.bytes = bytes, .size = (uint32_t)size, .hash = key_hash(bytes, size)};
}

Attribute *attributes_find(const Attributes *a, Key key)
{
    for (uint32_t i = 0; i < a->count; i++) {
        Attribute *entry = &a->entries[i];
        if (entry->hash == key.hash && entry->key_size == key.size &&
            memcmp(a->values.data + entry->start, key.bytes, key.size) == 0) {
            return entry;
        }
    }
    return NULL;
}

bool attributes_remove(Attributes *a, Key key)
{
    Attribute *old = attributes_find(a, key);
    if (LIKELY(old == NULL)) {
        return false;
    }
    a->has_holes = true;
    memmove(old, old + 1, (size_t)(a->entries + a->count - old - 1) * sizeof *old);
    a->count--;
    return true;
}

bool attributes_reserve(Attributes *a, Attribute *inline_entries, uint32_t extra)
{
    if (LIKELY(a->count + extra <= a->room)) {
        return true;
    }
    uint32_t room = a->room ? a->room : INLINE_ATTRIBUTES;
    while (room < a->count + extra) {
        room *= 2;
    }
    bool was_inline = a->entries == inline_entries;
    Attribute *entries = realloc(was_inline ? NULL : a->entries, room * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    if (was_inline) {
        memcpy(entries, inline_entries, a->count * sizeof *entries);
    }
    a->entries = entries;
    a->room = room;
    return true;
}

bool attributes_set(Attributes *a, Attribute *inline_entries, Key key, const char *value,
                    size_t value_size)
{
    attributes_remove(a, key);
    if (!attributes_reserve(a, inline_entries, 1) ||
        !buffer_reserve(&a->values, key.size + value_size)) {
        a->values.failed = false; /* what is there stays good; this one is not recorded */
        return false;
    }
    a->entries[a->count++] = (Attribute){.hash = key.hash,
                                         .start = (uint32_t)a->values.len,
                                         .key_size = key.size,
                                         .value_size = (uint32_t)value_size};
    buffer_append(&a->values, key.bytes, key.size);
    buffer_append(&a->values, value, value_size);
    return true;
}

void attributes_free(Attributes *a, Attribute *inline_entries)
{
    if (a->entries != inline_entries) {
        free(a->entries);
    }
    buffer_free(&a->values);
}

void attributes_prepare_keys(void)
{
    for (int i = 0; i < KNOWN_KEYS; i++) {
        known_keys[i] = key_of(known_names[i], strlen(known_names[i]));
    }
}
