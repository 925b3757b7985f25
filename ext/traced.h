/* traced.h: the callable that @trace makes of a function. See traced.c. */
#ifndef FASTTRACE_TRACED_H
#define FASTTRACE_TRACED_H

#include "span.h"

typedef enum {
    POSITIONAL_ONLY = 0,
    POSITIONAL_OR_KEYWORD = 1,
    VAR_POSITIONAL = 2,
    KEYWORD_ONLY = 3,
    VAR_KEYWORD = 4,
} ParameterKind; /* as inspect.Parameter numbers them */

typedef struct {
    PyObject *name;          /* owned, interned str */
    PyObject *default_value; /* owned, NULL where there is none */
    ParameterKind kind;
    bool is_self;                 /* left out of the inputs */
    uint32_t key_start, key_size; /* its encoded name in Traced.keys */
} Parameter;

typedef struct {
    PyObject_HEAD PyObject *weak_references;
    PyObject *shape;     /* owned function whose looks it has; NULL inside a shell */
    PyObject *arguments; /* owned tuple that it was made of: a copy by value is made of them */
    CoreState *state;
    PyObject *function;  /* owned */
    PyObject *span_name; /* owned str */
    PyObject *reducer;   /* owned; None but for generators */
    PyObject *rare;      /* owned; None, or (experiment id or None, None, links or None) */
    SpanOptions options; /* borrows from rare */
    bool has_options;
    Attributes prepared; /* what every span of it begins with */
    Attribute prepared_entries[INLINE_ATTRIBUTES];
    bool has_signature;
    Parameter *parameters; /* owned */
    Py_ssize_t parameter_count;
    Py_ssize_t positional_count;
    Py_ssize_t var_positional, var_keyword; /* index, or -1 */
    Buffer keys;
} Traced;

/* Starts the span of a call, as span_open() does: prepared attributes and inputs set, and made
 * current if asked. */
Current *traced_begin(Traced *self, PyObject *args, PyObject *kwargs, bool activate);

#endif
