/* span.c: the object that a traced program holds, and the making of its record.
 *
 * A span owns raw bytes only: its attributes and events are encoded when they are set, so that what
 * the program changes afterwards is not seen, and no span ever keeps an object of the program
 * alive. Hence it has no references that could form a cycle, is not tracked by the garbage
 * collector, and its dealloc frees memory and nothing else. A span that is dropped without being
 * ended is not recorded.
 *
 * Encoding runs Python code (hooks), so other threads can run in the middle of it. Values are
 * therefore encoded into a scratch buffer and only then appended to the span, in one go, under the
 * GIL: two threads may set attributes of one span at the same time. */
#include "span.h"

#include "context.h"
#include "decode.h"
#include "ids.h"
#include "ring.h"

#include <stdio.h>

/* ---- attributes ---- */

/* Encoded by hand: a name of n < 32 bytes is the byte 0xa0 + n, then the name. */
static const char *const known_names[KNOWN_KEYS] = {
    [KEY_TRACE_ID] = "\xb5mlflow.traceRequestId",
    [KEY_TYPE] = "\xafmlflow.spanType",
    [KEY_FUNCTION] = "\xb7mlflow.spanFunctionName",
    [KEY_INPUTS] = "\xb1" ATTR_INPUTS,
    [KEY_OUTPUTS] = "\xb2" ATTR_OUTPUTS,
    [KEY_LOG_LEVEL] = "\xb3mlflow.spanLogLevel",
    [KEY_DESCRIPTION] = "\xb6mlflow.spanDescription",
};

/* Constant once the module is loaded. */
static Key known_keys[KNOWN_KEYS];

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

static Attribute *attributes_find(const Attributes *a, Key key)
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

