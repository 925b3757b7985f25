/* span.h: a span, from its start to its record. See span.c. */
#ifndef FASTTRACE_SPAN_H
#define FASTTRACE_SPAN_H

#include "encode.h"
#include "trace.h"

/* One attribute: where it stands in `values`. An attribute that is set again leaves its old bytes
 * behind as a hole and moves to the end, as in OpenTelemetry. */
typedef struct {
    uint32_t hash;  /* of the key's bytes */
    uint32_t start; /* of the encoded key */
    uint32_t key_size;
    uint32_t value_size; /* follows the key */
} Attribute;

typedef struct {
    Buffer values; /* encoded key, encoded value, ... */
    Attribute *entries;
    uint32_t count;
    uint32_t room;
} Attributes;

#define INLINE_ATTRIBUTES 8

struct Span {
    PyObject_HEAD CoreState *state; /* outlives the span: the type holds the module */
    Trace *trace;                   /* owned */
    uint64_t id;
    uint64_t parent_id; /* 0 for a root */
    uint64_t start_ns;
    uint64_t end_ns;          /* 0 while it is open */
    PyObject *name;           /* owned str */
    PyObject *status_message; /* owned str, or NULL */
    PyObject *token;          /* owned: of the activation by a scope or a wrapper */
    Span *outer;              /* owned: what was current when it was activated */
    unsigned char status;     /* 0 UNSET, 1 OK, 2 ERROR */
    bool abandoned;           /* ended where the context could not be put back */
    Attributes attributes;
    Attribute inline_entries[INLINE_ATTRIBUTES];
    Buffer events;
    uint32_t event_count;
};

uint32_t key_hash(const char *bytes, size_t size);

/* Starts a span under `parent` (NULL: a new trace). NULL, without an exception, when it cannot be
 * recorded. `name` is a str. */
Span *span_start(CoreState *state, PyObject *name, Span *parent);

/* The span that is current in this context, as a new reference; NULL when there is none. */
Span *context_current(CoreState *state);

/* Makes it current, and the one before current again. */
void span_activate(Span *span);
void span_deactivate(Span *span);

/* The same, for a step of a generator: the token is the caller's. NULL when it failed. */
PyObject *context_enter(CoreState *state, PyObject *span);
void context_leave(CoreState *state, PyObject *token);

/* Sets an attribute whose value is already encoded. False when there is no memory. */
bool attributes_set(Attributes *attributes, Attribute *inline_entries, const char *key,
                    size_t key_size, const char *value, size_t value_size);

/* Encodes and sets. `name` is the attribute's name, not yet encoded. */
void span_set_text_key(Span *span, const char *name, size_t name_size, PyObject *value);

/* Sets an encoded value under that name. */
void span_set_encoded(Span *span, const char *name, size_t name_size, const char *value,
                      size_t value_size);

/* Copies ready-made attributes into a span that has no attribute of those names. */
bool span_add_prepared(Span *span, const Attributes *prepared);

/* Sets outputs unless the program has set some (None does not count). */
void span_default_outputs(Span *span, PyObject *result);

/* Records the pending exception (which stays pending) as MLflow's context manager does: event and
 * status ERROR for an Exception, nothing for KeyboardInterrupt and its like. */
void span_record_pending(Span *span);

/* The same for an exception object; with_status: also set the status's message. */
void span_record_exception(Span *span, PyObject *exception, bool with_message);

/* Adds the event mlflow.chunk.item.N, whose value is an encoded item. */
void span_add_item(Span *span, uint32_t index, const char *item, size_t size);

/* Ends the span and hands its record to the ring. Does nothing the second time. */
void span_end(Span *span, uint64_t end_ns);

void attributes_free(Attributes *attributes, Attribute *inline_entries);

#define ATTR_INPUTS "mlflow.spanInputs"
#define ATTR_OUTPUTS "mlflow.spanOutputs"
#define ATTR_TYPE "mlflow.spanType"
#define ATTR_FUNCTION "mlflow.spanFunctionName"
#define ATTR_LOG_LEVEL "mlflow.spanLogLevel"
#define ATTR_TRACE_ID "mlflow.traceRequestId"
#define ATTR_DESCRIPTION "mlflow.spanDescription"
#define SIZED(literal) (literal), (sizeof(literal) - 1)

#endif
