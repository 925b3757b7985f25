/* span.h: a span, from its start to its record. See span.c; as Python sees it: live_span.c. */
#ifndef FASTTRACE_SPAN_H
#define FASTTRACE_SPAN_H

#include "attributes.h"
#include "context.h"
#include "encode.h"
#include "trace.h"

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
    bool has_twin;            /* for an object that the program knows it by: dict["_twin"] */
    Attributes attributes;
    Attribute inline_entries[INLINE_ATTRIBUTES];
    Buffer events;
    uint32_t event_count;
    uint32_t link_count;
    Buffer links;
    PyObject *link_list;   /* owned list of Link, NULL until one is added */
    PyObject *attachments; /* owned dict of Attachment by id, NULL until there is one */
    PyObject *dict;        /* owned: what the program keeps on the span, NULL until it does */
};

enum { STATUS_UNSET = 0, STATUS_OK = 1, STATUS_ERROR = 2 };

/* How a span begins; what is NULL or 0 is as everywhere. */
typedef struct {
    RootOptions root; /* where it becomes a root */
    uint64_t start_ns;
    uint64_t id;
    uint64_t parent_id; /* instead of the parent's */
} SpanOptions;

/* Starts a span where the program stands: under what is current. Returns what to make current: the
 * span; or a non-recording span, where its trace is not sampled or tracing is off. NULL where
 * nothing is recorded and the context stays as it is. No exception is set. `name` is a str,
 * `options` may be NULL. */
Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options);

/* Ends the spans whose scope was dropped inside of it, see span_scope.c. */
void span_end_abandoned(CoreState *state);

/* Starts a span under `parent` (NULL: a new trace). NULL, without an exception, when it is not
 * recorded; *not_sampled says that its trace is not sampled. */
Span *span_start(CoreState *state, PyObject *name, Span *parent, const SpanOptions *options,
                 bool *not_sampled);

/* The span that it is, or NULL: a non-recording span, or nothing. */
static inline Span *as_span(const CoreState *state, Current *current)
{
    return current != NULL && Py_IS_TYPE((PyObject *)current, state->span_type) ? (Span *)current
                                                                                : NULL;
}

/* An attribute's value, to be read; false when it is not set. */
bool span_find(const Span *span, KnownKey key, Reader *value);

/* Encodes and sets. */
void span_set(Span *span, KnownKey key, PyObject *value);

/* Sets an encoded value. */
void span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size);

/* Appends a value as inputs and outputs hold it: binary content in it has become attachments of the
 * span. Returns whether there was some. `repr`: as for encode_repr(). */
bool span_encode_payload(Span *span, Buffer *out, PyObject *value, PyObject *repr);

/* Encodes so, and sets inputs or outputs. */
void span_set_payload(Span *span, KnownKey key, PyObject *value);

/* Sets attributes one by one, as the program gives them; warns of what cannot be set. */
void span_set_attribute(Span *span, PyObject *key, PyObject *value);
void span_set_attributes(Span *span, PyObject *attributes);

/* Copies ready-made attributes into a span that has no attribute of those names. */
bool span_add_prepared(Span *span, const Attributes *prepared);

/* Sets outputs unless the program has set some (None does not count). */
void span_default_outputs(Span *span, PyObject *result);

/* The status; OpenTelemetry's rules: OK is final, UNSET changes nothing. `message` may be NULL. */
void span_set_status(Span *span, int status, PyObject *message);

/* Records the pending exception (which stays pending) as MLflow's context manager does: event and
 * status ERROR for an Exception, nothing for KeyboardInterrupt and its like. */
void span_record_pending(Span *span);

/* The same for an exception object; with_message: the status says it too. */
void span_record_exception(Span *span, PyObject *exception, bool with_message);

/* Adds the event mlflow.chunk.item.N, whose value is an encoded item. */
void span_add_item(Span *span, uint32_t index, const char *item, size_t size);

/* Adds an encoded event [name, ns, {attributes}]; one named "exception" raises the log level. */
void span_append_event(Span *span, const Buffer *event, bool is_exception);

/* Ends the span and hands its record to the ring. Does nothing the second time. */
void span_end(Span *span, uint64_t end_ns);

/* The same as OpenTelemetry does it: no status, no log level and no span processors are added. */
void span_close(Span *span, uint64_t end_ns);

/* A span that is recorded elsewhere, for spans of this process to stand under, in the trace of that
 * id: one that is alive here, or a new one. own_info: nobody else says what is known of the trace.
 * NULL, without an exception, when nothing is recorded. */
Span *span_remote(CoreState *state, const unsigned char *trace_id, uint64_t id, bool own_info);

/* `rare`: (experiment id or None, run id or None, links or None), as given for a span that has
 * started; says what cannot be had for a child, and adds the links. */
void span_apply_root_options(Span *span, PyObject *rare);

/* Calls a function of the thin package's _view.py; `second` may be NULL. */
PyObject *view_call(const char *function, PyObject *first, PyObject *second);

/* The spans of a trace that are alive, oldest first, as a list. */
PyObject *span_list(const Trace *trace);

#define SIZED(literal) (literal), (sizeof(literal) - 1)

#endif
