/* live_span.h: the span as programs see it, a Python type. */
#ifndef FASTTRACE_LIVE_SPAN_H
#define FASTTRACE_LIVE_SPAN_H

#include "base/state.h"

RUNS_PYTHON int live_span_add_type(PyObject *module, CoreState *state);

#endif
