/* errors.h: exceptions in the middle of the core's work.
 *
 * The core asks hooks and runs the code of values. An error that comes of that costs the value that
 * it was about and goes no further. An interruption belongs to the program instead: whatever a
 * signal handler raised while the core's work went on, and what no value raises on its own account
 * (KeyboardInterrupt, CancelledError, gevent's Timeout: a BaseException that is neither an
 * Exception nor SystemExit). It is put aside, so that the work goes on without an exception set,
 * and leaves from the function of the core that the program called: each of them ends with
 * leave_core(). It does not leave from another one that is called in the meantime, by a finalizer
 * say, of which Python would swallow it: to these it is as if it were not there.
 *
 * Everything here runs Python code: releasing an exception can run a finalizer. */
#ifndef FASTTRACE_ERRORS_H
#define FASTTRACE_ERRORS_H

#include "base/state.h"

/* Ends the pending exception, if there is one: an interruption is put aside. */
RUNS_PYTHON void swallow_exception(CoreState *state);

/* Releases the result of a call that was made for its effect, or swallows its exception (NULL). */
RUNS_PYTHON void forget_result(CoreState *state, PyObject *result);

/* Takes the pending exception as an object that has its traceback; the caller owns the three, and
 * gives them to PyErr_Restore or releases them. */
RUNS_PYTHON void take_exception(PyObject **type, PyObject **value, PyObject **traceback);

/* Whether a value is a tuple, which PyArg_ParseTuple() takes for granted; a TypeError, which names
 * it, where it is none. */
RUNS_PYTHON bool need_tuple(PyObject *value, const char *name);

/* Whether an exception belongs to the program and not to what raised it in the middle of the core's
 * work. */
RUNS_PYTHON bool is_interruption(PyObject *exception);

/* ---- interruptions that are put aside for this thread ---- */

RUNS_PYTHON bool this_thread_is_interrupted(const CoreState *state);

/* Whether this thread has an interruption that leaves from here: then no more of the program's code
 * should run before it leaves. */
RUNS_PYTHON static inline bool is_interrupted(const CoreState *state)
{
    return UNLIKELY(state->interruption_count != 0) && this_thread_is_interrupted(state);
}

RUNS_PYTHON bool raise_interruption_of_this_thread(CoreState *state);

/* Raises this thread's interruption, on top of a pending exception. False, and all stays as it is,
 * where there is none that leaves from here. */
RUNS_PYTHON static inline bool raise_interruption(CoreState *state)
{
    return UNLIKELY(state->interruption_count != 0) && raise_interruption_of_this_thread(state);
}

/* The result of a function that the program called; NULL where this thread's interruption leaves
 * instead. Takes the result over, which is NULL where an exception is pending. */
RUNS_PYTHON static inline PyObject *leave_core(CoreState *state, PyObject *result)
{
    if (raise_interruption(state)) {
        Py_CLEAR(result);
    }
    return result;
}

/* What a function that returns None to the program returns. */
RUNS_PYTHON static inline PyObject *leave_core_with_none(CoreState *state)
{
    Py_INCREF(Py_None);
    return leave_core(state, Py_None);
}

#endif
