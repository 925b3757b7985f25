/* context.c: the current span of a task or thread.
 *
 * One ContextVar holds it; its value is the C span itself, or a non-recording span.
 * PyContextVar_* is not in the Limited API, so the variable's bound methods are kept and called.
 *
 * The variable is never set where the garbage collector may be running (CPython 3.10 and 3.11 crash
 * when they are, see cpython issue 148891). A coroutine or generator that is closed may be closed
 * by the collector: then what it made current is left behind in the variable, and
 * context_current() looks past it, to what was current before. So it does where the variable could
 * not be put back. What is around something stays known until it was put back. */
#include "trace/context.h"

#include "base/errors.h"

CurrentResult context_current(CoreState *state, Current **current)
{
    *current = NULL;
    if (UNLIKELY(state->current_span.get == NULL)) { /* the garbage collector has cleared it */
        return CURRENT_UNKNOWN;
    }
    PyObject *value = PyObject_CallNoArgs(state->current_span.get);
    if (UNLIKELY(value == NULL)) {
        swallow_exception(state);
        return CURRENT_UNKNOWN;
    }
    if (!is_current(state, value)) {
        Py_DECREF(value);
        return CURRENT_NONE;
    }
    Current *found = (Current *)value;
    if (UNLIKELY(found->left_behind)) {
        found = current_around(found);
        Py_XINCREF((PyObject *)found);
        Py_DECREF(value);
    }
    *current = found;
    return found != NULL ? CURRENT_FOUND : CURRENT_NONE;
}

bool scope_disables(CoreState *state)
{
    PyObject *scope = PyObject_CallNoArgs(state->scope_get);
    if (scope == NULL) {
        swallow_exception(state);
        return false;
    }
    /* (metadata, tags, enabled), see tracing.py */
    bool disables =
        PyTuple_Check(scope) && PyTuple_Size(scope) == 3 && PyTuple_GetItem(scope, 2) == Py_False;
    Py_DECREF(scope);
    return disables;
}

PyObject *context_enter(CoreState *state, PyObject *current)
{
    PyObject *token = PyObject_CallFunctionObjArgs(state->current_span.set, current, NULL);
    if (UNLIKELY(token == NULL)) {
        swallow_exception(state);
    }
    return token;
}

bool context_leave(CoreState *state, PyObject *token)
{
    if (UNLIKELY(token == NULL)) {
        return true;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(state->current_span.reset, token, NULL);
    forget_result(state, done);
    Py_DECREF(token);
    return done != NULL;
}

void current_activate(CoreState *state, Current *current)
{
    current->token = context_enter(state, (PyObject *)current);
    /* Without memory for a token the variable may have been set all the same, and nothing can put
     * it back. */
    current->left_behind = current->token == NULL;
}

void current_deactivate(CoreState *state, Current *current)
{
    PyObject *token = current->token;
    current->token = NULL;
    if (UNLIKELY(!context_leave(state, token))) {
        current->left_behind = true;
    }
    if (LIKELY(!current->left_behind)) {
        Py_CLEAR(current->outer);
    }
}

void current_leave_behind(Current *current)
{
    current->left_behind = true;
    Py_CLEAR(current->token);
}

Current *non_recording_new(CoreState *state, bool not_sampled)
{
    if (UNLIKELY(state->types.non_recording_span == NULL)) { /* cleared by the garbage collector */
        return NULL;
    }
    NonRecordingSpan *span = PyObject_New(NonRecordingSpan, state->types.non_recording_span);
    if (span == NULL) {
        swallow_exception(state);
        return NULL;
    }
    span->current.token = NULL;
    span->current.outer = NULL;
    span->current.left_behind = false;
    span->not_sampled = not_sampled;
    return &span->current;
}
