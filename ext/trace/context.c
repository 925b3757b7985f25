/* context.c: the current span of a task or thread.
 *
 * One ContextVar holds it; its value is the C span itself, or a non-recording span.
 * PyContextVar_* is not in the Limited API, so the variable's bound methods are kept and called.
 *
 * The variable is never set where the garbage collector may be running (CPython 3.10 and 3.11 crash
 * when they are, see cpython issue 148891). A coroutine or generator that is closed may be closed
 * by the collector: then what it made current is marked as abandoned and stays in the variable, and
 * context_current() looks past it, to what was current before. */
#include "trace/context.h"

#include "base/errors.h"

CurrentResult context_current(CoreState *state, Current **current)
{
    *current = NULL;
    PyObject *value = PyObject_CallNoArgs(state->current_span.get);
    if (UNLIKELY(value == NULL)) {
        swallow_exception();
        return CURRENT_UNKNOWN;
    }
    while (UNLIKELY(is_current(state, value) && ((Current *)value)->abandoned)) {
        PyObject *outer = (PyObject *)((Current *)value)->outer;
        if (outer == NULL) {
            outer = Py_None;
        }
        Py_INCREF(outer);
        Py_DECREF(value);
        value = outer;
    }
    if (!is_current(state, value)) {
        Py_DECREF(value);
        return CURRENT_NONE;
    }
    *current = (Current *)value;
    return CURRENT_FOUND;
}

bool scope_disables(CoreState *state)
{
    PyObject *scope = PyObject_CallNoArgs(state->scope_get);
    if (scope == NULL) {
        swallow_exception();
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
        swallow_exception();
    }
    return token;
}

/* A token of another context cannot be taken back there: then that context keeps what it has. */
void context_leave(CoreState *state, PyObject *token)
{
    if (UNLIKELY(token == NULL)) {
        return;
    }
    forget_result(PyObject_CallFunctionObjArgs(state->current_span.reset, token, NULL));
    Py_DECREF(token);
}

void current_activate(CoreState *state, Current *current)
{
    current->token = context_enter(state, (PyObject *)current);
}

void current_deactivate(CoreState *state, Current *current)
{
    PyObject *token = current->token;
    current->token = NULL;
    context_leave(state, token);
    Py_CLEAR(current->outer);
}

void current_abandon(Current *current)
{
    current->abandoned = true;
    Py_CLEAR(current->token);
}

Current *non_recording_new(CoreState *state, bool not_sampled)
{
    NonRecordingSpan *span = PyObject_New(NonRecordingSpan, state->types.non_recording_span);
    if (span == NULL) {
        swallow_exception();
        return NULL;
    }
    span->current.token = NULL;
    span->current.outer = NULL;
    span->current.abandoned = false;
    span->not_sampled = not_sampled;
    return &span->current;
}
