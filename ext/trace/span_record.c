/* span_record.c: the record of an ended span, and those of its attachments. */
#include "trace/span_record.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "trace/trace_record.h"
#include "value/encode.h"

static void encode_span_id(Buffer *out, uint64_t id)
{
    char bytes[SPAN_ID_SIZE];
    compat_store_big_endian(bytes, id);
    wire_pack_bin(out, sizeof bytes);
    buffer_append(out, bytes, sizeof bytes);
}

size_t span_encode_record(const Span *span, Buffer *out)
{
    const Attributes *a = &span->attributes;
    size_t left_out = 0;
    PyObject *name = span->name, *message = span->status_message;

    Py_INCREF(name);
    Py_XINCREF(message);
    wire_pack_array(out, span->kind == SPAN_KIND_INTERNAL ? SPAN_FIELDS - 1 : SPAN_FIELDS);
    wire_pack_uint8(out, RECORD_SPAN);
    wire_pack_bin(out, TRACE_ID_SIZE);
    buffer_append(out, span->trace->id, TRACE_ID_SIZE);
    encode_span_id(out, span->id);
    if (span->parent_id) {
        encode_span_id(out, span->parent_id);
    }
    else {
        wire_pack_nil(out);
    }
    encode_str(out, name);
    wire_pack_uint64(out, span->start_ns);
    wire_pack_uint64(out, span->end_ns);
    wire_pack_uint8(out, span->status);
    if (message != NULL) {
        encode_str(out, message);
    }
    else {
        wire_pack_str(out, 0);
    }
    wire_pack_map(out, a->count);
    if (LIKELY(a->values.len <= BUFFER_LARGE)) {
        attributes_append(a, out);
    }
    else {
        left_out = out->len;
    }
    wire_pack_array(out, span->event_count);
    buffer_append(out, span->events.data, span->events.len);
    wire_pack_array(out, span->link_count);
    buffer_append(out, span->links.data, span->links.len);
    if (UNLIKELY(span->kind != SPAN_KIND_INTERNAL)) {
        wire_pack_uint8(out, span->kind);
    }
    Py_DECREF(name);
    Py_XDECREF(message);
    return left_out;
}

/* Puts a record into the rings whose attributes were left out at `at`: it is made where these lie,
 * in the span's memory, which nobody sees, since no Python code runs before they are as they were.
 */
static PutResult put_around_attributes(Span *span, const Buffer *record, size_t at)
{
    Buffer *values = &span->attributes.values;
    attributes_compact(&span->attributes);
    size_t size = values->len;
    if (record->failed || !buffer_reserve(values, record->len)) {
        values->failed = values->too_large = false;
        return PUT_FAILED_RECORD;
    }
    memmove(values->data + at, values->data, size);
    memcpy(values->data, record->data, at);
    values->len += at;
    buffer_append(values, record->data + at, record->len - at);
    PutResult result = trace_put_span(span->trace, values);
    memmove(values->data, values->data + at, size);
    values->len = size;
    return result;
}

void span_put_large(Span *span, const Buffer *record, size_t at, bool is_root)
{
    trace_span_ends(span->state, span->trace, is_root);
    PutResult result = put_around_attributes(span, record, at);
    trace_span_was_put(span->state, span->trace, result, is_root);
}

void span_append_attachments(Span *span)
{
    PyObject *key, *attachment;
    Py_ssize_t at = 0;
    PyObject *copy =
        PyDict_Copy(span->attachments); /* reading an attachment may run the program's code */
    if (copy == NULL) {
        swallow_exception(span->state);
        return;
    }
    while (PyDict_Next(copy, &at, &key, &attachment)) {
        char *bytes;
        Py_ssize_t size;
        Buffer *out = scratch_acquire(span->state);
        PyObject *content = attribute_named(attachment, "content_bytes");
        if (out != NULL && content != NULL &&
            PyBytes_AsStringAndSize(content, &bytes, &size) == 0 && PyUnicode_Check(key) &&
            (uint64_t)size < UINT32_MAX / 2) {
            wire_pack_array(out, ATTACHMENT_FIELDS);
            wire_pack_uint8(out, RECORD_ATTACHMENT);
            wire_pack_bin(out, TRACE_ID_SIZE);
            buffer_append(out, span->trace->id, TRACE_ID_SIZE);
            encode_str(out, key);
            wire_pack_bin(out, (size_t)size);
            buffer_append(out, bytes, (size_t)size);
            trace_append(span->state, span->trace, out);
        }
        else {
            swallow_exception(span->state);
        }
        Py_XDECREF(content);
        if (out != NULL) {
            scratch_release(span->state, out);
        }
    }
    Py_DECREF(copy);
}
