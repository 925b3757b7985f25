/* attributes.c: a span's attributes, as encoded bytes.
 *
 * They stand in the order in which they were set. One that is set again leaves its bytes and its
 * entry behind and moves to the end; when more than half is left behind, the rest is moved
 * together. More than ENTRIES_WITHOUT_INDEX entries are found by a hash table of their numbers. */
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

static uint32_t key_hash(const char *bytes, size_t size)
{
    uint64_t hash = size;
    while (size > 0) {
        uint64_t word = 0;
        size_t taken = size < sizeof word ? size : sizeof word;
        memcpy(&word, bytes, taken);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
        bytes += taken;
        size -= taken;
    }
    return (uint32_t)hash;
}

Key key_of(const char *bytes, size_t size)
{
    return (Key){.bytes = bytes, .size = (uint32_t)size, .hash = key_hash(bytes, size)};
}

/* ---- finding ---- */

/* Up to so many entries are looked through one by one, which is quicker. */
#define ENTRIES_WITHOUT_INDEX 16

/* An empty place of the index. */
#define NO_ENTRY UINT32_MAX

static bool is_of_key(const Attributes *a, const Attribute *entry, Key key)
{
    return entry->hash == key.hash && entry->key_size == key.size &&
           memcmp(a->values.data + entry->start, key.bytes, key.size) == 0;
}

/* Where an entry of that hash may stand in the index, from there on to the next empty place. */
static uint32_t first_place(const Attributes *a, uint32_t hash)
{
    return (hash * 2654435769u) & (a->index_room - 1);
}

static void index_add(Attributes *a, uint32_t entry)
{
    uint32_t place = first_place(a, a->entries[entry].hash);
    while (a->index[place] != NO_ENTRY) {
        place = (place + 1) & (a->index_room - 1);
    }
    a->index[place] = entry;
}

/* Makes the index of `used` entries, with places for twice as many as there is room for. False, and
 * no index, where there is no memory: then entries are looked through. */
static void index_make(Attributes *a)
{
    uint32_t room = 2 * a->room;
    free(a->index);
    a->index = malloc(room * sizeof *a->index);
    if (a->index == NULL) {
        return;
    }
    a->index_room = room;
    memset(a->index, 0xff, room * sizeof *a->index);
    for (uint32_t i = 0; i < a->used; i++) {
        index_add(a, i);
    }
}

Attribute *attributes_look_for(const Attributes *a, Key key)
{
    if (LIKELY(a->index == NULL)) {
        for (uint32_t i = 0; i < a->used; i++) {
            if (is_of_key(a, &a->entries[i], key)) {
                return &a->entries[i];
            }
        }
        return NULL;
    }
    uint32_t place = first_place(a, key.hash);
    while (a->index[place] != NO_ENTRY) {
        Attribute *entry = &a->entries[a->index[place]];
        if (is_of_key(a, entry, key)) {
            return entry;
        }
        place = (place + 1) & (a->index_room - 1);
    }
    return NULL;
}

/* ---- room ---- */

/* So many bytes of removed attributes are kept at least: most spans set nothing twice. */
#define REMOVED_BYTES_KEPT ((size_t)4 << 10)

void attributes_compact(Attributes *a)
{
    size_t to = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < a->used; i++) {
        Attribute entry = a->entries[i];
        if (entry.key_size == 0) {
            continue;
        }
        size_t size = (size_t)entry.key_size + entry.value_size;
        memmove(a->values.data + to, a->values.data + entry.start, size);
        entry.start = (uint32_t)to;
        to += size;
        a->entries[kept++] = entry;
    }
    a->values.len = to;
    a->used = kept;
    a->removed_bytes = 0;
    if (a->index != NULL) {
        index_make(a);
    }
}

static void compact_if_worth_it(Attributes *a)
{
    bool many_entries = a->used - a->count > 8 && a->used / 2 > a->count;
    if (UNLIKELY(many_entries ||
                 (a->removed_bytes > REMOVED_BYTES_KEPT && a->removed_bytes > a->values.len / 2))) {
        attributes_compact(a);
    }
}

