#include "trace/span.h"

#include "base/errors.h"

Span *span_make(CoreState *state, Trace *trace, PyObject *name)
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
