/* traced.h: the callable that @trace makes of a function, a Python type. See traced.c. */
#ifndef FASTTRACE_TRACED_H
#define FASTTRACE_TRACED_H

#include "base/state.h"

RUNS_PYTHON int traced_add_type(PyObject *module, CoreState *state);

#endif
