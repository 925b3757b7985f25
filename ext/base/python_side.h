/* python_side.h: calls into the Python package.
 *
 * The core asks Python in two ways: through hooks, which the package sets (PYTHON_HOOKS in
 * state.h), and by importing a module of the package and calling a function of it, for what only a
 * program that asks for it needs. Everything here runs Python code. */
#ifndef FASTTRACE_PYTHON_SIDE_H
#define FASTTRACE_PYTHON_SIDE_H

#include "base/state.h"

/* Asks a hook, which must be set, with one argument or two (NULL: no such argument). A new
 * reference, or NULL with an exception. The hook may be replaced while it answers. */
RUNS_PYTHON PyObject *ask_hook(PyObject *hook, PyObject *first, PyObject *second);

/* Logs a line, rate-limited, through the hook. Keeps no exception and raises none. */
RUNS_PYTHON void warn(CoreState *state, const char *message);

/* The slot of the hook of that name; NULL when there is no such hook. */
PyObject **python_hook(CoreState *state, const char *name);

/* The modules of the package whose functions the core calls. */
#define SPANS_ENTITIES "mlflow_fasttrace._internal.spans.entities"
#define SPANS_COPIES "mlflow_fasttrace._internal.spans.copies"
#define SPANS_EVENT_ATTRIBUTES "mlflow_fasttrace._internal.spans.event_attributes"
#define SPANS_WRAPPERS "mlflow_fasttrace._internal.spans.wrappers"

/* Calls a function of one of these modules; `second` may be NULL. A new reference, or NULL with an
 * exception. */
RUNS_PYTHON PyObject *python_call(const char *module, const char *function, PyObject *first,
                                  PyObject *second);

/* Calls such a function with an argument tuple and keywords (or NULL), as they were given. */
RUNS_PYTHON PyObject *python_call_with(const char *module, const char *function, PyObject *args,
                                       PyObject *kwargs);

#endif
