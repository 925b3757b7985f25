/* span.c: a span's start: its parent, its trace, what it begins with.
 *
 * A span owns raw bytes: its attributes, events and links are encoded when they are set, so that
 * what the program changes afterwards is not seen, and no value of the program is kept alive. Of
 * objects it owns its name, its status message, the attachments and Link objects that it was given,
 * and what the program keeps in its __dict__. It is not tracked by the garbage collector: nothing
 * that the package puts there refers back to it. A span that is dropped without being ended is not
 * recorded.
 *
 * Encoding runs Python code (hooks), so other threads can run in the middle of it. Values are
 * therefore encoded into a scratch buffer and only then appended to the span, in one go, under the
 * GIL: two threads may set attributes of one span at the same time. */
#include "trace/span.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/ids.h"
#include "base/python_side.h"

/* A span of the trace, whose reference it takes over, in the trace's list; `name` is shared. NULL
 * without memory. */
static Span *make_span(CoreState *state, Trace *trace, PyObject *name)
{
    Span *span = PyObject_New(Span, state->types.live_span);
    if (span == NULL) {
        swallow_exception();
        Py_DECREF((PyObject *)trace);
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
    Py_INCREF(name);
    span->name = name;
    span->attributes.entries = span->inline_entries;
    span->attributes.room = INLINE_ATTRIBUTES;
    return span;
}

StartResult span_start(CoreState *state, PyObject *name, Span *parent, const SpanOptions *options,
                       Span **made)
{
    Trace *trace;
    *made = NULL;
    if (parent != NULL) {
        trace = parent->trace;
        Py_INCREF((PyObject *)trace);
    }
    else {
        StartResult result = trace_new(state, name, options ? &options->root : NULL, &trace);
        if (UNLIKELY(result != START_RECORDED)) {
            return result;
        }
    }
    Span *span = make_span(state, trace, name);
    if (span == NULL) {
        return START_NOT_RECORDED;
    }
    span->id = ids_next();
    span->parent_id = parent ? parent->id : 0;
    span->start_ns = clock_ns(); /* not before: the first root starts the sender */
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
    *made = span;
    return START_RECORDED;
}

/* The trace of that id, as a new reference: one that is alive here, or one made for it. NULL,
 * without an exception, when nothing is recorded. */
static Trace *join_trace(CoreState *state, const unsigned char *trace_id, uint64_t under,
                         bool own_info)
{
    char id_text[TRACE_ID_TEXT_SIZE];
    trace_id_text(id_text, trace_id);
    Trace *trace = trace_find(state, id_text, sizeof id_text);
    if (trace != NULL) {
        Py_INCREF((PyObject *)trace);
        return trace;
    }
    RootOptions options = {
        .trace_id = trace_id, .has_sampling = true, .sampling_bound = SAMPLE_ALL};
    PyObject *name = PyUnicode_FromStringAndSize("", 0);
    if (name != NULL) {
        trace_new(state, name, &options, &trace);
    }
    Py_XDECREF(name);
    if (trace == NULL) {
        swallow_exception();
        return NULL;
    }
    trace->remote = !own_info;
    trace->root_ended = !own_info;
    trace->roots_under = own_info ? under : NO_ROOT;
    return trace;
}

Span *span_remote(CoreState *state, const unsigned char *trace_id, uint64_t id, bool own_info)
{
    Trace *trace = join_trace(state, trace_id, id, own_info);
    Span *span = trace != NULL ? make_span(state, trace, trace->root_name) : NULL;
    if (span != NULL) {
        span->remote = true;
        span->id = id;
        span->start_ns = span->end_ns = 1; /* ended: it takes no values and holds nothing open */
    }
    return span;
}

void span_release(Span *span)
{
    Trace *trace = span->trace;
    if (span->end_ns == 0 && trace->open_spans > 0) {
        trace->open_spans--; /* nobody can end it any more */
    }
    if (span->previous != NULL) {
        span->previous->next = span->next;
    }
    else {
        trace->spans = span->next;
    }
    if (span->next != NULL) {
        span->next->previous = span->previous;
    }
    attributes_free(&span->attributes, span->inline_entries);
    buffer_free(&span->events);
    buffer_free(&span->links);
    Py_DECREF((PyObject *)trace);
    Py_XDECREF(span->name);
    Py_XDECREF(span->status_message);
    Py_XDECREF(span->link_list);
    Py_XDECREF(span->dict);
    Py_XDECREF(span->attachments);
    Py_XDECREF(span->current.token);
    Py_XDECREF((PyObject *)span->current.outer);
}

/* The core's span for a span of another library that the program stands in, as a new reference;
 * NULL where the parent is what is current in the core. */
static Span *external_parent(CoreState *state, Current *at)
{
    PyObject *found = PyObject_CallFunctionObjArgs(state->hooks.external_parent,
                                                   at != NULL ? (PyObject *)at : Py_None, NULL);
    if (found == NULL) {
        swallow_exception();
        return NULL;
    }
    if (!Py_IS_TYPE(found, state->types.live_span)) {
        Py_DECREF(found);
        return NULL;
    }
    return (Span *)found;
}

/* The parent of a span that starts where `at` is current, borrowed from it; NULL for none. */
static Span *parent_in(const CoreState *state, Current *at)
{
    /* Tracing is on again inside a non-recording span: what is around that is the parent. */
    while (at != NULL && as_span(state, at) == NULL) {
        at = at->outer;
    }
    return (Span *)at;
}

Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options)
{
    Current *at, *opened = NULL;
    Span *span, *external = NULL;

    if (UNLIKELY(state->abandoned != NULL)) {
        span_end_abandoned(state);
    }
    if (UNLIKELY(context_current(state, &at) == CURRENT_UNKNOWN)) {
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
        parent = parent_in(state, at);
    }
    if (UNLIKELY(state->hooks.external_parent != NULL) && !state->disabled) {
        external = external_parent(state, at);
        parent = external != NULL ? external : parent;
    }
    if (UNLIKELY(state->disabled)) {
        opened = parent != NULL ? non_recording_new(state, false) : NULL;
    }
    else {
        StartResult result = span_start(state, name, parent, options, &span);
        opened = LIKELY(result == START_RECORDED) ? &span->current
                 : result == START_NOT_SAMPLED    ? non_recording_new(state, true)
                                                  : NULL;
    }
    if (opened != NULL) {
        opened->outer = at;
        at = NULL;
    }
done:
    Py_XDECREF((PyObject *)external);
    Py_XDECREF((PyObject *)at);
    return opened;
}

void span_apply_root_options(Span *span, PyObject *options)
{
    forget_result(python_call(SPANS_ENTITIES, "apply_root_options", (PyObject *)span, options));
}