static bool reserve_entries(Attributes *a, Attribute *inline_entries, uint32_t extra)
{
    if (LIKELY(extra <= a->room - a->used)) {
        return true;
    }
    uint32_t room = a->room ? a->room : INLINE_ATTRIBUTES;
    while (room - a->used < extra) {
        if (room > UINT32_MAX / 4) {
            return false;
        }
        room *= 2;
    }
    bool was_inline = a->entries == inline_entries;
    Attribute *entries = realloc(was_inline ? NULL : a->entries, room * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    if (was_inline) {
        memcpy(entries, inline_entries, a->used * sizeof *entries);
    }
    a->entries = entries;
    a->room = room;
    if (room > ENTRIES_WITHOUT_INDEX) {
        index_make(a);
    }
    return true;
}

/* Makes room for so many more entries and bytes; false, and nothing lost, where that cannot be had.
 */
static bool make_room(Attributes *a, Attribute *inline_entries, uint32_t entries, size_t bytes)
{
    if (reserve_entries(a, inline_entries, entries) && buffer_reserve(&a->values, bytes)) {
        return true;
    }
    a->values.failed = false;
    return false;
}

static inline bool has_room_for(const Attributes *a, uint32_t entries, size_t bytes)
{
    return entries <= a->room - a->used && bytes <= a->values.cap - a->values.len;
}

static inline bool reserve(Attributes *a, Attribute *inline_entries, uint32_t entries, size_t bytes)
{
    return LIKELY(has_room_for(a, entries, bytes)) || make_room(a, inline_entries, entries, bytes);
}

/* ---- setting ---- */

static void remove_entry(Attributes *a, Attribute *entry)
{
    a->removed_bytes += (size_t)entry->key_size + entry->value_size;
    entry->key_size = 0;
    a->count--;
}

/* Adds an entry for bytes that are about to be appended. */
static void add_entry(Attributes *a, Attribute entry)
{
    a->entries[a->used] = entry;
    a->seen |= (uint64_t)1 << (entry.hash & 63);
    if (UNLIKELY(a->index != NULL)) {
        index_add(a, a->used);
    }
    a->used++;
    a->count++;
}

bool attributes_remove(Attributes *a, Key key)
{
    Attribute *old = attributes_find(a, key);
    if (old == NULL) {
        return false;
    }
    remove_entry(a, old);
    compact_if_worth_it(a);
    return true;
}

/* Whether a new attribute has room once an old one and all that was removed is gone. */
static bool fits_in_place_of(const Attributes *a, const Attribute *old, size_t size)
{
    size_t gone = a->removed_bytes + old->key_size + old->value_size;
    return a->values.len - gone + size <= a->values.cap;
}

/* Sets an attribute; `copies_large`: whether there is made room for a large value, too. */
static inline __attribute__((always_inline)) bool set(Attributes *a, Attribute *inline_entries,
                                                      Key key, const char *value, size_t value_size,
                                                      bool copies_large)
{
    size_t size = key.size + value_size;
    bool has_room = has_room_for(a, 1, size);
    if (UNLIKELY(!has_room)) {
        if (!copies_large && size > BUFFER_LARGE) {
            return false;
        }
        has_room = make_room(a, inline_entries, 1, size);
    }
    Attribute *old = attributes_find(a, key);
    if (UNLIKELY(!has_room) && (old == NULL || !fits_in_place_of(a, old, size))) {
        return false;
    }
    if (UNLIKELY(old != NULL)) {
        remove_entry(a, old);
        if (LIKELY(has_room)) {
            compact_if_worth_it(a);
        }
        else {
            attributes_compact(a);
        }
    }
    add_entry(a, (Attribute){.hash = key.hash,
                             .start = (uint32_t)a->values.len,
                             .key_size = key.size,
                             .value_size = (uint32_t)value_size});
    buffer_append(&a->values, key.bytes, key.size);
    buffer_append(&a->values, value, value_size);
    return true;
}

void attributes_add_written(Attributes *a, Key key, size_t value_size)
{
    add_entry(a, (Attribute){.hash = key.hash,
                             .start = (uint32_t)a->values.len,
                             .key_size = key.size,
                             .value_size = (uint32_t)value_size});
    a->values.len += key.size + value_size;
}

bool attributes_try_set(Attributes *a, Attribute *inline_entries, Key key, const char *value,
                        size_t value_size)
{
    return set(a, inline_entries, key, value, value_size, false);
}

bool attributes_set(Attributes *a, Attribute *inline_entries, Key key, const char *value,
                    size_t value_size)
{
    return set(a, inline_entries, key, value, value_size, true);
}

/* Sets an attribute to the value that ends a buffer by moving that buffer into `a`: what `a` holds
 * is copied in front of it, and `from` gets the old buffer. False when there is no room. */
static bool take_buffer(Attributes *a, Attribute *inline_entries, Key key, Buffer *from,
                        size_t start)
{
    size_t value_size = from->len - start;
    bool has_key = key.bytes == from->data; /* in front of the value */
    if (!reserve_entries(a, inline_entries, 1)) {
        return false;
    }
    Attribute *old = attributes_find(a, key);
    size_t gone = a->removed_bytes + (old ? (size_t)old->key_size + old->value_size : 0);
    size_t before = a->values.len - gone;
    if (!buffer_reserve(from, before + (has_key ? 0 : key.size))) {
        from->failed = from->too_large = false;
        return false;
    }
    if (old != NULL) {
        remove_entry(a, old);
    }
    attributes_compact(a);
    memmove(from->data + before + key.size, from->data + start, value_size);
    if (has_key) {
        memmove(from->data + before, from->data, key.size);
    }
    else {
        memcpy(from->data + before, key.bytes, key.size);
    }
    if (before > 0) {
        memcpy(from->data, a->values.data, before);
    }
    from->len = before + key.size + value_size;
    Buffer old_values = a->values;
    a->values = *from;
    *from = old_values;
    buffer_clear(from);
    add_entry(a, (Attribute){.hash = key.hash,
                             .start = (uint32_t)before,
                             .key_size = key.size,
                             .value_size = (uint32_t)value_size});
    return true;
}

bool attributes_take(Attributes *a, Attribute *inline_entries, Key key, Buffer *from, size_t start)
{
    size_t size = from->len - start;
    return (size > a->values.len && take_buffer(a, inline_entries, key, from, start)) ||
           attributes_set(a, inline_entries, key, from->data + start, size);
}

bool attributes_add_all(Attributes *a, Attribute *inline_entries, const Attributes *from)
{
    if (!reserve(a, inline_entries, from->used, from->values.len)) {
        return false;
    }
    Attribute *added = a->entries + a->used;
    uint32_t base = (uint32_t)a->values.len;
    memcpy(added, from->entries, from->used * sizeof *added);
    for (uint32_t i = 0; i < from->used; i++) {
        added[i].start += base;
    }
    a->seen |= from->seen;
    a->used += from->used;
    a->count += from->used;
    if (UNLIKELY(a->index != NULL)) {
        index_make(a);
    }
    buffer_append(&a->values, from->values.data, from->values.len);
    return true;
}

char *attributes_write(const Attributes *a, char *at)
{
    if (LIKELY(a->removed_bytes == 0)) {
        if (LIKELY(a->values.len > 0)) { /* without attributes the data may be NULL */
            memcpy(at, a->values.data, a->values.len);
        }
        return at + a->values.len;
    }
    for (uint32_t i = 0; i < a->used; i++) {
        const Attribute *entry = &a->entries[i];
        size_t size = (size_t)entry->key_size + entry->value_size;
        if (entry->key_size != 0) {
            memcpy(at, a->values.data + entry->start, size);
            at += size;
        }
    }
    return at;
}

void attributes_append(const Attributes *a, Buffer *out)
{
    if (buffer_reserve(out, a->values.len)) {
        out->len = (size_t)(attributes_write(a, out->data + out->len) - out->data);
    }
}

void attributes_free_entries(Attributes *a, Attribute *inline_entries)
{
    if (UNLIKELY(a->entries != inline_entries)) {
        free(a->entries);
        free(a->index);
    }
}

void attributes_free(Attributes *a, Attribute *inline_entries)
{
    attributes_free_entries(a, inline_entries);
    buffer_free(&a->values);
}

void attributes_prepare_keys(void)
{
    for (int i = 0; i < KNOWN_KEYS; i++) {
        known_keys[i] = key_of(known_names[i], strlen(known_names[i]));
    }
}
