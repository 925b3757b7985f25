#include "base/errors.h"

#include "base/getattr.h"

void take_exception(PyObject **type, PyObject **value, PyObject **traceback)
{
    PyErr_Fetch(type, value, traceback);
    PyErr_NormalizeException(type, value, traceback);
    if (*value != NULL && *traceback != NULL) {
        PyException_SetTraceback(*value, *traceback);
    }
}

bool need_tuple(PyObject *value, const char *name)
{
    if (!PyTuple_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be a tuple", name);
        return false;
    }
    return true;
}

/* ---- whose an exception is ---- */

/* Of a code object: a function's, and one that takes *arguments. */
#define CO_OPTIMIZED_FLAG 0x1
#define CO_VARARGS_FLAG 0x4

static long number_of(PyObject *object, const char *name)
{
    PyObject *value = attribute_named(object, name);
    long number = value ? PyLong_AsLong(value) : -1;
    Py_XDECREF(value);
    return number;
}

/* Whether a frame is of a function that may be called with two arguments. */
static bool may_be_signal_handler(PyObject *frame)
{
    PyObject *code = attribute_named(frame, "f_code");
    long flags = code ? number_of(code, "co_flags") : 0;
    bool result = flags > 0 && (flags & CO_OPTIMIZED_FLAG) &&
                  ((flags & CO_VARARGS_FLAG) || number_of(code, "co_argcount") >= 2);
    Py_XDECREF(code);
    return result;
}

/* Empties the dict that a function's frame has made of its variables, when it was asked for them,
 * and keeps before Python 3.13. A variable with the exception that came through the frame would tie
 * all of them, and what the program has in them, to the next garbage collection. The frame has its
 * variables elsewhere and fills the dict anew when it is asked again. */
static void forget_locals(PyObject *frame, PyObject *locals)
{
    PyObject *tracer = attribute_named(frame, "f_trace");
    if (tracer == Py_None && PyDict_Check(locals)) { /* a debugger may have put something there */
        PyDict_Clear(locals);
    }
    Py_XDECREF(tracer);
}

/* Whether a frame's arguments are (number, frame that called it), which only a signal handler gets:
 * the frame that it interrupted. One that takes *arguments has them in a tuple. */
static bool is_signal_handler(PyObject *frame)
{
    bool result = false;
    PyObject *interrupted = NULL, *locals = NULL, *values = NULL;

    if (!may_be_signal_handler(frame)) {
        goto done;
    }
    interrupted = attribute_named(frame, "f_back");
    if (interrupted == NULL || interrupted == Py_None) {
        goto done;
    }
    locals = attribute_named(frame, "f_locals");
    if (locals == NULL) {
        goto done;
    }
    values = PyMapping_Values(locals);
    for (Py_ssize_t i = 0; values != NULL && !result && i < PyList_Size(values); i++) {
        PyObject *value = PyList_GetItem(values, i);
        result = value == interrupted || (PyTuple_Check(value) && PyTuple_Size(value) == 2 &&
                                          PyTuple_GetItem(value, 1) == interrupted);
    }
    forget_locals(frame, locals);
done:
    PyErr_Clear();
    Py_XDECREF(interrupted);
    Py_XDECREF(locals);
    Py_XDECREF(values);
    return result;
}

/* Whether a signal handler is among the frames that an exception came through. */
static bool came_from_signal_handler(PyObject *exception)
{
    bool found = false;
    PyObject *traceback = PyException_GetTraceback(exception);
    while (traceback != NULL && traceback != Py_None && !found) {
        PyObject *frame = attribute_named(traceback, "tb_frame");
        PyObject *next = frame ? attribute_named(traceback, "tb_next") : NULL;
        found = frame != NULL && is_signal_handler(frame);
        Py_XDECREF(frame);
        Py_DECREF(traceback);
        traceback = next;
    }
    Py_XDECREF(traceback);
    PyErr_Clear();
    return found;
}

bool is_interruption(PyObject *exception)
{
    bool may_be_an_error = PyErr_GivenExceptionMatches(exception, PyExc_Exception) ||
                           PyErr_GivenExceptionMatches(exception, PyExc_SystemExit);
    if (!may_be_an_error) {
        return true;
    }
    /* A RecursionError has a thousand frames, and no handler raises one on purpose. */
    return !PyErr_GivenExceptionMatches(exception, PyExc_RecursionError) &&
           came_from_signal_handler(exception);
}

