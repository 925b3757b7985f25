/* context.h: the current span of a task or thread. See context.c. */
#ifndef FASTTRACE_CONTEXT_H
#define FASTTRACE_CONTEXT_H

#include "state.h"

/* What can be current: a span, or a non-recording one. Both begin with this. */
typedef struct Current {
    PyObject_HEAD PyObject *token; /* owned: of the activation, NULL when it is not active */
    struct Current *outer;         /* owned: what was current where it started, or NULL */
    bool abandoned;                /* ended where the context could not be put back */
} Current;

/* Stands where a span would be current that is not recorded. */
typedef struct {
    Current current;
    bool not_sampled; /* its trace is not sampled, and what starts inside belongs to that trace;
                       * otherwise tracing is off, and what starts inside once it is on again goes
                       * under `outer` */
} NonRecordingSpan;

static inline bool is_current(const CoreState *state, PyObject *value)
{
    return Py_IS_TYPE(value, state->span_type) || Py_IS_TYPE(value, state->non_recording_type);
}

/* What is current in this context, as a new reference; NULL when nothing is. -1 when that could not
 * be found out (at the recursion limit, say): then nothing may be recorded, or it would become a
 * trace of its own. No exception is left set. */
int context_current(CoreState *state, Current **current);

/* NULL, without an exception, when there is no memory. */
Current *non_recording_new(CoreState *state, bool not_sampled);

/* Whether mlflow.tracing.context(enabled=False) is in force here. */
bool scope_disables(CoreState *state);

/* Makes it current, and what was before current again. */
void current_activate(CoreState *state, Current *current);
void current_deactivate(CoreState *state, Current *current);

/* Instead of deactivating, where the garbage collector may be at work: whoever finds it current
 * looks past it. */
void current_abandon(Current *current);

/* Activation for a step of a generator: the token is the caller's. NULL when it failed. */
PyObject *context_enter(CoreState *state, PyObject *current);

/* Takes the token over. */
void context_leave(CoreState *state, PyObject *token);

#endif
