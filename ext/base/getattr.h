/* getattr.h: attributes of Python objects, by their names in C. */
#ifndef FASTTRACE_GETATTR_H
#define FASTTRACE_GETATTR_H

#include "base/compat.h"

/* An attribute of an object; a new reference, or NULL with an exception.
 *
 * The name is the interpreter's one string of that text. PyObject_GetAttrString(), which compat.h
 * takes away, looks with a string of its own each time, and the interpreter's table of type
 * attributes, which knows names by their address, keeps each of them: thousands of strings stay
 * allocated, and what the program looks up itself is pushed out of the table. */
RUNS_PYTHON PyObject *attribute_named(PyObject *object, const char *name);

/* Calls a method with one argument; a new reference to what it returns, or NULL with an
 * exception. */
RUNS_PYTHON PyObject *call_method(PyObject *object, const char *name, PyObject *argument);

#endif
