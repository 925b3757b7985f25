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
#include "ids.h"

#include <stdio.h>

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
        replaced =
            PyObject_CallFunctionObjArgs(state->extract_attachments, (PyObject *)span, value, NULL);
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
    span_encode_payload(span, out, value, state->payload_repr);
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

/* An attribute's value, to be read; false when it is not set. */
bool span_find(const Span *span, KnownKey key, Reader *value)
{
    const Attribute *entry = attributes_find(&span->attributes, known_keys[key]);
    if (entry == NULL) {
        return false;
    }
    *value = attribute_value(&span->attributes, entry);
    return true;
}

/* ---- start and end ---- */

Span *span_start(CoreState *state, PyObject *name, Span *parent, const SpanOptions *options,
                 bool *not_sampled)
{
    Trace *trace;
    *not_sampled = false;
    if (parent != NULL) {
        trace = parent->trace;
        Py_INCREF(trace);
    }
    else {
        trace = trace_new(state, name, options ? &options->root : NULL, not_sampled);
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
    memset((char *)span + sizeof(PyObject), 0, sizeof *span - sizeof(PyObject));
    span->state = state;
    span->trace = trace;
    span->next = trace->spans;
    if (span->next != NULL) {
        span->next->previous = span;
    }
    trace->spans = span;
    span->id = ids_next();
    span->parent_id = parent ? parent->id : 0;
    span->start_ns = clock_ns(); /* now: the first root makes the runtime start */
    if (options != NULL) {
        span->id = options->id ? options->id : span->id;
        span->parent_id = options->parent_id ? options->parent_id : span->parent_id;
        span->start_ns = options->start_ns ? options->start_ns : span->start_ns;
    }
    if (parent == NULL) {
        trace->root_start_ns = span->start_ns;
    }
    else if (UNLIKELY(parent->remote) && trace->root_start_ns == 0) {
        trace->root_start_ns = span->start_ns;
        trace_set_name(trace, name);
    }
    Py_INCREF(name);
    span->name = name;
    span->attributes.entries = span->inline_entries;
    span->attributes.room = INLINE_ATTRIBUTES;
    trace->open_spans++;

    char value_bytes[TRACE_ID_TEXT_SIZE + 2];
    Buffer value = {.data = value_bytes, .cap = sizeof value_bytes};
    if (UNLIKELY(options != NULL) && options->start_ns) {
        wire_pack_uint64(&value, options->start_ns);
        span_set_encoded(span, KEY_START_TIME, value.data, value.len);
        value.len = 0;
    }
    if (UNLIKELY(options != NULL) && options->root.experiment != NULL && parent == NULL) {
        span_set(span, KEY_EXPERIMENT, options->root.experiment);
    }
    encode_text(&value, trace->id_text, TRACE_ID_TEXT_SIZE);
    span_set_encoded(span, KEY_TRACE_ID, value.data, value.len);
    return span;
}

Span *span_remote(CoreState *state, const unsigned char *trace_id, uint64_t id, bool own_info)
{
    char id_text[TRACE_ID_TEXT_SIZE];
    trace_id_text(id_text, trace_id);
    Trace *trace = trace_find(state, id_text, sizeof id_text);
    if (trace != NULL) {
        Py_INCREF((PyObject *)trace);
    }
    else {
        bool not_sampled;
        RootOptions options = {
            .trace_id = trace_id, .has_sampling = true, .sampling_bound = SAMPLE_ALL};
        PyObject *name = PyUnicode_FromStringAndSize("", 0);
        trace = name != NULL ? trace_new(state, name, &options, &not_sampled) : NULL;
        Py_XDECREF(name);
        if (trace == NULL) {
            swallow_exception();
            return NULL;
        }
        trace->remote = !own_info;
        trace->root_ended = !own_info;
        trace->roots_under = own_info ? id : NO_ROOT;
    }
    Span *span = PyObject_New(Span, state->span_type);
    if (span == NULL) {
        swallow_exception();
        Py_DECREF((PyObject *)trace);
        return NULL;
    }
    memset((char *)span + sizeof(PyObject), 0, sizeof *span - sizeof(PyObject));
    span->state = state;
    span->trace = trace;
    span->remote = true;
    span->id = id;
    span->start_ns = span->end_ns = 1; /* it takes nothing, and nobody waits for it */
    span->name = trace->root_name;
    Py_INCREF(span->name);
    span->attributes.entries = span->inline_entries;
    span->attributes.room = INLINE_ATTRIBUTES;
    span->next = trace->spans;
    if (span->next != NULL) {
        span->next->previous = span;
    }
    trace->spans = span;
    return span;
}

/* The span of another library, or one made for it, that the program stands in; NULL where the
 * current one is. */
static Span *parent_outside(CoreState *state, Current *at)
{
    PyObject *found = PyObject_CallFunctionObjArgs(state->external_parent,
                                                   at != NULL ? (PyObject *)at : Py_None, NULL);
    if (found == NULL) {
        swallow_exception();
        return NULL;
    }
    if (!Py_IS_TYPE(found, state->span_type)) {
        Py_DECREF(found);
        return NULL;
    }
    return (Span *)found;
}

Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options)
{
    Current *at, *opened = NULL;
    Span *span, *outer_span = NULL;
    bool not_sampled;

    if (UNLIKELY(state->abandoned != NULL)) {
        span_end_abandoned(state);
    }
    if (UNLIKELY(context_current(state, &at) < 0)) {
        return NULL;
    }
    if (UNLIKELY(state->scoped) && scope_disables(state)) {
        goto done;
    }
    Span *parent = as_span(state, at);
    if (UNLIKELY(at != NULL && parent == NULL)) {
        if (((NonRecordingSpan *)at)->not_sampled || state->disabled) {
            goto done;
        }
        /* Tracing is on again inside a non-recording span: what is around it is the parent. */
        Current *outer = at->outer;
        while (outer != NULL && as_span(state, outer) == NULL) {
            outer = outer->outer;
        }
        parent = as_span(state, outer);
    }
    if (UNLIKELY(state->external_parent != NULL) && !state->disabled) {
        outer_span = parent_outside(state, at);
        parent = outer_span != NULL ? outer_span : parent;
    }
    if (UNLIKELY(state->disabled)) {
        opened = parent != NULL ? non_recording_new(state, false) : NULL;
    }
    else {
        span = span_start(state, name, parent, options, &not_sampled);
        opened = LIKELY(span != NULL) ? &span->current
                 : not_sampled        ? non_recording_new(state, true)
                                      : NULL;
    }
    if (opened != NULL) {
        opened->outer = at;
        at = NULL;
    }
done:
    Py_XDECREF((PyObject *)outer_span);
    Py_XDECREF((PyObject *)at);
    return opened;
}

