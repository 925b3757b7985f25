#include "base/imports.h"

PyObject *import_module(const char *name)
{
    /* With a name to take from it the module itself is returned, not the package that it is in. */
    PyObject *taken = Py_BuildValue("(s)", "__name__");
    PyObject *module = taken ? PyImport_ImportModuleLevel(name, NULL, NULL, taken, 0) : NULL;
    Py_XDECREF(taken);
    return module;
}
