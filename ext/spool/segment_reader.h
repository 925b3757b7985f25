/* segment_reader.h: reading a segment, a Python type. See segment_reader.c. */
#ifndef FASTTRACE_SEGMENT_READER_H
#define FASTTRACE_SEGMENT_READER_H

#include "base/state.h"

RUNS_PYTHON int segment_reader_add_type(PyObject *module, CoreState *state);

#endif
