/* errors.h: exceptions that must not reach the traced program. */
#ifndef FASTTRACE_ERRORS_H
#define FASTTRACE_ERRORS_H

#include "base/compat.h"

/* Swallows the pending exception, if there is one. A KeyboardInterrupt that fell into a hook is
 * raised again at the next chance, in the program that it was meant for. */
void swallow_exception(void);

/* Releases the result of a call that was made for its effect, or swallows its exception (NULL). */
void forget_result(PyObject *result);

/* Takes the pending exception as an object that has its traceback; the caller owns the three, and
 * gives them to PyErr_Restore or releases them. */
void take_exception(PyObject **type, PyObject **value, PyObject **traceback);

#endif
