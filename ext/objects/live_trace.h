/* live_trace.h: a trace in flight as the package sees it, a Python type. */
#ifndef FASTTRACE_LIVE_TRACE_H
#define FASTTRACE_LIVE_TRACE_H

#include "base/state.h"

RUNS_PYTHON int live_trace_add_type(PyObject *module, CoreState *state);

#endif