static bool entries_reserve(Attributes *a, Attribute *inline_entries, uint32_t extra)
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
    Attribute *old = attributes_find(a, key);
    if (old != NULL) {
        a->has_holes = true;
        memmove(old, old + 1, (size_t)(a->entries + a->count - old - 1) * sizeof *old);
        a->count--;
    }
    if (!entries_reserve(a, inline_entries, 1) ||
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

bool span_add_prepared(Span *span, const Attributes *prepared)
{
    Attributes *a = &span->attributes;
    uint32_t base = (uint32_t)a->values.len;
    if (!entries_reserve(a, span->inline_entries, prepared->count) ||
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

static Reader attribute_value(const Attributes *a, const Attribute *entry)
{
    return reader_over(a->values.data + entry->start + entry->key_size, entry->value_size);
}

/* An attribute's value, to be read; false when it is not set. */
static bool span_find(const Span *span, KnownKey key, Reader *value)
{
    const Attribute *entry = attributes_find(&span->attributes, known_keys[key]);
    if (entry == NULL) {
        return false;
    }
    *value = attribute_value(&span->attributes, entry);
    return true;
}

/* ---- start and end ---- */

Span *span_start(CoreState *state, PyObject *name, Span *parent)
{
    Trace *trace;
    if (parent != NULL) {
        trace = parent->trace;
        Py_INCREF(trace);
    }
    else {
        trace = trace_new(state, name);
        if (trace == NULL) {
            return NULL;
        }
    }
    Span *span = PyObject_New(Span, state->span_type);
    if (span == NULL) {
        swallow_exception();
        Py_DECREF(trace);
        return NULL;
    }
    memset((char *)span + offsetof(Span, state), 0, sizeof *span - offsetof(Span, state));
    span->state = state;
    span->trace = trace;
    span->id = ids_next();
    span->parent_id = parent ? parent->id : 0;
    span->start_ns = clock_ns(); /* now: the first root makes the runtime start */
    if (parent == NULL) {
        trace->root_start_ns = span->start_ns;
    }
    Py_INCREF(name);
    span->name = name;
    span->attributes.entries = span->inline_entries;
    span->attributes.room = INLINE_ATTRIBUTES;
    trace->open_spans++;

    char value_bytes[TRACE_ID_TEXT_SIZE + 2];
    Buffer value = {.data = value_bytes, .cap = sizeof value_bytes};
    encode_text(&value, trace->id_text, TRACE_ID_TEXT_SIZE);
    span_set_encoded(span, KEY_TRACE_ID, value.data, value.len);
    return span;
}

/* DEBUG unless the type is one that users look for; see MLflow's default_log_level. */
static int default_log_level(const Span *span)
{
    static const char *const info_types[] = {"LLM",       "CHAT_MODEL", "TOOL",
                                             "RETRIEVER", "AGENT",      "EMBEDDING"};
    Reader value;
    if (span_find(span, KEY_TYPE, &value)) {
        Token type = reader_next(&value);
        for (size_t i = 0; type.kind == TOKEN_STR && i < sizeof info_types / sizeof *info_types;
             i++) {
            if (strlen(info_types[i]) == type.size &&
                memcmp(info_types[i], type.bytes, type.size) == 0) {
                return 20;
            }
        }
    }
    return 10;
}

static void encode_span_id(Buffer *out, uint64_t id)
{
    unsigned char bytes[SPAN_ID_SIZE];
    for (int i = 0; i < SPAN_ID_SIZE; i++) {
        bytes[i] = (unsigned char)(id >> 8 * (SPAN_ID_SIZE - 1 - i));
    }
    wire_pack_bin(out, sizeof bytes);
    buffer_append(out, bytes, sizeof bytes);
}

static void encode_span(const Span *span, Buffer *out)
{
    const Attributes *a = &span->attributes;

    wire_pack_array(out, SPAN_FIELDS);
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
    encode_str(out, span->name);
    wire_pack_uint64(out, span->start_ns);
    wire_pack_uint64(out, span->end_ns);
    wire_pack_uint8(out, span->status);
    if (span->status_message != NULL) {
        encode_str(out, span->status_message);
    }
    else {
        wire_pack_str(out, 0);
    }
    wire_pack_map(out, a->count);
    if (!a->has_holes) {
        buffer_append(out, a->values.data, a->values.len);
    }
    else {
        for (uint32_t i = 0; i < a->count; i++) {
            const Attribute *entry = &a->entries[i];
            buffer_append(out, a->values.data + entry->start,
                          (size_t)entry->key_size + entry->value_size);
        }
    }
    wire_pack_array(out, span->event_count);
    buffer_append(out, span->events.data, span->events.len);
    wire_pack_array(out, 0);
}

static void set_last_trace_id(CoreState *state, Trace *trace)
{
    PyObject *id = trace_id_str(trace);
    if (id == NULL) {
        swallow_exception();
        return;
    }
    PyObject *token = PyObject_CallFunctionObjArgs(state->last_trace_id_set, id, NULL);
    set_owned(&state->last_trace_id, id);
    if (token == NULL) {
        swallow_exception();
    }
    Py_XDECREF(token);
}

void span_end(Span *span, uint64_t end_ns)
{
    if (UNLIKELY(span->end_ns != 0)) {
        return;
    }
    if (end_ns == 0) {
        end_ns = clock_ns();
        if (UNLIKELY(end_ns < span->start_ns)) {
            end_ns = span->start_ns; /* the clock was set back */
        }
    }
    CoreState *state = span->state;
    Trace *trace = span->trace;
    Reader level;
    if (span->status != 2) {
        span->status = 1;
    }
    if (!span_find(span, KEY_LOG_LEVEL, &level)) {
        char value = (char)default_log_level(span);
        span_set_encoded(span, KEY_LOG_LEVEL, &value, 1);
    }
    span->end_ns = end_ns;

    bool is_root = span->parent_id == 0;
    if (is_root) {
        trace->root_ended = true;
        trace->root_end_ns = end_ns > span->start_ns ? end_ns : span->start_ns;
        if (trace->state == STATE_UNSPECIFIED) {
            trace->state = span->status == 2 ? STATE_ERROR : STATE_OK;
        }
    }
    Buffer *out = scratch_acquire(state);
    if (out != NULL) {
        encode_span(span, out);
        trace_span_ended(state, trace, out, is_root);
        scratch_release(state, out);
    }
    if (is_root) {
        set_last_trace_id(state, trace);
    }
}

static void span_dealloc(Span *span)
{
    PyTypeObject *type = Py_TYPE(span);
    if (span->end_ns == 0 && span->trace->open_spans > 0) {
        span->trace->open_spans--; /* nobody can end it any more */
    }
    attributes_free(&span->attributes, span->inline_entries);
    buffer_free(&span->events);
    Py_XDECREF((PyObject *)span->trace);
    Py_XDECREF(span->name);
    Py_XDECREF(span->status_message);
    Py_XDECREF(span->token);
    Py_XDECREF((PyObject *)span->outer);
    PyObject_Free(span);
    Py_DECREF(type);
}

/* ---- exceptions and events ---- */

static void event_head(Buffer *out, const char *name, size_t size, uint64_t time_ns)
{
    wire_pack_array(out, 3);
    encode_text(out, name, size);
    wire_pack_uint64(out, time_ns);
}

static void span_append_event(Span *span, const Buffer *event)
{
    if (event->failed || span->end_ns != 0) {
        return;
    }
    buffer_append(&span->events, event->data, event->len);
    if (span->events.failed) {
        span->events.failed = false;
        return;
    }
    span->event_count++;
}

static int stored_log_level(const Span *span)
{
    Reader value;
    if (span_find(span, KEY_LOG_LEVEL, &value)) {
        Token level = reader_next(&value);
        if (level.kind == TOKEN_UINT && level.u < 1000) {
            return (int)level.u;
        }
    }
    return -1;
}

/* A span with an exception event is at least of level ERROR. */
static void raise_log_level(Span *span)
{
    if (stored_log_level(span) < 40) {
        char level = 40;
        span_set_encoded(span, KEY_LOG_LEVEL, &level, 1);
    }
}

void span_add_item(Span *span, uint32_t index, const char *item, size_t size)
{
    char name[48];
    int n = snprintf(name, sizeof name, "mlflow.chunk.item.%u", index);
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        return;
    }
    event_head(out, name, (size_t)n, clock_ns());
    wire_pack_map(out, 1);
    encode_text(out, SIZED("mlflow.chunk.value"));
    wire_pack_ext(out, size, EXT_JSON_TEXT);
    buffer_append(out, item, size);
    span_append_event(span, out);
    scratch_release(span->state, out);
}

static void set_status(Span *span, int status, PyObject *message)
{
    if (span->end_ns != 0 || span->status == 1 || status == 0) {
        return; /* OpenTelemetry: OK is final, UNSET changes nothing */
    }
    span->status = (unsigned char)status;
    if (status != 2 || message == NULL || !PyUnicode_Check(message) ||
        PyUnicode_GetLength(message) == 0) {
        message = NULL;
    }
    Py_XINCREF(message);
    set_owned(&span->status_message, message);
}

void span_record_exception(Span *span, PyObject *exception, bool with_message)
{
    CoreState *state = span->state;
    uint64_t now = clock_ns();
    PyObject *parts = PyObject_CallFunctionObjArgs(state->format_exception, exception, NULL);
    PyObject *message, *type_name, *stack_trace, *description;

    if (parts == NULL ||
        !PyArg_ParseTuple(parts, "UUUU", &message, &type_name, &stack_trace, &description)) {
        swallow_exception();
        Py_XDECREF(parts);
        set_status(span, 2, NULL);
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out != NULL) {
        event_head(out, SIZED("exception"), now);
        wire_pack_map(out, 3);
        encode_text(out, SIZED("exception.message"));
        encode_str(out, message);
        encode_text(out, SIZED("exception.type"));
        encode_str(out, type_name);
        encode_text(out, SIZED("exception.stacktrace"));
        encode_str(out, stack_trace);
        span_append_event(span, out);
        scratch_release(state, out);
        raise_log_level(span);
    }
    set_status(span, 2, with_message ? description : NULL);
    Py_DECREF(parts);
}

void span_record_pending(Span *span)
{
    PyObject *type, *value, *traceback;
    take_exception(&type, &value, &traceback);
    if (value != NULL && PyErr_GivenExceptionMatches(type, PyExc_Exception)) {
        span_record_exception(span, value, true);
    }
    PyErr_Restore(type, value, traceback);
}

void span_default_outputs(Span *span, PyObject *result)
{
    Reader value;
    if (span_find(span, KEY_OUTPUTS, &value) && reader_next(&value).kind != TOKEN_NIL) {
        return;
    }
    span_set(span, KEY_OUTPUTS, result);
}

/* ---- the Python object ---- */

/* The arguments of a method that takes `count` required ones, by position or by name. */
static bool take_arguments(const char *function, const char *const *names, Py_ssize_t count,
                           PyObject *const *args, Py_ssize_t given, PyObject *keywords,
                           PyObject **values)
{
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        values[i] = i < given ? args[i] : NULL;
    }
    bool fits = given + named == count;
    for (Py_ssize_t k = 0; fits && k < named; k++) {
        Py_ssize_t i = given;
        while (i < count &&
               PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, k), names[i]) != 0) {
            i++;
        }
        fits = i < count && values[i] == NULL;
        if (fits) {
            values[i] = args[given + k];
        }
    }
    if (!fits) {
        PyErr_Format(PyExc_TypeError,
                     count == 1 ? "%s() takes one argument, '%s'"
                                : "%s() takes two arguments, '%s' and '%s'",
                     function, names[0], names[count - 1]);
    }
    return fits;
}

