/* span_record.c: the record of an ended span, and those of its attachments. */
#include "trace/span_record.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "trace/trace_record.h"
#include "value/encode.h"

/* ---- the record ---- */

/* A text of the record: UTF-8, borrowed from the str, or what stands for it. */
typedef struct {
    const char *bytes;
    size_t size;
    PyObject *surrogates; /* owned bytes: the text has no UTF-8; NULL for most */
} Text;

/* What is not text, attribute, event or link takes no more bytes than this. */
#define FIXED_MAX 128

/* Reads a text (NULL: an empty one); false without memory. */
static bool read_text(PyObject *str, Text *text)
{
    Py_ssize_t size = 0;
    *text = (Text){.bytes = ""};
    if (str == NULL) {
        return true;
    }
    text->bytes = PyUnicode_AsUTF8AndSize(str, &size);
    if (UNLIKELY(text->bytes == NULL)) {
        PyErr_Clear();
        text->surrogates = encode_surrogates(str);
        if (text->surrogates == NULL) {
            return false;
        }
        text->bytes = PyBytes_AsString(text->surrogates);
        size = PyBytes_Size(text->surrogates);
    }
    text->size = (size_t)size;
    return true;
}

static inline char *write_text(char *at, const Text *text)
{
    if (LIKELY(text->surrogates == NULL)) {
        return put_text(at, text->bytes, text->size);
    }
    put_ext(&at, text->size, EXT_SURROGATES);
    memcpy(at, text->bytes, text->size);
    return at + text->size;
}

static inline char *write_bytes(char *at, const void *bytes, size_t size)
{
    if (size > 0) { /* an empty run may come as a NULL pointer */
        memcpy(at, bytes, size);
    }
    return at + size;
}

static inline char *write_id(char *at, uint64_t id)
{
    put_bin(&at, SPAN_ID_SIZE);
    compat_store_big_endian(at, id);
    return at + SPAN_ID_SIZE;
}

/* More bytes than the record has without its attributes. */
static size_t size_without_attributes(const Span *span, const Text *name, const Text *message)
{
    return FIXED_MAX + name->size + message->size + span->events.len + span->links.len;
}

/* What stands before the attributes. */
static inline char *write_head(const Span *span, const Text *name, const Text *message, char *at)
{
    put_array(&at, span->kind == SPAN_KIND_INTERNAL ? SPAN_FIELDS - 1 : SPAN_FIELDS);
    put_uint8(&at, RECORD_SPAN);
    put_bin(&at, TRACE_ID_SIZE);
    at = write_bytes(at, span->trace->id, TRACE_ID_SIZE);
    at = write_id(at, span->id);
    if (span->parent_id) {
        at = write_id(at, span->parent_id);
    }
    else {
        put_nil(&at);
    }
    at = write_text(at, name);
    put_uint64(&at, span->start_ns);
    put_uint64(&at, span->end_ns);
    put_uint8(&at, span->status);
    at = write_text(at, message);
    put_map(&at, span->attributes.count);
    return at;
}

/* What stands behind the attributes. */
static inline char *write_tail(const Span *span, char *at)
{
    put_array(&at, span->event_count);
    at = write_bytes(at, span->events.data, span->events.len);
    put_array(&at, span->link_count);
    at = write_bytes(at, span->links.data, span->links.len);
    if (UNLIKELY(span->kind != SPAN_KIND_INTERNAL)) {
        put_uint8(&at, span->kind);
    }
    return at;
}

/* ---- putting it into the rings ---- */

/* Writes the record where it stays, in the ring; false where it cannot stand in one piece there. */
static bool put_in_place(Span *span, const Text *name, const Text *message)
{
    const Attributes *a = &span->attributes;
    size_t size = size_without_attributes(span, name, message) + a->values.len;
    char *place = trace_record_place(span->trace, size);
    if (UNLIKELY(place == NULL)) {
        return false;
    }
    char *at = write_head(span, name, message, place);
    at = attributes_write(a, at);
    at = write_tail(span, at);
    trace_record_written(span->trace, (size_t)(at - place));
    return true;
}

/* Copies the record into the rings. */
static PutResult put_copy(Span *span, const Text *name, const Text *message, Buffer *out)
{
    const Attributes *a = &span->attributes;
    if (!buffer_reserve(out, size_without_attributes(span, name, message) + a->values.len)) {
        return PUT_FAILED_RECORD;
    }
    char *at = write_head(span, name, message, out->data);
    at = attributes_write(a, at);
    out->len = (size_t)(write_tail(span, at) - out->data);
    return trace_put_span(span->trace, out);
}

/* Copies a record of large attributes into the rings: it is made where these lie, in the span's
 * memory, which nobody sees, since no Python code runs before they are as they were. */
static PutResult put_around_attributes(Span *span, const Text *name, const Text *message,
                                       Buffer *around)
{
    Buffer *values = &span->attributes.values;
    attributes_compact(&span->attributes);
    size_t size = values->len, room = size_without_attributes(span, name, message);
    if (!buffer_reserve(around, room) || !buffer_reserve(values, room)) {
        values->failed = values->too_large = false;
        return PUT_FAILED_RECORD;
    }
    size_t before = (size_t)(write_head(span, name, message, around->data) - around->data);
    memmove(values->data + before, values->data, size);
    memcpy(values->data, around->data, before);
    values->len = (size_t)(write_tail(span, values->data + before + size) - values->data);
    PutResult result = trace_put_span(span->trace, values);
    memmove(values->data, values->data + before, size);
    values->len = size;
    return result;
}

static PutResult put_by_scratch(Span *span, const Text *name, const Text *message)
{
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        return PUT_FAILED_RECORD;
    }
    PutResult result = span->attributes.values.len <= BUFFER_LARGE
                           ? put_copy(span, name, message, out)
                           : put_around_attributes(span, name, message, out);
    scratch_release(span->state, out);
    return result;
}

PutResult span_put_record(Span *span)
{
    PutResult result = PUT_FAILED_RECORD;
    PyObject *name_str = span->name, *message_str = span->status_message;
    Text name = {0}, message = {0};

    Py_INCREF(name_str);
    Py_XINCREF(message_str);
    if (LIKELY(read_text(name_str, &name) && read_text(message_str, &message))) {
        result = LIKELY(put_in_place(span, &name, &message))
                     ? PUT_DONE
                     : put_by_scratch(span, &name, &message);
    }
    Py_XDECREF(name.surrogates);
    Py_XDECREF(message.surrogates);
    Py_DECREF(name_str);
    Py_XDECREF(message_str);
    return result;
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
