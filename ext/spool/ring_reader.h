/* ring_reader.h: the sender's end of a ring, a Python type. See ring_reader.c. */
#ifndef FASTTRACE_RING_READER_H
#define FASTTRACE_RING_READER_H

#include "base/state.h"

RUNS_PYTHON int ring_reader_add_type(PyObject *module, CoreState *state);

#endif