void span_apply_root_options(Span *span, PyObject *rare)
{
    forget_result(view_call("apply_root_options", (PyObject *)span, rare));
}

PyObject *span_list(const Trace *trace)
{
    PyObject *list = PyList_New(0);
    for (Span *span = trace->spans; list != NULL && span != NULL; span = span->next) {
        if (!span->remote && PyList_Append(list, (PyObject *)span) < 0) {
            Py_CLEAR(list);
        }
    }
    if (list != NULL && PyList_Reverse(list) < 0) {
        Py_CLEAR(list);
    }
    return list;
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
    wire_pack_array(out, span->link_count);
    buffer_append(out, span->links.data, span->links.len);
}

/* [3, trace id, attachment id, content]: see record.h. */
static void append_attachments(Span *span)
{
    PyObject *key, *attachment;
    Py_ssize_t at = 0;
    PyObject *copy = PyDict_Copy(span->attachments); /* reading them may run the program's code */
    if (copy == NULL) {
        swallow_exception();
        return;
    }
    while (PyDict_Next(copy, &at, &key, &attachment)) {
        char *bytes;
        Py_ssize_t size;
        Buffer *out = scratch_acquire(span->state);
        PyObject *content = PyObject_GetAttrString(attachment, "content_bytes");
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
            swallow_exception();
        }
        Py_XDECREF(content);
        if (out != NULL) {
            scratch_release(span->state, out);
        }
    }
    Py_DECREF(copy);
}

/* An abandoned span may be ended by the garbage collector: then for the process only. */
static void set_last_trace_id(CoreState *state, const Span *root)
{
    PyObject *id = trace_id_str(root->trace);
    if (id == NULL) {
        swallow_exception();
        return;
    }
    if (LIKELY(!root->current.abandoned)) {
        forget_result(PyObject_CallFunctionObjArgs(state->last_trace_id_set, id, NULL));
    }
    set_owned(&state->last_trace_id, id);
}

static uint64_t end_time(const Span *span, uint64_t end_ns)
{
    if (end_ns == 0) {
        end_ns = clock_ns();
        if (UNLIKELY(end_ns < span->start_ns)) {
            end_ns = span->start_ns; /* the clock was set back */
        }
    }
    return end_ns;
}

