/* stream.h: the span of a generator, from its first item to its end, a Python type. See stream.c.
 */
#ifndef FASTTRACE_STREAM_H
#define FASTTRACE_STREAM_H

#include "trace/span.h"

/* A stream over an iterator; `opened` as from span_open(): where it is no span the items only pass.
 * NULL with an exception. */
RUNS_PYTHON PyObject *stream_new(CoreState *state, Current *opened, PyObject *iterator,
                                 PyObject *reducer);

RUNS_PYTHON int stream_add_type(PyObject *module, CoreState *state);

#endif