/* A method of one argument that may be given by name. */
#define ONE_ARGUMENT(function, argument)                                                           \
    static PyObject *method_##function(Span *span, PyObject *const *args, Py_ssize_t given,        \
                                       PyObject *keywords)                                         \
    {                                                                                              \
        static const char *const names[] = {argument};                                             \
        PyObject *value;                                                                           \
        if (!take_arguments(#function, names, 1, args, given, keywords, &value)) {                 \
            return NULL;                                                                           \
        }                                                                                          \
        return span_##function(span, value);                                                       \
    }

static void set_attribute(Span *span, PyObject *key, PyObject *value)
{
    CoreState *state = span->state;
    if (!PyUnicode_Check(key)) {
        warn(state, "An attribute's key must be a string; this attribute is not recorded.");
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

static PyObject *span_set_inputs(Span *span, PyObject *value)
{
    span_set(span, KEY_INPUTS, value);
    Py_RETURN_NONE;
}

static PyObject *span_set_outputs(Span *span, PyObject *value)
{
    span_set(span, KEY_OUTPUTS, value);
    Py_RETURN_NONE;
}

static PyObject *span_set_span_type(Span *span, PyObject *value)
{
    span_set(span, KEY_TYPE, value);
    Py_RETURN_NONE;
}

static PyObject *span_set_description(Span *span, PyObject *value)
{
    span_set(span, KEY_DESCRIPTION, value);
    Py_RETURN_NONE;
}

static PyObject *method_set_attribute(Span *span, PyObject *const *args, Py_ssize_t given,
                                      PyObject *keywords)
{
    static const char *const names[] = {"key", "value"};
    PyObject *values[2];
    if (!take_arguments("set_attribute", names, 2, args, given, keywords, values)) {
        return NULL;
    }
    set_attribute(span, values[0], values[1]);
    Py_RETURN_NONE;
}

static void set_attributes(Span *span, PyObject *attributes)
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
        set_attribute(span, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1));
    }
    Py_DECREF(items);
}

