#include "base/getattr.h"

PyObject *attribute_named(PyObject *object, const char *name)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    PyObject *value = interned ? PyObject_GetAttr(object, interned) : NULL;
    Py_XDECREF(interned);
    return value;
}

PyObject *call_method(PyObject *object, const char *name, PyObject *argument)
{
    PyObject *method = attribute_named(object, name);
    PyObject *result = method ? PyObject_CallFunctionObjArgs(method, argument, NULL) : NULL;
    Py_XDECREF(method);
    return result;
}
