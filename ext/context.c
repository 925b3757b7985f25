/* context.c: the current span of a task or thread.
 *
 * One ContextVar holds it; its value is the C span itself. PyContextVar_* is not in the Limited
 * API, so the variable's bound methods are kept and called.
 *
 * The variable is never set where the garbage collector may be running (CPython 3.10 and 3.11 crash
 * when they are, see cpython issue 148891). A coroutine or generator that is closed may be closed
 * by the collector: then the span is marked as abandoned and stays in the variable, and whoever
 * finds it there looks past it, to what was current before. */
#include "context.h"

int context_current(CoreState *state, Span **span)
{
    *span = NULL;
    PyObject *current = PyObject_CallNoArgs(state->context_get);
    if (UNLIKELY(current == NULL)) {
        swallow_exception();
        return -1;
    }
    while (UNLIKELY(current != Py_None && Py_IS_TYPE(current, state->span_type) &&
                    ((Span *)current)->abandoned)) {
        PyObject *outer = (PyObject *)((Span *)current)->outer;
        if (outer == NULL) {
            outer = Py_None;
        }
        Py_INCREF(outer);
        Py_DECREF(current);
        current = outer;
    }
    if (current == Py_None || !Py_IS_TYPE(current, state->span_type)) {
        Py_DECREF(current);
        return 0;
    }
    *span = (Span *)current;
    return 0;
}

PyObject *context_enter(CoreState *state, PyObject *span)
{
    PyObject *token = PyObject_CallFunctionObjArgs(state->context_set, span, NULL);
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
    PyObject *done = PyObject_CallFunctionObjArgs(state->context_reset, token, NULL);
    if (UNLIKELY(done == NULL)) {
        swallow_exception();
    }
    Py_XDECREF(done);
    Py_DECREF(token);
}

void span_activate(Span *span) { span->token = context_enter(span->state, (PyObject *)span); }

void span_deactivate(Span *span)
{
    PyObject *token = span->token;
    span->token = NULL;
    context_leave(span->state, token);
    Py_CLEAR(span->outer);
}