static PyObject *span_set_attributes(Span *span, PyObject *attributes)
{
    set_attributes(span, attributes);
    Py_RETURN_NONE;
}

/* A status as the program gives it: "OK", a SpanStatusCode (a str too), or a SpanStatus. */
static int apply_status(Span *span, PyObject *status)
{
    PyObject *code = NULL, *message = NULL;
    int result = -1;

    if (PyUnicode_Check(status)) {
        Py_INCREF(status);
        code = status;
    }
    else {
        code = PyObject_GetAttrString(status, "status_code");
        if (code == NULL) {
            goto done;
        }
        message = PyObject_GetAttrString(status, "description");
        if (message == NULL) {
            PyErr_Clear();
        }
    }
    static const char *const names[] = {"UNSET", "OK", "ERROR"};
    for (int i = 0; PyUnicode_Check(code) && i < 3; i++) {
        if (PyUnicode_CompareWithASCIIString(code, names[i]) == 0) {
            set_status(span, i, message);
            result = 0;
            goto done;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "%R is not a valid span status. Please use one of 'UNSET', 'OK', 'ERROR'.", code);
done:
    Py_XDECREF(code);
    Py_XDECREF(message);
    return result;
}

static PyObject *span_set_status(Span *span, PyObject *status)
{
    if (apply_status(span, status) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* add_event(event): a SpanEvent, or anything with name, timestamp (ns) and attributes. */
static PyObject *span_add_event(Span *span, PyObject *event)
{
    CoreState *state = span->state;
    PyObject *name = NULL, *time = NULL, *attributes = NULL, *result = NULL;
    Buffer *out = NULL;

    name = PyObject_GetAttrString(event, "name");
    time = name ? PyObject_GetAttrString(event, "timestamp") : NULL;
    attributes = time ? PyObject_GetAttrString(event, "attributes") : NULL;
    if (attributes == NULL) {
        goto done;
    }
    uint64_t time_ns = PyLong_Check(time) ? PyLong_AsUnsignedLongLong(time) : clock_ns();
    if (PyErr_Occurred()) {
        PyErr_Clear();
        time_ns = clock_ns();
    }
    out = scratch_acquire(state);
    if (out == NULL) {
        result = Py_None;
        goto done;
    }
    wire_pack_array(out, 3);
    if (PyUnicode_Check(name)) {
        encode_str(out, name);
    }
    else {
        encode_text(out, "event", 5);
    }
    wire_pack_uint64(out, time_ns);
    if (!PyDict_Check(attributes) || encode_try(state, out, attributes) != ENCODED) {
        wire_pack_map(out, 0);
    }
    span_append_event(span, out);
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "exception") == 0) {
        raise_log_level(span);
    }
    result = Py_None;
done:
    if (out != NULL) {
        scratch_release(state, out);
    }
    Py_XDECREF(name);
    Py_XDECREF(time);
    Py_XDECREF(attributes);
    Py_XINCREF(result);
    return result;
}

static PyObject *span_add_exception(Span *span, PyObject *exception)
{
    PyObject *made = NULL;
    if (PyUnicode_Check(exception)) {
        made = PyObject_CallFunctionObjArgs(PyExc_Exception, exception, NULL);
        if (made == NULL) {
            return NULL;
        }
        exception = made;
    }
    if (!PyErr_GivenExceptionMatches(exception, PyExc_Exception) || PyType_Check(exception)) {
        PyErr_SetString(PyExc_ValueError,
                        "The `exception` parameter must be an Exception instance or a string.");
        Py_XDECREF(made);
        return NULL;
    }
    span_record_exception(span, exception, true);
    Py_XDECREF(made);
    Py_RETURN_NONE;
}

static PyObject *span_py_end(Span *span, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"outputs", "attributes", "status", "end_time_ns", NULL};
    PyObject *outputs = Py_None, *attributes = Py_None, *status = Py_None, *time = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOOO:end", names, &outputs, &attributes,
                                     &status, &time)) {
        return NULL;
    }
    if (span->end_ns != 0) {
        Py_RETURN_NONE;
    }
    if (attributes != Py_None) {
        set_attributes(span, attributes);
    }
    if (outputs != Py_None) {
        span_set(span, KEY_OUTPUTS, outputs);
    }
    if (status != Py_None && apply_status(span, status) < 0) {
        PyErr_Clear();
        warn(span->state, "A span was ended with a status that is none of OK, ERROR and UNSET.");
    }
    uint64_t end_ns = 0;
    if (time != Py_None) {
        end_ns = PyLong_AsUnsignedLongLong(time);
        if (PyErr_Occurred()) {
            PyErr_Clear();
            end_ns = 0;
        }
    }
    span_end(span, end_ns);
    Py_RETURN_NONE;
}

