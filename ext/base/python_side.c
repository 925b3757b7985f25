#include "base/python_side.h"

#include "base/errors.h"

void warn(CoreState *state, const char *message)
{
    if (state->hooks.warn != NULL) {
        forget_result(PyObject_CallFunction(state->hooks.warn, "s", message));
    }
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

static PyObject *function_of(const char *module_name, const char *function)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *callable = module ? PyObject_GetAttrString(module, function) : NULL;
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
