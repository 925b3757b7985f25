/* generator.h: the span of a generator, from its first item to its end. See generator.c. */
#ifndef FASTTRACE_GENERATOR_H
#define FASTTRACE_GENERATOR_H

#include "span.h"

/* `span` may be NULL: then the items only pass. */
PyObject *stream_new(CoreState *state, Span *span, PyObject *iterator, PyObject *reducer);

#endif
