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
    bool has_holes; /* otherwise `values` is exactly the entries, in order */
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

/* Starts a span under `parent` (NULL: a new trace). NULL, without an exception, when it cannot be
 * recorded. `name` is a str. */
Span *span_start(CoreState *state, PyObject *name, Span *parent);

/* An attribute's encoded name, and its hash. */
typedef struct {
    const char *bytes;
    uint32_t size;
    uint32_t hash;
} Key;

/* The names that this project sets itself; encoded in span.c. */
typedef enum {
    KEY_TRACE_ID,
    KEY_TYPE,
    KEY_FUNCTION,
    KEY_INPUTS,
    KEY_OUTPUTS,
    KEY_LOG_LEVEL,
    KEY_DESCRIPTION,
    KNOWN_KEYS,
} KnownKey;

/* A key from an encoded name; the bytes stay the caller's. */
Key key_of(const char *bytes, size_t size);

/* Sets an attribute whose value is already encoded. False when there is no memory. */
bool attributes_set(Attributes *attributes, Attribute *inline_entries, Key key, const char *value,
                    size_t value_size);

/* Encodes and sets. */
void span_set(Span *span, KnownKey key, PyObject *value);

/* Sets an encoded value. */
void span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size);

/* Copies ready-made attributes into a span that has no attribute of those names. */
bool span_add_prepared(Span *span, const Attributes *prepared);

/* Sets outputs unless the program has set some (None does not count). */
void span_default_outputs(Span *span, PyObject *result);

/* Records the pending exception (which stays pending) as MLflow's context manager does: event and
 * status ERROR for an Exception, nothing for KeyboardInterrupt and its like. */
void span_record_pending(Span *span);

/* The same for an exception object; with_message: the status says it too. */
void span_record_exception(Span *span, PyObject *exception, bool with_message);

/* Adds the event mlflow.chunk.item.N, whose value is an encoded item. */
void span_add_item(Span *span, uint32_t index, const char *item, size_t size);

/* Ends the span and hands its record to the ring. Does nothing the second time. */
void span_end(Span *span, uint64_t end_ns);

void attributes_free(Attributes *attributes, Attribute *inline_entries);

#define ATTR_INPUTS "mlflow.spanInputs"
#define ATTR_OUTPUTS "mlflow.spanOutputs"
#define SIZED(literal) (literal), (sizeof(literal) - 1)

#endif
