/* span.h: a span in memory.
 *
 * span_start.c starts it, span_values.c and span_events.c fill it, span_end.c ends it,
 * span_record.c makes its record. What a program sees of it is objects/live_span.c.
 *
 * A span owns raw bytes: its attributes, events and links are encoded when they are set, so that
 * what the program changes afterwards is not seen, and no value of the program is kept alive. Of
 * objects it owns its name, its status message, the attachments and Link objects that it was given,
 * and what the program keeps in its __dict__. The garbage collector looks at it only once it holds
 * one of these, or stands in the list of a whole trace: most spans never do. A span that is
 * released without being ended is not recorded.
 *
 * Encoding runs Python code (hooks), so other threads can run in the middle of it. Values are
 * therefore encoded into a scratch buffer and only then appended to the span, in one go, under the
 * GIL: two threads may set attributes of one span at the same time.
 *
 * Where nothing else is said, the functions of these files set no exception and may run Python
 * code.
 */
#ifndef FASTTRACE_SPAN_H
#define FASTTRACE_SPAN_H

#include "trace/attributes.h"
#include "trace/context.h"
#include "trace/trace.h"

struct Span {
    Current current;       /* PyObject_HEAD, and its place in the context */
    CoreState *state;      /* outlives the span: the type holds the module */
    Trace *trace;          /* owned */
    Span *previous, *next; /* in the trace's list */
    uint64_t id;
    uint64_t parent_id; /* 0 for a root */
    uint64_t start_ns;
    uint64_t end_ns;          /* 0 while it is open */
    uint64_t late_end_ns;     /* when it ended, where there was no ring for its record yet; or 0 */
    PyObject *name;           /* owned str */
    PyObject *status_message; /* owned str, or NULL */
    unsigned char status;     /* STATUS_* */
    unsigned char kind;       /* SPAN_KIND_* */
    bool ending;              /* span processors are at work */
    bool remote;              /* stands for a span that another process or library records */
    bool has_twin;            /* dict["_twin"] is the span that the program knows it by */
    Attributes attributes;
    Buffer events; /* encoded, one after another */
    uint32_t event_count;
    uint32_t link_count;
    Buffer links;          /* encoded, one after another */
    PyObject *link_list;   /* owned list of Link, NULL until one is added */
    PyObject *attachments; /* owned dict of Attachment by id, NULL until there is one */
    PyObject *dict;        /* owned: what the program keeps on the span, NULL until it does */
    Attribute inline_entries[INLINE_ATTRIBUTES]; /* as many as `attributes` says are filled */
};

enum { STATUS_UNSET = 0, STATUS_OK = 1, STATUS_ERROR = 2 };

/* The span that it is, borrowed; NULL for a non-recording span or nothing. */
static inline Span *as_span(const CoreState *state, Current *current)
{
    bool is_span = current != NULL && Py_IS_TYPE((PyObject *)current, state->types.live_span);
    return is_span ? (Span *)current : NULL;
}

/* A span of the trace, whose reference it takes over, in the trace's list; `name` is shared. NULL
 * without memory. */
RUNS_PYTHON Span *span_make(CoreState *state, Trace *trace, PyObject *name);

/* Lets the garbage collector look at the span from now on: it has got what may refer back to it.
 * Runs no Python code. */
static inline void span_track(Span *span)
{
    if (!PyObject_GC_IsTracked((PyObject *)span)) {
        PyObject_GC_Track((PyObject *)span);
    }
}

/* Lets the collector look at a trace whose containers the program gets, and at its spans: they may
 * come to refer to one another. Spans that start later are looked at too. */
static inline void trace_track_with_spans(Trace *trace)
{
    trace_track(trace);
    for (Span *span = trace->spans; span != NULL; span = span->next) {
        span_track(span);
    }
}

/* Notes a span whose scope was released without being left, or a trace whose last open span was:
 * span_end_abandoned() (span_end.h) sees to it at the next start of a span, or flush. Ending runs
 * hooks, and a dealloc may be part of a garbage collection. Keeps a pending exception. */
RUNS_PYTHON void abandon(CoreState *state, PyObject *span_or_trace);

/* Releases what a span owns, takes it out of its trace's list, and frees it or keeps its memory for
 * the next span: its dealloc, but for the type. */
RUNS_PYTHON void span_release(Span *span);

/* Frees the memory that was kept for spans. Before the state forgets its types. */
void span_free_unused(CoreState *state);

#endif