static PyObject *span_get_attribute(Span *span, PyObject *key)
{
    if (!PyUnicode_Check(key)) {
        Py_RETURN_NONE;
    }
    Buffer encoded = {0};
    PyObject *result = NULL;
    encode_str(&encoded, key);
    Attribute *entry = encoded.failed
                           ? NULL
                           : attributes_find(&span->attributes, key_of(encoded.data, encoded.len));
    if (entry == NULL) {
        result = Py_None;
        Py_INCREF(result);
    }
    else {
        Reader value = attribute_value(&span->attributes, entry);
        result = decode_value(&value);
    }
    buffer_free(&encoded);
    return result;
}

static PyObject *known_attribute(Span *span, KnownKey key)
{
    Reader value;
    if (!span_find(span, key, &value)) {
        Py_RETURN_NONE;
    }
    return decode_value(&value);
}

static PyObject *span_get_inputs(Span *span, void *unused)
{
    (void)unused;
    return known_attribute(span, KEY_INPUTS);
}

static PyObject *span_get_outputs(Span *span, void *unused)
{
    (void)unused;
    return known_attribute(span, KEY_OUTPUTS);
}

static PyObject *span_get_span_type(Span *span, void *unused)
{
    (void)unused;
    return known_attribute(span, KEY_TYPE);
}

static PyObject *span_get_description(Span *span, void *unused)
{
    (void)unused;
    return known_attribute(span, KEY_DESCRIPTION);
}

