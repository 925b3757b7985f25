/* context.h: the current span of a task or thread. See context.c. */
#ifndef FASTTRACE_CONTEXT_H
#define FASTTRACE_CONTEXT_H

#include "span.h"

/* The span that is current in this context, as a new reference; NULL when there is none. -1 when
 * that could not be found out (at the recursion limit, say): then nothing may be recorded, or it
 * would become a trace of its own. No exception is left set. */
int context_current(CoreState *state, Span **span);

/* Makes a span current, and the one before current again. */
void span_activate(Span *span);
void span_deactivate(Span *span);

/* The same, for a step of a generator: the token is the caller's. NULL when it failed. */
PyObject *context_enter(CoreState *state, PyObject *span);

/* Takes the token over. */
void context_leave(CoreState *state, PyObject *token);

#endif