/* ---- interruptions ---- */

/* The place of this thread's interruption; NULL where it has none. */
static Interruption *interruption_of_this_thread(CoreState *state)
{
    unsigned long thread = PyThread_get_thread_ident();
    for (unsigned i = 0; i < state->interruption_count; i++) {
        if (state->interruptions[i].thread == thread) {
            return &state->interruptions[i];
        }
    }
    return NULL;
}

/* Whether one frame was called, directly or not, by the other. Keeps the pending exception. */
static bool is_below(PyObject *frame, PyObject *other)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(frame);
    do {
        PyObject *back = attribute_named(frame, "f_back");
        Py_DECREF(frame);
        frame = back;
    } while (frame != NULL && frame != Py_None && frame != other);
    bool result = frame == other;
    Py_XDECREF(frame);
    PyErr_Restore(type, value, traceback); /* without memory for a frame this forgets an error */
    return result;
}

/* Whether this thread has an interruption that leaves from the function of the core that runs now:
 * not one whose own function is still at work and runs Python code, which has called this one. */
static bool leaves_from_here(CoreState *state)
{
    Interruption *place = interruption_of_this_thread(state);
    PyObject *now = place != NULL ? (PyObject *)PyEval_GetFrame() : NULL; /* borrowed */
    if (place == NULL || now == NULL || place->caller == NULL || LIKELY(now == place->caller)) {
        return place != NULL;
    }
    PyObject *caller = place->caller;
    Py_INCREF(caller);
    bool is_inside = is_below(now, caller);
    Py_DECREF(caller);
    return !is_inside;
}

bool this_thread_is_interrupted(const CoreState *state)
{
    return leaves_from_here((CoreState *)state);
}

/* Notes that an exception was raised while another one was being handled, whose reference it takes
 * over, unless it knows of one already. */
static void set_context(PyObject *exception, PyObject *earlier)
{
    PyObject *known = PyException_GetContext(exception);
    if (known == NULL && exception != earlier) {
        PyException_SetContext(exception, earlier);
        return;
    }
    Py_XDECREF(known);
    Py_DECREF(earlier);
}

/* Puts an exception aside for this thread; a later one comes first, as where one is raised in a
 * handler of the other. */
static void put_aside(CoreState *state, PyObject *exception)
{
    Interruption *place = interruption_of_this_thread(state);
    PyObject *caller = (PyObject *)PyEval_GetFrame(); /* borrowed */
    Py_INCREF(exception);
    if (place != NULL) {
        PyObject *earlier = place->exception;
        place->exception = exception;
        set_context(exception, earlier);
    }
    else if (state->interruption_count < MAX_INTERRUPTIONS) {
        Py_XINCREF(caller);
        state->interruptions[state->interruption_count++] = (Interruption){
            .thread = PyThread_get_thread_ident(), .exception = exception, .caller = caller};
    }
    else { /* as many threads at the same moment: then it is at least seen */
        Py_INCREF((PyObject *)Py_TYPE(exception));
        PyErr_Restore((PyObject *)Py_TYPE(exception), exception, NULL);
        PyErr_WriteUnraisable(NULL);
    }
}

void swallow_exception(CoreState *state)
{
    PyObject *type, *value, *traceback;
    if (PyErr_Occurred() == NULL) {
        return;
    }
    take_exception(&type, &value, &traceback);
    if (value != NULL && is_interruption(value)) {
        put_aside(state, value);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

void forget_result(CoreState *state, PyObject *result)
{
    if (UNLIKELY(result == NULL)) {
        swallow_exception(state);
    }
    Py_XDECREF(result);
}

bool raise_interruption_of_this_thread(CoreState *state)
{
    PyObject *type, *pending, *traceback;
    /* Asked for after Python code has run: other threads move theirs. */
    Interruption *place = leaves_from_here(state) ? interruption_of_this_thread(state) : NULL;
    if (place == NULL) {
        return false;
    }
    PyObject *exception = place->exception, *caller = place->caller;
    *place = state->interruptions[--state->interruption_count];
    take_exception(&type, &pending, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    if (pending != NULL) {
        set_context(exception, pending);
    }
    type = (PyObject *)Py_TYPE(exception);
    Py_INCREF(type);
    Py_XDECREF(caller); /* the program has more references to a frame that runs */
    PyErr_Restore(type, exception, PyException_GetTraceback(exception));
    return true;
}
