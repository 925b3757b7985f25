/* span_values.h: attributes, inputs and outputs of a span. */
#ifndef FASTTRACE_SPAN_VALUES_H
#define FASTTRACE_SPAN_VALUES_H

#include "trace/span.h"

/* An attribute's value, to be read before anything else happens to the span; false when it is not
 * set. Runs no Python code. */
bool span_find(const Span *span, KnownKey key, Reader *value);

/* Says in the log that a value has no room. */
RUNS_PYTHON void value_has_no_room(CoreState *state);

/* Sets an attribute to an encoded value; false when it is large or has no room: the old one stays
 * then. Runs no Python code. */
bool span_set_encoded(Span *span, KnownKey key, const char *value, size_t value_size);

/* Sets an attribute, unless the span has ended, to the value that a buffer of the caller's holds,
 * and says so where it has no room. The span may take over the memory of a large value, and leave
 * the buffer another one. */
RUNS_PYTHON void span_set_from(Span *span, KnownKey key, Buffer *value);

/* Where the value of an attribute that is not set yet may be written in place, in *room bytes; NULL
 * where it may not. Good until any Python code runs. Runs none itself. */
char *span_value_place(Span *span, KnownKey key, size_t *room);

/* Sets the attribute to what was written there. False where nothing of use was, 0 bytes: a pending
 * exception, which says why, is forgotten then. */
RUNS_PYTHON bool span_value_written(Span *span, KnownKey key, size_t size);

/* Encodes a value and sets an attribute to it. */
RUNS_PYTHON void span_set(Span *span, KnownKey key, PyObject *value);

/* Appends a value as inputs and outputs hold it: binary content in it has become attachments of the
 * span. Returns whether there was some. `repr`: as for encode_repr(). */
RUNS_PYTHON bool span_encode_payload(Span *span, Buffer *out, PyObject *value, PyObject *repr);

/* Sets inputs or outputs. */
RUNS_PYTHON void span_set_payload(Span *span, KnownKey key, PyObject *value);

/* Sets outputs unless the program has set some (None does not count). */
RUNS_PYTHON void span_default_outputs(Span *span, PyObject *result);

/* Sets an attribute, or those of a dictionary, as the program gives them; warns of what cannot be
 * set. */
RUNS_PYTHON void span_set_attribute(Span *span, PyObject *key, PyObject *value);
RUNS_PYTHON void span_set_attributes(Span *span, PyObject *attributes);

/* Whether attributes have a name that a span sets itself when it starts. Runs no Python code. */
bool attributes_name_a_first_one(const Attributes *attributes);

/* Copies ready-made attributes into a new span; `name_a_first_one` tells which way. False when
 * there is no room. Runs no Python code. */
bool span_add_prepared(Span *span, const Attributes *prepared, bool name_a_first_one);

#endif