static void finish(Span *span, uint64_t end_ns);

void span_close(Span *span, uint64_t end_ns)
{
    if (span->end_ns == 0 && !span->ending) {
        finish(span, end_time(span, end_ns));
    }
}

void span_end(Span *span, uint64_t end_ns)
{
    if (UNLIKELY(span->end_ns != 0 || span->ending)) {
        return;
    }
    end_ns = end_time(span, end_ns);
    CoreState *state = span->state;
    Reader level;
    if (span->status != STATUS_ERROR) {
        span->status = STATUS_OK;
    }
    if (!span_find(span, KEY_LOG_LEVEL, &level)) {
        char value = (char)default_log_level(span);
        span_set_encoded(span, KEY_LOG_LEVEL, &value, 1);
    }
    if (UNLIKELY(state->process_span != NULL)) {
        /* Before a byte of it leaves; what they set still counts. */
        span->ending = true;
        forget_result(PyObject_CallFunctionObjArgs(state->process_span, (PyObject *)span, NULL));
    }
    finish(span, end_ns);
}

/* Another span of a trace that is kept whole has ended. */
static void keep(CoreState *state, Trace *trace, Span *span)
{
    if (PyList_Append(trace->kept, (PyObject *)span) < 0) {
        swallow_exception();
    }
    if (!trace_is_complete(trace)) {
        return;
    }
    PyObject *kept = trace->kept; /* refers to the trace by its spans: goes now */
    trace->kept = NULL;
    if (trace->whole && state->whole_trace_ended != NULL) {
        forget_result(
            PyObject_CallFunctionObjArgs(state->whole_trace_ended, (PyObject *)trace, kept, NULL));
    }
    Py_DECREF(kept);
}

/* Its record, and what its end means for its trace. */
static void finish(Span *span, uint64_t end_ns)
{
    CoreState *state = span->state;
    Trace *trace = span->trace;
    span->end_ns = end_ns;
    if (UNLIKELY(span->attachments != NULL)) {
        append_attachments(span);
    }

    bool is_root = span->parent_id == trace->roots_under;
    if (UNLIKELY(trace->remote) && end_ns > trace->root_end_ns) {
        trace->root_end_ns = end_ns;
    }
    if (is_root) {
        trace->root_ended = true;
        trace->root_end_ns = end_ns > span->start_ns ? end_ns : span->start_ns;
        if (trace->trace_state == STATE_UNSPECIFIED) {
            trace->trace_state = span->status == STATUS_ERROR ? STATE_ERROR : STATE_OK;
        }
    }
    Buffer *out = scratch_acquire(state);
    if (out != NULL) {
        encode_span(span, out);
        trace_span_ended(state, trace, out, is_root);
        scratch_release(state, out);
    }
    if (UNLIKELY(trace->kept != NULL)) {
        keep(state, trace, span);
    }
    if (is_root) {
        set_last_trace_id(state, span);
    }
    if (UNLIKELY(state->trace_completed != NULL) && trace_is_complete(trace)) {
        forget_result(PyObject_CallNoArgs(state->trace_completed));
    }
}

void span_end_abandoned(CoreState *state)
{
    PyObject *abandoned = state->abandoned;
    if (abandoned == NULL) {
        return;
    }
    state->abandoned = NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(abandoned); i++) {
        span_end((Span *)PyList_GetItem(abandoned, i), 0);
    }
    Py_DECREF(abandoned);
}

/* ---- exceptions and events ---- */

static void raise_log_level(Span *span);

static void event_head(Buffer *out, const char *name, size_t size, uint64_t time_ns)
{
    wire_pack_array(out, 3);
    encode_text(out, name, size);
    wire_pack_uint64(out, time_ns);
}

void span_append_event(Span *span, const Buffer *event, bool is_exception)
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
    if (is_exception) {
        raise_log_level(span);
    }
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
    span_append_event(span, out, false);
    scratch_release(span->state, out);
}

void span_set_status(Span *span, int status, PyObject *message)
{
    if (span->end_ns != 0 || span->status == STATUS_OK || status == STATUS_UNSET) {
        return;
    }
    span->status = (unsigned char)status;
    if (status != STATUS_ERROR || message == NULL || !PyUnicode_Check(message) ||
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
        span_set_status(span, STATUS_ERROR, NULL);
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
        span_append_event(span, out, true);
        scratch_release(state, out);
    }
    span_set_status(span, STATUS_ERROR, with_message ? description : NULL);
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
    span_set_payload(span, KEY_OUTPUTS, result);
}
