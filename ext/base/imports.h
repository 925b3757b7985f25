/* imports.h: modules of Python. */
#ifndef FASTTRACE_IMPORTS_H
#define FASTTRACE_IMPORTS_H

#include "base/compat.h"

/* A module by its full name, imported if need be; a new reference, or NULL with an exception.
 *
 * PyImport_ImportModule() would ask the builtins of the frame that runs, which may be without
 * `__import__`: eval() gives code any builtins, as a named tuple's constructor has none, and a
 * finalizer may run in the middle of it. */
RUNS_PYTHON PyObject *import_module(const char *name);

#endif
