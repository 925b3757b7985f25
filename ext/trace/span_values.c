#include "trace/span_values.h"

#include "base/errors.h"
#include "base/python_side.h"
#include "value/encode.h"
#include "value/plain.h"

void value_has_no_room(CoreState *state)
{
    warn(state,
         "A value of a span could not be recorded: it is larger than 1 GiB, all values of the "
         "span together are, or there is no memory for it.");
}

bool span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size)
{
    return attributes_try_set(&span->attributes, span->inline_entries, known_keys[key], value,
                              value_size);
}

/* Sets an attribute to the value that begins at `start` in a buffer, where attributes_try_set() did
 * not: it is large, or has no room, which the log says. */
static void set_otherwise(Span *span, Key key, Buffer *value, size_t start)
{
    bool set = !value->failed &&
               attributes_take(&span->attributes, span->inline_entries, key, value, start);
    if (!set) {
        value_has_no_room(span->state);
    }
}

void span_set_from(Span *span, KnownKey key, Buffer *value)
{
    bool set = !value->failed &&
               (span->end_ns != 0 || span_set_encoded(span, key, value->data, value->len));
    if (UNLIKELY(!set)) {
        set_otherwise(span, known_keys[key], value, 0);
    }
}

char *span_value_place(Span *span, KnownKey key, size_t *room)
{
    const Attributes *a = &span->attributes;
    Key known = known_keys[key];
    char *place = attributes_place(a, room);
    if (UNLIKELY(place == NULL || *room <= known.size || span->end_ns != 0 ||
                 attributes_find(a, known) != NULL)) {
        return NULL;
    }
    memcpy(place, known.bytes, known.size);
    *room -= known.size;
    return place + known.size;
}

bool span_value_written(Span *span, KnownKey key, size_t size)
{
    if (UNLIKELY(size == 0)) {
        PyErr_Clear();
        return false;
    }
    attributes_add_written(&span->attributes, known_keys[key], size);
    return true;
}

/* Sets an attribute to a plain value (plain.h); false for others. */
static bool set_plain(Span *span, KnownKey key, PyObject *value, bool payload)
{
    size_t room;
    char *place = span_value_place(span, key, &room);
    return LIKELY(place != NULL) &&
           span_value_written(span, key, encode_plain(place, room, value, payload));
}

void span_set(Span *span, KnownKey key, PyObject *value)
{
    if (LIKELY(set_plain(span, key, value, false))) {
        return;
    }
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        value_has_no_room(span->state);
        return;
    }
    encode_value(span->state, out, value);
    span_set_from(span, key, out);
    scratch_release(span->state, out);
}

bool span_encode_payload(Span *span, Buffer *out, PyObject *value, PyObject *repr)
{
    CoreState *state = span->state;
    PyObject *replaced = NULL;
    EncodeResult result = encode_payload(state, out, value);
    bool has_content = result == HAS_CONTENT;
    if (UNLIKELY(has_content)) {
        PyObject *hook = is_interrupted(state) ? NULL : state->hooks.extract_attachments;
        replaced = hook != NULL ? ask_hook(hook, (PyObject *)span, value) : NULL;
        if (replaced == NULL) {
            swallow_exception(state);
        }
        value = replaced ? replaced : value;
        result = encode_try(state, out, value);
    }
    if (UNLIKELY(result == NEEDS_REPR)) {
        encode_repr(state, out, value, repr);
    }
    Py_XDECREF(replaced);
    return has_content;
}

void span_set_payload(Span *span, KnownKey key, PyObject *value)
{
    CoreState *state = span->state;
    if (LIKELY(set_plain(span, key, value, true))) {
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        value_has_no_room(state);
        return;
    }
    PyObject *repr = state->hooks.payload_repr;
    Py_XINCREF(repr);
    span_encode_payload(span, out, value, repr);
    Py_XDECREF(repr);
    span_set_from(span, key, out);
    scratch_release(state, out);
}

