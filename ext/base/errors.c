#include "base/errors.h"

void swallow_exception(void)
{
    if (PyErr_Occurred() == NULL) {
        return;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    }
    PyErr_Clear();
}

void forget_result(PyObject *result)
{
    if (UNLIKELY(result == NULL)) {
        swallow_exception();
    }
    Py_XDECREF(result);
}

void take_exception(PyObject **type, PyObject **value, PyObject **traceback)
{
    PyErr_Fetch(type, value, traceback);
    PyErr_NormalizeException(type, value, traceback);
    if (*value != NULL && *traceback != NULL) {
        PyException_SetTraceback(*value, *traceback);
    }
}
