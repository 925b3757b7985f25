#include "base/python_side.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "base/imports.h"

PyObject *ask_hook(PyObject *hook, PyObject *first, PyObject *second)
{
    Py_INCREF(hook);
    PyObject *answer = PyObject_CallFunctionObjArgs(hook, first, second, NULL);
    Py_DECREF(hook);
    return answer;
}

void warn(CoreState *state, const char *message)
{
    if (state->hooks.warn == NULL) {
        return;
    }
    PyObject *text = PyUnicode_FromString(message);
    forget_result(state, text ? ask_hook(state->hooks.warn, text, NULL) : NULL);
    Py_XDECREF(text);
}

PyObject **python_hook(CoreState *state, const char *name)
{
    const struct {
        const char *name;
        PyObject **slot;
    } hooks[] = {
#define NAMED(hook) {#hook, &state->hooks.hook},
        PYTHON_HOOKS(NAMED)};
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        if (strcmp(hooks[i].name, name) == 0) {
            return hooks[i].slot;
        }
    }
    return NULL;
}

/* Whether modules can still be imported: at its very end the interpreter has none, and a call for
 * one ends the process. It empties `sys` first; nothing is found there without memory either. */
static bool can_import(void)
{
    PyObject *finders = PySys_GetObject("meta_path"); /* borrowed */
    return finders != NULL ? finders != Py_None : Py_IsInitialized() != 0;
}

static PyObject *function_of(const char *module_name, const char *function)
{
    if (!can_import()) {
        return PyErr_Format(PyExc_RuntimeError, "Python is shutting down: %s cannot be called",
                            function);
    }
    PyObject *module = import_module(module_name);
    PyObject *callable = module ? attribute_named(module, function) : NULL;
    Py_XDECREF(module);
    return callable;
}

PyObject *python_call(const char *module, const char *function, PyObject *first, PyObject *second)
{
    PyObject *callable = function_of(module, function);
    PyObject *result =
        callable ? PyObject_CallFunctionObjArgs(callable, first, second, NULL) : NULL;
    Py_XDECREF(callable);
    return result;
}

PyObject *python_call_with(const char *module, const char *function, PyObject *args,
                           PyObject *kwargs)
{
    PyObject *callable = function_of(module, function);
    PyObject *result = callable ? PyObject_Call(callable, args, kwargs) : NULL;
    Py_XDECREF(callable);
    return result;
}