static PyObject *span_get_attributes(Span *span, void *unused)
{
    (void)unused;
    const Attributes *a = &span->attributes;
    PyObject *result = PyDict_New();
    for (uint32_t i = 0; result != NULL && i < a->count; i++) {
        const Attribute *entry = &a->entries[i];
        Reader r =
            reader_over(a->values.data + entry->start, (size_t)entry->key_size + entry->value_size);
        PyObject *key = decode_value(&r);
        PyObject *value = key ? decode_value(&r) : NULL;
        if (value == NULL || PyDict_SetItem(result, key, value) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return result;
}

/* [(name, time in ns, attributes)]: the thin package makes SpanEvents of them. */
static PyObject *span_get_event_tuples(Span *span, void *unused)
{
    (void)unused;
    PyObject *result = PyList_New(0);
    Reader r = reader_over(span->events.data, span->events.len);
    for (uint32_t i = 0; result != NULL && i < span->event_count; i++) {
        PyObject *event = decode_value(&r);
        if (event == NULL || PyList_Append(result, event) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(event);
    }
    return result;
}

static PyObject *span_get_trace_id(Span *span, void *unused)
{
    (void)unused;
    return trace_id_str(span->trace);
}

static PyObject *id_text(uint64_t id)
{
    char hex[16];
    span_id_hex(hex, id);
    return PyUnicode_DecodeUTF8(hex, sizeof hex, NULL);
}

static PyObject *span_get_span_id(Span *span, void *unused)
{
    (void)unused;
    return id_text(span->id);
}

static PyObject *span_get_parent_id(Span *span, void *unused)
{
    (void)unused;
    if (span->parent_id == 0) {
        Py_RETURN_NONE;
    }
    return id_text(span->parent_id);
}

static PyObject *span_get_name(Span *span, void *unused)
{
    (void)unused;
    Py_INCREF(span->name);
    return span->name;
}

static PyObject *span_get_start(Span *span, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(span->start_ns);
}

static PyObject *span_get_end(Span *span, void *unused)
{
    (void)unused;
    if (span->end_ns == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(span->end_ns);
}

/* (code, message): the thin package makes a SpanStatus of it. */
static PyObject *span_get_status_pair(Span *span, void *unused)
{
    (void)unused;
    static const char *const names[] = {"UNSET", "OK", "ERROR"};
    if (span->status_message == NULL) {
        return Py_BuildValue("(ss)", names[span->status], "");
    }
    return Py_BuildValue("(sO)", names[span->status], span->status_message);
}

/* What MLflow's entities are needed for is asked of the thin package, by name. */
static PyObject *from_view(Span *span, const char *function)
{
    PyObject *view = PyImport_ImportModule("mlflow_fasttrace._view");
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(view, function, "O", (PyObject *)span);
    Py_DECREF(view);
    return result;
}

/* A SpanLogLevel or its name; what is neither is MLflow's exception. */
static PyObject *span_set_log_level(Span *span, PyObject *level)
{
    PyObject *fluent = PyImport_ImportModule("mlflow_fasttrace.fluent");
    PyObject *number = fluent ? PyObject_CallMethod(fluent, "log_level_number", "O", level) : NULL;
    Py_XDECREF(fluent);
    if (number == NULL) {
        return NULL;
    }
    span_set(span, KEY_LOG_LEVEL, number);
    Py_DECREF(number);
    Py_RETURN_NONE;
}

static PyObject *span_get_status(Span *span, void *unused)
{
    (void)unused;
    return from_view(span, "status");
}

static PyObject *span_get_events(Span *span, void *unused)
{
    (void)unused;
    return from_view(span, "events");
}

static PyObject *span_get_log_level(Span *span, void *unused)
{
    (void)unused;
    return from_view(span, "log_level");
}

/* isinstance(span, LiveSpan) holds once MLflow is loaded; this never loads it. */
static PyObject *span_get_class(Span *span, void *unused)
{
    (void)unused;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *module = modules ? PyDict_GetItemString(modules, "mlflow.entities.span") : NULL;
    PyObject *live = module ? PyObject_GetAttrString(module, "LiveSpan") : NULL;
    if (live == NULL) {
        PyErr_Clear();
        live = (PyObject *)Py_TYPE(span);
        Py_INCREF(live);
    }
    return live;
}

static PyObject *span_repr(Span *span)
{
    PyObject *trace_id = trace_id_str(span->trace), *span_id = id_text(span->id);
    PyObject *parent_id = span_get_parent_id(span, NULL), *result = NULL;
    if (trace_id != NULL && span_id != NULL && parent_id != NULL) {
        result = PyUnicode_FromFormat("LiveSpan(name=%R, trace_id=%R, span_id=%R, parent_id=%R)",
                                      span->name, trace_id, span_id, parent_id);
    }
    Py_XDECREF(trace_id);
    Py_XDECREF(span_id);
    Py_XDECREF(parent_id);
    return result;
}

/* update_trace(tags, metadata, request_preview, response_preview, state, client_request_id):
 * None leaves a thing as it is; the thin package has checked the types. */
static PyObject *span_update_trace(Span *span, PyObject *args)
{
    PyObject *tags, *metadata, *request, *response, *client_id;
    int trace_state;
    if (!PyArg_ParseTuple(args, "OOOOiO:update_trace", &tags, &metadata, &request, &response,
                          &trace_state, &client_id)) {
        return NULL;
    }
    Trace *trace = span->trace;
    if (tags != Py_None) {
        if (trace->tags == NULL) {
            trace->tags = Py_BuildValue("{sO}", "mlflow.traceName", trace->root_name);
        }
        if (trace->tags == NULL || PyDict_Update(trace->tags, tags) < 0) {
            return NULL;
        }
    }
    if (metadata != Py_None) {
        if (trace->metadata == NULL) {
            trace->metadata = PyDict_New();
        }
        if (trace->metadata == NULL || PyDict_Update(trace->metadata, metadata) < 0) {
            return NULL;
        }
    }
    PyObject **slots[] = {&trace->request_preview, &trace->response_preview,
                          &trace->client_request_id};
    PyObject *values[] = {request, response, client_id};
    for (int i = 0; i < 3; i++) {
        if (values[i] != Py_None) {
            Py_INCREF(values[i]);
            set_owned(slots[i], values[i]);
        }
    }
    if (trace_state == STATE_OK || trace_state == STATE_ERROR) {
        trace->state = (unsigned char)trace_state;
    }
    Py_RETURN_NONE;
}

ONE_ARGUMENT(set_inputs, "inputs")
ONE_ARGUMENT(set_outputs, "outputs")
ONE_ARGUMENT(set_attributes, "attributes")
ONE_ARGUMENT(set_span_type, "span_type")
ONE_ARGUMENT(set_description, "description")
ONE_ARGUMENT(set_log_level, "level")
ONE_ARGUMENT(set_status, "status")
ONE_ARGUMENT(add_event, "event")
ONE_ARGUMENT(add_exception, "exception")
ONE_ARGUMENT(get_attribute, "key")

#define METHOD(function)                                                                           \
    (PyCFunction)(void (*)(void)) method_##function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef span_methods[] = {
    {"set_inputs", METHOD(set_inputs), "Set the input values of the span."},
    {"set_outputs", METHOD(set_outputs), "Set the output values of the span."},
    {"set_attribute", METHOD(set_attribute),
     "set_attribute(key, value)\n\nSet one attribute; the value is copied now."},
    {"set_attributes", METHOD(set_attributes), "Set the attributes of a dictionary."},
    {"set_span_type", METHOD(set_span_type), "Set the type of the span."},
    {"set_description", METHOD(set_description), "Set the description of the span."},
    {"set_log_level", METHOD(set_log_level), "Set the severity: a SpanLogLevel or its name."},
    {"set_status", METHOD(set_status), "Set the status: 'OK', 'ERROR', or a SpanStatus."},
    {"add_event", METHOD(add_event), "Add a SpanEvent."},
    {"record_exception", METHOD(add_exception),
     "Add an exception event and set the status to ERROR."},
    {"get_attribute", METHOD(get_attribute), "The value of an attribute, or None."},
    {"end", (PyCFunction)(void (*)(void))span_py_end, METH_VARARGS | METH_KEYWORDS,
     "end(outputs=None, attributes=None, status=None, end_time_ns=None)\n\nEnd the span."},
    {"_update_trace", (PyCFunction)span_update_trace, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef span_getset[] = {
    {"trace_id", (getter)span_get_trace_id, NULL, "The id of the trace, tr-<32 hex digits>.", NULL},
    {"request_id", (getter)span_get_trace_id, NULL, "Deprecated. Use trace_id instead.", NULL},
    {"span_id", (getter)span_get_span_id, NULL, "The id of the span, 16 hex digits.", NULL},
    {"parent_id", (getter)span_get_parent_id, NULL, "The parent's id, None for a root.", NULL},
    {"name", (getter)span_get_name, NULL, "The name of the span.", NULL},
    {"start_time_ns", (getter)span_get_start, NULL, "Nanoseconds since the Unix epoch.", NULL},
    {"end_time_ns", (getter)span_get_end, NULL, "Nanoseconds; None while it is open.", NULL},
    {"inputs", (getter)span_get_inputs, NULL, "The input values.", NULL},
    {"outputs", (getter)span_get_outputs, NULL, "The output values.", NULL},
    {"span_type", (getter)span_get_span_type, NULL, "The type of the span.", NULL},
    {"description", (getter)span_get_description, NULL, "The description, or None.", NULL},
    {"attributes", (getter)span_get_attributes, NULL, "All attributes.", NULL},
    {"status", (getter)span_get_status, NULL, "The status, a mlflow.entities.SpanStatus.", NULL},
    {"events", (getter)span_get_events, NULL, "The events, mlflow.entities.SpanEvents.", NULL},
    {"log_level", (getter)span_get_log_level, NULL, "The SpanLogLevel, or None.", NULL},
    {"_status_pair", (getter)span_get_status_pair, NULL, NULL, NULL},
    {"_event_tuples", (getter)span_get_event_tuples, NULL, NULL, NULL},
    {"__class__", (getter)span_get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot span_slots[] = {
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_repr, span_repr},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {Py_tp_doc, "A span that is being recorded. Made by start_span and @trace."},
    {0, NULL},
};

static PyType_Spec span_spec = {
    .name = "mlflow_fasttrace._core.LiveSpan",
    .basicsize = sizeof(Span),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};

/* ---- SpanScope: what start_span() returns ---- */

typedef struct {
    PyObject_HEAD PyObject *name;
    PyObject *span_type;
    PyObject *attributes;
    PyObject *description;
    PyObject *log_level;
    PyObject *no_op; /* yielded where the span cannot be recorded */
    Span *span;
} SpanScope;

static PyObject *scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *name, *span_type, *attributes, *description, *log_level, *no_op;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "SpanScope takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "UOOOOO:SpanScope", &name, &span_type, &attributes, &description,
                          &log_level, &no_op)) {
        return NULL;
    }
    SpanScope *scope = PyObject_New(SpanScope, type);
    if (scope == NULL) {
        return NULL;
    }
    PyObject *values[] = {name, span_type, attributes, description, log_level, no_op};
    PyObject **slots[] = {&scope->name,        &scope->span_type, &scope->attributes,
                          &scope->description, &scope->log_level, &scope->no_op};
    for (int i = 0; i < 6; i++) {
        Py_INCREF(values[i]);
        *slots[i] = values[i];
    }
    scope->span = NULL;
    return (PyObject *)scope;
}

static void scope_dealloc(SpanScope *scope)
{
    PyTypeObject *type = Py_TYPE(scope);
    Py_DECREF(scope->name);
    Py_DECREF(scope->span_type);
    Py_DECREF(scope->attributes);
    Py_DECREF(scope->description);
    Py_DECREF(scope->log_level);
    Py_DECREF(scope->no_op);
    Py_XDECREF((PyObject *)scope->span);
    PyObject_Free(scope);
    Py_DECREF(type);
}

static PyObject *scope_enter(SpanScope *scope, PyObject *unused)
{
    (void)unused;
    CoreState *state = state_of((PyObject *)scope);
    if (scope->span != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this span has been started already");
        return NULL;
    }
    Span *parent;
    int known = context_current(state, &parent);
    Span *span = known == 0 ? span_start(state, scope->name, parent) : NULL;
    if (span == NULL) {
        Py_XDECREF((PyObject *)parent);
        Py_INCREF(scope->no_op);
        return scope->no_op;
    }
    span->outer = parent;
    span_set(span, KEY_TYPE, scope->span_type);
    if (scope->attributes != Py_None) {
        set_attributes(span, scope->attributes);
    }
    if (scope->description != Py_None) {
        span_set(span, KEY_DESCRIPTION, scope->description);
    }
    if (scope->log_level != Py_None) {
        span_set(span, KEY_LOG_LEVEL, scope->log_level);
    }
    span_activate(span);
    scope->span = span;
    Py_INCREF(span);
    return (PyObject *)span;
}

static PyObject *scope_exit(SpanScope *scope, PyObject *args)
{
    PyObject *type, *value, *traceback;
    if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &traceback)) {
        return NULL;
    }
    Span *span = scope->span;
    if (span != NULL) {
        scope->span = NULL;
        span_deactivate(span);
        if (value != Py_None && PyErr_GivenExceptionMatches(value, PyExc_Exception)) {
            span_record_exception(span, value, true);
        }
        span_end(span, 0);
        Py_DECREF(span);
    }
    Py_RETURN_FALSE;
}

static PyMethodDef scope_methods[] = {
    {"__enter__", (PyCFunction)scope_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)scope_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_new, scope_new},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_methods, scope_methods},
    {Py_tp_doc, "The context manager that start_span() returns."},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "mlflow_fasttrace._core.SpanScope",
    .basicsize = sizeof(SpanScope),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = scope_slots,
};

int span_add_types(PyObject *module, CoreState *state)
{
    for (int i = 0; i < KNOWN_KEYS; i++) {
        known_keys[i] = key_of(known_names[i], strlen(known_names[i]));
    }
    if (state_add_type(module, &span_spec, &state->span_type, "LiveSpan") < 0) {
        return -1;
    }
    return state_add_type(module, &scope_spec, &state->span_scope_type, "SpanScope");
}
