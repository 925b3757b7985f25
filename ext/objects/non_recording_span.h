/* non_recording_span.h: stands where a span would be current that is not recorded, a Python type.
 */
#ifndef FASTTRACE_NON_RECORDING_SPAN_H
#define FASTTRACE_NON_RECORDING_SPAN_H

#include "base/state.h"

RUNS_PYTHON int non_recording_span_add_type(PyObject *module, CoreState *state);

#endif
