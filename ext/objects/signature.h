/* signature.h: the parameters of a traced function, and a call's arguments as the inputs of its
 * span.
 *
 * The signature is read once, at decoration, by Python; here a call's arguments are matched with
 * the parameters as inspect.Signature.bind and apply_defaults would, and encoded under the
 * parameters' names, which were encoded at decoration. */
#ifndef FASTTRACE_SIGNATURE_H
#define FASTTRACE_SIGNATURE_H

#include "trace/span.h"

/* As inspect.Parameter numbers them. */
typedef enum {
    POSITIONAL_ONLY = 0,
    POSITIONAL_OR_KEYWORD = 1,
    VAR_POSITIONAL = 2,
    KEYWORD_ONLY = 3,
    VAR_KEYWORD = 4,
} ParameterKind;

typedef struct {
    PyObject *name;          /* owned, interned str */
    PyObject *default_value; /* owned, NULL where there is none */
    ParameterKind kind;
    bool is_self;                 /* left out of the inputs */
    uint32_t key_start, key_size; /* its encoded name in Signature.keys */
} Parameter;

typedef struct {
    bool known;            /* otherwise inputs are recorded as None */
    Parameter *parameters; /* owned */
    Py_ssize_t parameter_count;
    Py_ssize_t positional_count;
    Py_ssize_t var_positional, var_keyword; /* index, or -1 */
    Buffer keys;                            /* the encoded names, one after another */
} Signature;

/* Reads [(name, kind, default or nothing)], a list; anything else leaves the signature unknown. The
 * signature must be zeroed. 0, or -1 with an exception. */
RUNS_PYTHON int signature_read(Signature *signature, PyObject *parameters);

/* Sets the inputs of a span to a call's arguments. Arguments that do not fit are recorded as None:
 * the function itself raises its TypeError. `kwargs` may be NULL. Sets no exception; runs Python
 * code. */
RUNS_PYTHON void signature_set_inputs(const Signature *signature, Span *span, PyObject *args,
                                      PyObject *kwargs);

int signature_traverse(Signature *signature, visitproc visit, void *arg);
RUNS_PYTHON void signature_clear(Signature *signature);
RUNS_PYTHON void signature_free(Signature *signature);

#endif
