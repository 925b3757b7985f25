#include "trace/span_values.h"

#include "base/errors.h"
#include "base/python_side.h"
#include "value/encode.h"

void span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size)
{
    attributes_set(&span->attributes, span->inline_entries, known_keys[key], value, value_size);
}

void span_set(Span *span, KnownKey key, PyObject *value)
{
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        return;
    }
    encode_value(span->state, out, value);
    if (!out->failed && span->end_ns == 0) {
        span_set_encoded(span, key, out->data, out->len);
    }
    scratch_release(span->state, out);
}

bool span_encode_payload(Span *span, Buffer *out, PyObject *value, PyObject *repr)
{
    CoreState *state = span->state;
    PyObject *replaced = NULL;
    EncodeResult result = encode_payload(state, out, value);
    bool has_content = result == HAS_CONTENT;
    if (UNLIKELY(has_content)) {
        replaced = PyObject_CallFunctionObjArgs(state->hooks.extract_attachments, (PyObject *)span,
                                                value, NULL);
        if (replaced == NULL) {
            swallow_exception();
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
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    span_encode_payload(span, out, value, state->hooks.payload_repr);
    if (!out->failed && span->end_ns == 0) {
        span_set_encoded(span, key, out->data, out->len);
    }
    scratch_release(state, out);
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
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    encode_str(out, key);
    size_t key_size = out->len;
    encode_value(state, out, value);
    if (!out->failed && span->end_ns == 0) {
        attributes_set(&span->attributes, span->inline_entries, key_of(out->data, key_size),
                       out->data + key_size, out->len - key_size);
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
        swallow_exception();
        return;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
        PyObject *pair = PyList_GetItem(items, i);
        span_set_attribute(span, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1));
    }
    Py_DECREF(items);
}

bool span_add_prepared(Span *span, const Attributes *prepared)
{
    Attributes *a = &span->attributes;
    uint32_t base = (uint32_t)a->values.len;
    if (!attributes_reserve(a, span->inline_entries, prepared->count) ||
        !buffer_reserve(&a->values, prepared->values.len)) {
        a->values.failed = false;
        return false;
    }
    for (uint32_t i = 0; i < prepared->count; i++) {
        a->entries[a->count] = prepared->entries[i];
        a->entries[a->count++].start += base;
    }
    buffer_append(&a->values, prepared->values.data, prepared->values.len);
    a->has_holes |= prepared->has_holes;
    return true;
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
    if (span_find(span, KEY_OUTPUTS, &value) && reader_next(&value).kind != TOKEN_NIL) {
        return;
    }
    span_set_payload(span, KEY_OUTPUTS, result);
}
