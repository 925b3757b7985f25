#include "trace/span_start.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/ids.h"
#include "base/python_side.h"
#include "trace/span_end.h"
#include "trace/span_values.h"
#include "value/encode.h"

static void set_optional_first_attributes(Span *span, const SpanOptions *options, bool is_root)
{
    if (options->start_ns) {
        char value[WIRE_HEAD_MAX], *end = value;
        put_uint64(&end, options->start_ns);
        span_set_encoded(span, KEY_START_TIME, value, (size_t)(end - value));
    }
    if (options->root.experiment != NULL && is_root) {
        span_set(span, KEY_EXPERIMENT, options->root.experiment);
    }
}

/* Sets the attribute that holds the trace's id; false without memory. */
static inline bool set_trace_id(Span *span)
{
    const char *id_text = span->trace->id_text;
    size_t room;
    char *place = span_value_place(span, KEY_TRACE_ID, &room);
    if (LIKELY(place != NULL && room >= WIRE_HEAD_MAX + TRACE_ID_TEXT_SIZE)) {
        char *end = put_text(place, id_text, TRACE_ID_TEXT_SIZE);
        return span_value_written(span, KEY_TRACE_ID, (size_t)(end - place));
    }
    char value[WIRE_HEAD_MAX + TRACE_ID_TEXT_SIZE];
    size_t size = (size_t)(put_text(value, id_text, TRACE_ID_TEXT_SIZE) - value);
    return span_set_encoded(span, KEY_TRACE_ID, value, size);
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
    Span *span = span_make(state, trace, name);
    if (span == NULL) {
        return START_NOT_RECORDED;
    }
    span->id = ids_next();
    span->parent_id = parent ? parent->id : 0;
    /* The clock is read only now: the first trace_new() starts the sender, which takes time. */
    span->start_ns = clock_ns();
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

    if (UNLIKELY(options != NULL)) {
        set_optional_first_attributes(span, options, parent == NULL);
    }
    if (UNLIKELY(!set_trace_id(span))) {
        /* One span without this attribute, and MLflow cannot read the whole trace. */
        Py_DECREF((PyObject *)span);
        return START_NOT_RECORDED;
    }
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
        swallow_exception(state);
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
    PyObject *name = trace != NULL ? trace->root_name : NULL;
    Py_XINCREF(name);
    Span *span = trace != NULL ? span_make(state, trace, name) : NULL;
    Py_XDECREF(name);
    if (span != NULL) {
        span->remote = true;
        span->id = id;
        span->start_ns = span->end_ns = 1; /* ended: it takes no values and holds nothing open */
    }
    return span;
}

/* The core's span for a span of another library that the program stands in, as a new reference;
 * NULL where the parent is what is current in the core. */
static Span *external_parent(CoreState *state, Current *at)
{
    PyObject *found =
        ask_hook(state->hooks.external_parent, at != NULL ? (PyObject *)at : Py_None, NULL);
    if (found == NULL) {
        swallow_exception(state);
        return NULL;
    }
    if (!Py_IS_TYPE(found, state->types.live_span)) {
        Py_DECREF(found);
        return NULL;
    }
    return (Span *)found;
}

/* The span that is around a non-recording one, as a new reference; NULL for none. */
static Span *span_around(const CoreState *state, Current *at)
{
    while (at != NULL && as_span(state, at) == NULL) {
        at = current_around(at);
    }
    Py_XINCREF((PyObject *)at);
    return (Span *)at;
}

void span_left_out(CoreState *state)
{
    if (UNLIKELY(state->hooks.span_left_out != NULL)) {
        forget_result(state, ask_hook(state->hooks.span_left_out, NULL, NULL));
    }
}

Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options)
{
    Current *at, *opened = NULL;
    Span *span, *other = NULL; /* the parent, owned, where it is not `at` */

    if (UNLIKELY(state->abandoned != NULL)) {
        span_end_abandoned(state);
    }
    if (UNLIKELY(context_current(state, &at) == CURRENT_UNKNOWN)) {
        return NULL;
    }
    if (UNLIKELY(state->disabled)) {
        span_left_out(state);
    }
    if (UNLIKELY(state->scoped) && scope_disables(state)) {
        goto done;
    }
    Span *parent = as_span(state, at);
    if (UNLIKELY(at != NULL && parent == NULL)) {
        if (((NonRecordingSpan *)at)->not_sampled || state->disabled) {
            goto done;
        }
        /* Tracing is on again inside a non-recording span: what is around that is the parent. */
        parent = other = span_around(state, at);
    }
    if (UNLIKELY(state->hooks.external_parent != NULL) && !state->disabled) {
        Span *external = external_parent(state, at);
        if (external != NULL) {
            Py_XDECREF((PyObject *)other);
            parent = other = external;
        }
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
    Py_XDECREF((PyObject *)other);
    Py_XDECREF((PyObject *)at);
    return opened;
}

void span_apply_root_options(Span *span, PyObject *options)
{
    forget_result(span->state,
                  python_call(SPANS_ENTITIES, "apply_root_options", (PyObject *)span, options));
}
