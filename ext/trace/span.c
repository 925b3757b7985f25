#include "trace/span.h"

#include "base/errors.h"

/* ---- memory ----
 *
 * Most spans live for a moment, one after another. The memory of a released one, with that of its
 * attributes, is kept for the next: that takes neither an allocation nor a step towards the next
 * garbage collection. */

/* So many are kept: as many as tasks are often at work at a time. */
#define UNUSED_SPANS 128

/* Attributes that took more bytes than this are freed. */
#define UNUSED_VALUES_BYTES ((size_t)8 << 10)

#ifdef __SANITIZE_ADDRESS__
static const bool spans_are_reused = false; /* or a use after the release would not be seen */
#else
static const bool spans_are_reused = true;
#endif

/* A span that is all zero but for its PyObject, the room for values, and the inline entries. */
static Span *allocate(CoreState *state)
{
    PyTypeObject *type = state->types.live_span;
    if (UNLIKELY(type == NULL)) { /* the garbage collector has cleared the module */
        return NULL;
    }
    Buffer values = {0};
    Span *span = state->unused_spans;
    if (LIKELY(span != NULL)) {
        state->unused_spans = span->next;
        state->unused_span_count--;
        values = span->attributes.values;
        (void)PyObject_Init((PyObject *)span, type);
    }
    else {
        span = PyObject_GC_New(Span, type);
        if (span == NULL) {
            return NULL;
        }
    }
    memset((char *)span + sizeof(PyObject), 0, offsetof(Span, inline_entries) - sizeof(PyObject));
    span->attributes.values = values;
    return span;
}

/* Takes over a span that owns nothing any more but the memory of its attributes. It was not seen by
 * the garbage collector, or is not any more. */
static void deallocate(CoreState *state, Span *span)
{
    Attributes *a = &span->attributes;
    /* Without its type, which the garbage collector may have taken from the state, a span cannot be
     * freed later. */
    bool keep = spans_are_reused && state->unused_span_count < UNUSED_SPANS &&
                state->types.live_span == Py_TYPE(span);
    attributes_free_entries(a, span->inline_entries);
    if (UNLIKELY(!keep || a->values.cap > UNUSED_VALUES_BYTES)) {
        buffer_free(&a->values);
    }
    if (UNLIKELY(!keep)) {
        PyObject_GC_Del(span);
        return;
    }
    buffer_clear(&a->values);
    span->next = state->unused_spans;
    state->unused_spans = span;
    state->unused_span_count++;
}

void span_free_unused(CoreState *state)
{
    while (state->unused_spans != NULL) {
        Span *span = state->unused_spans;
        state->unused_spans = span->next;
        buffer_free(&span->attributes.values);
        PyObject_GC_Del(span);
    }
    state->unused_span_count = 0;
}

/* ---- spans ---- */

Span *span_make(CoreState *state, Trace *trace, PyObject *name)
{
    Span *span = allocate(state);
    if (span == NULL) {
        swallow_exception(state);
        Py_DECREF((PyObject *)trace);
        return NULL;
    }
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
    if (UNLIKELY(PyObject_GC_IsTracked((PyObject *)trace))) {
        span_track(span);
    }
    return span;
}

void abandon(CoreState *state, PyObject *span_or_trace)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *abandoned = slot_list(&state->abandoned);
    if (abandoned == NULL || PyList_Append(abandoned, span_or_trace) < 0) {
        swallow_exception(state);
    }
    PyErr_Restore(type, value, traceback);
}

void span_release(Span *span)
{
    CoreState *state = span->state;
    Trace *trace = span->trace;
    PyObject *whole_spans = NULL;
    if (span->end_ns == 0 && trace->open_spans > 0 && --trace->open_spans == 0) {
        if (trace->root_ended) {
            abandon(state, (PyObject *)trace);
        }
        else {
            /* Nobody can end it any more, so the trace will not be whole: its list of spans, each
             * of which refers to the trace, serves nobody. */
            whole_spans = trace->whole_spans;
            trace->whole_spans = NULL;
        }
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
    buffer_free(&span->events);
    buffer_free(&span->links);
    Py_DECREF((PyObject *)trace);
    Py_XDECREF(span->name);
    Py_XDECREF(span->status_message);
    Py_XDECREF(span->link_list);
    Py_XDECREF(span->dict);
    Py_XDECREF(span->attachments);
    Py_XDECREF(whole_spans);
    PyObject *token = span->current.token, *outer = (PyObject *)span->current.outer;
    deallocate(state, span);
    release_in_turn(state, token);
    release_in_turn(state, outer);
}
