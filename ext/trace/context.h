/* context.h: the current span of a task or thread. See context.c. */
#ifndef FASTTRACE_CONTEXT_H
#define FASTTRACE_CONTEXT_H

#include "base/state.h"

/* What can be current: a span, or a non-recording one. Both begin with this. */
typedef struct Current {
    PyObject_HEAD PyObject *token; /* owned: of the activation, NULL when it is not active */
    struct Current *outer;         /* owned: what was current where it started, or NULL */
    bool left_behind; /* it may still stand in the context variable, but is not current any more */
} Current;

/* Stands where a span would be current that is not recorded.
 *
 * not_sampled: its trace is not sampled, and what starts inside belongs to that trace. Otherwise
 * tracing is off, and what starts inside once tracing is on again goes under `outer`. */
typedef struct {
    Current current;
    bool not_sampled;
} NonRecordingSpan;

static inline bool is_current(const CoreState *state, PyObject *value)
{
    return Py_IS_TYPE(value, state->types.live_span) ||
           Py_IS_TYPE(value, state->types.non_recording_span);
}

typedef enum {
    CURRENT_NONE,
    CURRENT_FOUND,
    CURRENT_UNKNOWN, /* at the recursion limit, say: what starts here may not be recorded, or it
                      * would become a trace of its own */
} CurrentResult;

/* What is current in this context, as a new reference in *current (NULL unless it is found). Leaves
 * no exception set. Runs Python code where a span that was left behind is released. */
RUNS_PYTHON CurrentResult context_current(CoreState *state, Current **current);

/* Whether the garbage collector runs in this thread, so that no context variable may be set; false
 * from Python 3.12 on, where it runs between instructions of Python code only. */
RUNS_PYTHON static inline bool is_collecting(const CoreState *state)
{
    return UNLIKELY(state->collecting_thread != 0) &&
           state->collecting_thread == PyThread_get_thread_ident();
}

/* Has the collector say when it is at work, where is_collecting() has to know. 0, or -1 with an
 * exception. */
RUNS_PYTHON int context_watch_collections(PyObject *module);

/* Forgets, in a forked child, a collection in another thread, which the child does not have: a new
 * thread may get its number. */
RUNS_PYTHON void context_after_fork(CoreState *state);

/* NULL, without an exception, when there is no memory. */
RUNS_PYTHON Current *non_recording_new(CoreState *state, bool not_sampled);

/* Whether mlflow.tracing.context(enabled=False) is in force here. */
RUNS_PYTHON bool scope_disables(CoreState *state);

/* Sets the context variable to `current`, which keeps the token. */
RUNS_PYTHON void current_activate(CoreState *state, Current *current);

/* Makes current again what was before current_activate(). Where the variable cannot be put back
 * (this is another task's or thread's context; at the recursion limit; without memory) `current` is
 * left behind. */
RUNS_PYTHON void current_deactivate(CoreState *state, Current *current);

/* Instead of deactivating, where the garbage collector may be at work: the context variable is left
 * alone, and `current` is left behind in it. Runs Python code: the token is released. */
RUNS_PYTHON void current_leave_behind(Current *current);

/* What is around `current` and was not left behind itself; borrowed, NULL for nothing. */
static inline Current *current_around(const Current *current)
{
    Current *outer = current->outer;
    while (outer != NULL && outer->left_behind) {
        outer = outer->outer;
    }
    return outer;
}

/* Makes `current` current for a step of a generator: the token is the caller's. NULL when it
 * failed. */
RUNS_PYTHON PyObject *context_enter(CoreState *state, PyObject *current);

/* Ends such a step; takes the token over, which may be NULL. False where the variable could not be
 * put back. */
RUNS_PYTHON bool context_leave(CoreState *state, PyObject *token);

#endif
