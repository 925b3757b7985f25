/* span_scope.h: the context manager, and decorator, that start_span() returns, a Python type. */
#ifndef FASTTRACE_SPAN_SCOPE_H
#define FASTTRACE_SPAN_SCOPE_H

#include "base/state.h"

RUNS_PYTHON int span_scope_add_type(PyObject *module, CoreState *state);

#endif