/* Sets an attribute of any name to a plain value; false for others, and where it is set already. */
static bool set_plain_attribute(Span *span, PyObject *name, PyObject *value)
{
    Attributes *a = &span->attributes;
    size_t room, size = 0;
    char *place = attributes_place(a, &room);
    size_t key_size = place != NULL ? encode_plain_str(place, room, name) : 0;
    if (key_size > 0) {
        Key key = key_of(place, key_size);
        if (UNLIKELY(attributes_find(a, key) != NULL)) {
            return false;
        }
        size = encode_plain(place + key_size, room - key_size, value, false);
        if (LIKELY(size > 0)) {
            attributes_add_written(a, key, size);
            return true;
        }
    }
    PyErr_Clear();
    return false;
}

void span_set_attribute(Span *span, PyObject *key, PyObject *value)
{
    CoreState *state = span->state;
    if (!PyUnicode_Check(key) || PyUnicode_GetLength(key) == 0) {
        warn(state, "An attribute's key must be a non-empty string; this one is not recorded.");
        return;
    }
    if (span->end_ns != 0) {
        warn(state, "An attribute was set on a span that has ended; it is not recorded.");
        return;
    }
    if (LIKELY(set_plain_attribute(span, key, value))) {
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        value_has_no_room(state);
        return;
    }
    encode_str(out, key);
    size_t key_size = out->len;
    encode_value(state, out, value);
    bool set = !out->failed &&
               (span->end_ns != 0 || attributes_try_set(&span->attributes, span->inline_entries,
                                                        key_of(out->data, key_size),
                                                        out->data + key_size, out->len - key_size));
    if (UNLIKELY(!set)) {
        Key name = out->failed ? (Key){0} : key_of(out->data, key_size);
        set_otherwise(span, name, out, key_size);
    }
    scratch_release(state, out);
}

void span_set_attributes(Span *span, PyObject *attributes)
{
    if (!PyDict_Check(attributes)) {
        warn(span->state, "Attributes must be a dictionary; these are not recorded.");
        return;
    }
    PyObject *items = PyDict_Items(attributes); /* a copy: encoding runs the program's code */
    if (items == NULL) {
        swallow_exception(span->state);
        return;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(items) && !is_interrupted(span->state); i++) {
        PyObject *pair = PyList_GetItem(items, i);
        span_set_attribute(span, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1));
    }
    Py_DECREF(items);
}

bool attributes_name_a_first_one(const Attributes *prepared)
{
    return attributes_find(prepared, known_keys[KEY_TRACE_ID]) != NULL ||
           attributes_find(prepared, known_keys[KEY_START_TIME]) != NULL ||
           attributes_find(prepared, known_keys[KEY_EXPERIMENT]) != NULL;
}

bool span_add_prepared(Span *span, const Attributes *prepared, bool name_a_first_one)
{
    Attributes *a = &span->attributes;
    if (LIKELY(!name_a_first_one)) {
        return attributes_add_all(a, span->inline_entries, prepared);
    }
    bool ok = true;
    for (uint32_t i = 0; i < prepared->used; i++) {
        const Attribute *entry = &prepared->entries[i];
        Key key = {.bytes = prepared->values.data + entry->start,
                   .size = entry->key_size,
                   .hash = entry->hash};
        ok = (entry->key_size == 0 || attributes_set(a, span->inline_entries, key,
                                                     key.bytes + key.size, entry->value_size)) &&
             ok;
    }
    return ok;
}

bool span_find(const Span *span, KnownKey key, Reader *value)
{
    const Attribute *entry = attributes_find(&span->attributes, known_keys[key]);
    if (entry == NULL) {
        return false;
    }
    *value = attribute_value(&span->attributes, entry);
    return true;
}

void span_default_outputs(Span *span, PyObject *result)
{
    Reader value;
    if (LIKELY(span->state->mlflow >= MLFLOW(3, 16)) && span_find(span, KEY_OUTPUTS, &value) &&
        reader_next(&value).kind != TOKEN_NIL) {
        return;
    }
    span_set_payload(span, KEY_OUTPUTS, result);
}
