/* context.c: the current span of a task or thread.
 *
 * One ContextVar holds it; its value is the C span itself, or a non-recording span.
 * PyContextVar_* is not in the Limited API, so the variable's bound methods are kept and called.
 *
 * The variable is never set where the garbage collector may be running: before Python 3.12 it runs
 * in the middle of a ContextVar.set(), its own or the program's, and CPython crashes when a
 * finalizer sets a variable then (cpython issue 148891). Two things follow.
 *
 * A coroutine or generator that is closed may be closed by the collector: then what it made current
 * is left behind in the variable, and context_current() looks past it, to what was current before.
 * So it does where the variable could not be put back. What is around something stays known until
 * it was put back.
 *
 * In a traced call of a finalizer, which ends before the collection goes on, the state has what is
 * current (finalizer_current) and stands before the variable. The collector says when it is at
 * work.
 *
 * Nor is reading the variable there without an effect: ContextVar.get() remembers what it has
 * found, and in the middle of a reset(), which takes the value out, it remembers what is about to
 * go. So a collection in which the variable was read ends with a step into another context and out
 * of it, at which a thread forgets what its variables have found (forget_what_was_read). */
#include "trace/context.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "base/imports.h"

CurrentResult context_current(CoreState *state, Current **current)
{
    *current = NULL;
    if (UNLIKELY(state->current_span.get == NULL)) { /* the garbage collector has cleared it */
        return CURRENT_UNKNOWN;
    }
    PyObject *value = NULL;
    if (is_collecting(state)) {
        state->read_in_collection = true; /* here, or by the code that runs next */
        value = state->finalizer_current;
        Py_XINCREF(value);
    }
    if (LIKELY(value == NULL)) {
        value = PyObject_CallNoArgs(state->current_span.get);
    }
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

/* A token of the state's own: what was current in a finalizer before, or None. */
static PyObject *enter_in_finalizer(CoreState *state, PyObject *current)
{
    PyObject *before = state->finalizer_current;
    Py_INCREF(current);
    state->finalizer_current = current;
    if (before == NULL) {
        before = Py_None;
        Py_INCREF(before);
    }
    return before;
}

PyObject *context_enter(CoreState *state, PyObject *current)
{
    if (is_collecting(state)) {
        return enter_in_finalizer(state, current);
    }
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
    if (UNLIKELY(token == Py_None || is_current(state, token))) { /* see enter_in_finalizer() */
        bool nothing = token == Py_None || !is_collecting(state);
        set_shared(&state->finalizer_current, nothing ? NULL : token);
        Py_DECREF(token);
        return true;
    }
    if (is_collecting(state)) {
        Py_DECREF(token);
        return false;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(state->current_span.reset, token, NULL);
    forget_result(state, done);
    Py_DECREF(token);
    return done != NULL;
}

/* ---- the garbage collector ---- */

/* Has this thread's context variables look anew at what the context has. */
static void forget_what_was_read(CoreState *state)
{
    if (LIKELY(!state->read_in_collection) || state->copy_context == NULL) {
        return;
    }
    state->read_in_collection = false;
    PyObject *other = PyObject_CallNoArgs(state->copy_context);
    PyObject *done = other ? call_method(other, "run", state->copy_context) : NULL;
    forget_result(state, done);
    Py_XDECREF(other);
}

/* One of gc.callbacks: (phase, info). */
static PyObject *note_collection(PyObject *module, PyObject *args)
{
    CoreState *state = state_of_module(module);
    PyObject *phase, *info;
    if (!PyArg_ParseTuple(args, "UO", &phase, &info)) {
        return NULL;
    }
    bool starts = PyUnicode_CompareWithASCIIString(phase, "start") == 0;
    state->collecting_thread = starts ? PyThread_get_thread_ident() : 0;
    set_shared(&state->finalizer_current, NULL);
    forget_what_was_read(state);
    Py_RETURN_NONE;
}

void context_after_fork(CoreState *state)
{
    if (state->collecting_thread != PyThread_get_thread_ident()) {
        state->collecting_thread = 0;
        set_shared(&state->finalizer_current, NULL);
    }
}

static PyMethodDef note_collection_function = {
    "_note_collection", note_collection, METH_VARARGS,
    "_note_collection($module, phase, info, /)\n--\n\nOne of gc.callbacks."};

int context_watch_collections(PyObject *module)
{
    PyObject *version = PySys_GetObject("hexversion"); /* borrowed */
    if (version == NULL || PyLong_AsLong(version) >= 0x030c0000) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *function = PyCFunction_NewEx(&note_collection_function, module, NULL);
    PyObject *gc = function ? import_module("gc") : NULL;
    PyObject *callbacks = gc ? attribute_named(gc, "callbacks") : NULL;
    int result = callbacks ? PyList_Append(callbacks, function) : -1;
    Py_XDECREF(function);
    Py_XDECREF(gc);
    Py_XDECREF(callbacks);
    return result;
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
