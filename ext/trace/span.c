#include "trace/span.h"

#include "base/errors.h"

Span *span_make(CoreState *state, Trace *trace, PyObject *name)
{
    /* A type is NULL once the garbage collector has cleared the module. */
    PyTypeObject *type = state->types.live_span;
    Span *span = type != NULL ? PyObject_GC_New(Span, type) : NULL;
    if (span == NULL) {
        swallow_exception(state);
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
    attributes_free(&span->attributes, span->inline_entries);
    buffer_free(&span->events);
    buffer_free(&span->links);
    Py_DECREF((PyObject *)trace);
    Py_XDECREF(span->name);
    Py_XDECREF(span->status_message);
    Py_XDECREF(span->link_list);
    Py_XDECREF(span->dict);
    Py_XDECREF(span->attachments);
    Py_XDECREF(whole_spans);
    release_in_turn(state, span->current.token);
    release_in_turn(state, (PyObject *)span->current.outer);
}
