/* generator.h: the span of a generator, from its first item to its end. See generator.c. */
#ifndef FASTTRACE_GENERATOR_H
#define FASTTRACE_GENERATOR_H

#include "span.h"

/* `opened` as from span_open(): where it is no span the items only pass. */
PyObject *stream_new(CoreState *state, Current *opened, PyObject *iterator, PyObject *reducer);

#endif
