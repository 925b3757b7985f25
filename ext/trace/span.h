/* span.h: a span, from its start to its record.
 *
 * span.c starts it, span_values.c and span_events.c fill it, span_end.c ends it, span_record.c
 * makes its record. What a program sees of it is objects/live_span.c.
 *
 * Where nothing else is said, these functions set no exception and may run Python code. */
#ifndef FASTTRACE_SPAN_H
#define FASTTRACE_SPAN_H

#include "trace/attributes.h"
#include "trace/context.h"
#include "trace/trace.h"
#include "value/encode.h"

struct Span {
    Current current;       /* PyObject_HEAD, and its place in the context */
    CoreState *state;      /* outlives the span: the type holds the module */
    Trace *trace;          /* owned */
    Span *previous, *next; /* in the trace's list */
    uint64_t id;
    uint64_t parent_id; /* 0 for a root */
    uint64_t start_ns;
    uint64_t end_ns;          /* 0 while it is open */
    PyObject *name;           /* owned str */
    PyObject *status_message; /* owned str, or NULL */
    unsigned char status;     /* STATUS_* */
    bool ending;              /* span processors are at work */
    bool remote;              /* stands for a span that another process or library records */
    bool has_twin;            /* dict["_twin"] is the span that the program knows it by */
    Attributes attributes;
    Attribute inline_entries[INLINE_ATTRIBUTES];
    Buffer events; /* encoded, one after another */
    uint32_t event_count;
    uint32_t link_count;
    Buffer links;          /* encoded, one after another */
    PyObject *link_list;   /* owned list of Link, NULL until one is added */
    PyObject *attachments; /* owned dict of Attachment by id, NULL until there is one */
    PyObject *dict;        /* owned: what the program keeps on the span, NULL until it does */
};

enum { STATUS_UNSET = 0, STATUS_OK = 1, STATUS_ERROR = 2 };

/* The span that it is, borrowed; NULL for a non-recording span or nothing. */
static inline Span *as_span(const CoreState *state, Current *current)
{
    bool is_span = current != NULL && Py_IS_TYPE((PyObject *)current, state->types.live_span);
    return is_span ? (Span *)current : NULL;
}

/* ---- start (span.c) ---- */

/* How a span begins, where that differs from the usual; NULL and 0 stand for the usual. */
typedef struct {
    RootOptions root; /* where it becomes a root */
    uint64_t start_ns;
    uint64_t id;
    uint64_t parent_id; /* instead of the parent's */
} SpanOptions;

/* Starts a span where the program stands: under what is current. Returns what to make current, as a
 * new reference: the span; or a non-recording span, where its trace is not sampled or tracing is
 * off. NULL where nothing is recorded and the context stays as it is. `name` is a str, `options`
 * may be NULL. */
Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options);

/* Starts a span under `parent` (NULL: a new trace), in *span as a new reference. */
StartResult span_start(CoreState *state, PyObject *name, Span *parent, const SpanOptions *options,
                       Span **span);

/* A span that is recorded elsewhere, for spans of this process to stand under, in the trace of that
 * id: one that is alive here, or a new one. own_info: nobody else says what is known of the trace
 * as a whole. A new reference; NULL when nothing is recorded. */
Span *span_remote(CoreState *state, const unsigned char *trace_id, uint64_t id, bool own_info);

/* `options`: (experiment id or None, run id or None, links or None), as given for a span that has
 * started: says which of them only a root can have, and adds the links. */
void span_apply_root_options(Span *span, PyObject *options);

/* Releases what a span owns and takes it out of its trace's list: the end of its dealloc. */
void span_release(Span *span);

/* ---- values (span_values.c) ---- */

/* An attribute's value, to be read before anything else happens to the span; false when it is not
 * set. Runs no Python code. */
bool span_find(const Span *span, KnownKey key, Reader *value);

/* Sets an attribute to an encoded value. Runs no Python code. */
void span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size);

/* Encodes a value and sets an attribute to it. */
void span_set(Span *span, KnownKey key, PyObject *value);

/* Appends a value as inputs and outputs hold it: binary content in it has become attachments of the
 * span. Returns whether there was some. `repr`: as for encode_repr(). */
bool span_encode_payload(Span *span, Buffer *out, PyObject *value, PyObject *repr);

/* Sets inputs or outputs. */
void span_set_payload(Span *span, KnownKey key, PyObject *value);

/* Sets outputs unless the program has set some (None does not count). */
void span_default_outputs(Span *span, PyObject *result);

/* Sets an attribute, or those of a dictionary, as the program gives them; warns of what cannot be
 * set. */
void span_set_attribute(Span *span, PyObject *key, PyObject *value);
void span_set_attributes(Span *span, PyObject *attributes);

/* Copies ready-made attributes into a span that has no attribute of those names. Runs no Python
 * code. */
bool span_add_prepared(Span *span, const Attributes *prepared);

/* ---- status and events (span_events.c) ---- */

/* Sets the status by OpenTelemetry's rules: OK is final, UNSET changes nothing. `message` may be
 * NULL. */
void span_set_status(Span *span, int status, PyObject *message);

/* Records the pending exception (which stays pending) as MLflow's context manager does: event and
 * status ERROR for an Exception, nothing for KeyboardInterrupt and its like. */
void span_record_pending(Span *span);

/* Records an exception object; with_message: the status has its text too. */
void span_record_exception(Span *span, PyObject *exception, bool with_message);

/* Adds the event mlflow.chunk.item.N of a generator, whose value is an encoded item. */
void span_add_item(Span *span, uint32_t index, const char *item, size_t size);

/* Adds an encoded event [name, ns, {attributes}]; an exception raises the log level. Runs no Python
 * code. */
void span_append_event(Span *span, const Buffer *event, bool is_exception);

/* ---- end (span_end.c) ---- */

/* Ends the span (end_ns 0: now) and hands its record to the ring. Does nothing the second time. */
void span_end(Span *span, uint64_t end_ns);

/* Ends the span as OpenTelemetry does: no status, no log level and no span processors are added. */
void span_close(Span *span, uint64_t end_ns);

/* Ends the spans whose scope was dropped without being left, see objects/span_scope.c. */
void span_end_abandoned(CoreState *state);

#endif
