#include "base/state.h"

/* ---- making and unmaking ---- */

static PyObject *attribute_of(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *result = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return result;
}

/* A ContextVar of that name, added to the module. */
static PyObject *add_context_var(PyObject *module, const char *attribute, const char *name)
{
    PyObject *type = attribute_of("contextvars", "ContextVar"), *args = NULL, *kwargs = NULL;
    PyObject *variable = NULL;
    if (type == NULL) {
        return NULL;
    }
    args = Py_BuildValue("(s)", name);
    kwargs = Py_BuildValue("{sO}", "default", Py_None);
    if (args != NULL && kwargs != NULL) {
        variable = PyObject_Call(type, args, kwargs);
    }
    if (variable != NULL && PyModule_AddObjectRef(module, attribute, variable) < 0) {
        Py_CLEAR(variable);
    }
    Py_DECREF(type);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return variable;
}

int state_init(PyObject *module)
{
    CoreState *state = state_of_module(module);
    PyObject *current, *last, *scope = NULL;
    int result = -1;

    current = add_context_var(module, "current_span_var", "mlflow_fasttrace.current_span");
    last = add_context_var(module, "last_trace_id_var", "mlflow_fasttrace.last_trace_id");
    scope = add_context_var(module, "scope_var", "mlflow_fasttrace.scope");
    if (current == NULL || last == NULL || scope == NULL) {
        goto done;
    }
    state->current_span.get = PyObject_GetAttrString(current, "get");
    state->current_span.set = PyObject_GetAttrString(current, "set");
    state->current_span.reset = PyObject_GetAttrString(current, "reset");
    state->last_trace_id_set = PyObject_GetAttrString(last, "set");
    state->scope_get = PyObject_GetAttrString(scope, "get");
    state->runs_module = PyUnicode_InternFromString("mlflow.tracking.fluent");
    state->method_type = attribute_of("types", "MethodType");
    state->sampling_bound = SAMPLE_ALL;
    if (state->current_span.get != NULL && state->current_span.set != NULL &&
        state->current_span.reset != NULL && state->last_trace_id_set != NULL &&
        state->scope_get != NULL && state->runs_module != NULL && state->method_type != NULL) {
        result = 0;
    }
done:
    Py_XDECREF(current);
    Py_XDECREF(last);
    Py_XDECREF(scope);
    return result;
}

int state_traverse(PyObject *module, visitproc visit, void *arg)
{
    CoreState *state = state_of_module(module);
#define VISIT_TYPE(name) Py_VISIT(state->types.name);
#define VISIT_HOOK(name) Py_VISIT(state->hooks.name);
#define VISIT_OBJECT(name) Py_VISIT(state->name);
    CORE_TYPES(VISIT_TYPE)
    PYTHON_HOOKS(VISIT_HOOK)
    CORE_OBJECTS(VISIT_OBJECT)
    return 0;
}

int state_clear(PyObject *module)
{
    CoreState *state = state_of_module(module);
#define CLEAR_TYPE(name) Py_CLEAR(state->types.name);
#define CLEAR_HOOK(name) Py_CLEAR(state->hooks.name);
#define CLEAR_OBJECT(name) Py_CLEAR(state->name);
    CORE_TYPES(CLEAR_TYPE)
    PYTHON_HOOKS(CLEAR_HOOK)
    CORE_OBJECTS(CLEAR_OBJECT)
    return 0;
}

void state_free(void *module)
{
    CoreState *state = state_of_module((PyObject *)module);
    state_clear((PyObject *)module);
    for (size_t i = 0; i < SCRATCH_BUFFERS; i++) {
        buffer_free(&state->scratch[i]);
    }
}

int state_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, const char *name)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*slot == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, name, (PyObject *)*slot);
}

/* ---- scratch buffers ---- */

/* One huge value does not stay allocated. */
#define SCRATCH_KEPT_BYTES ((size_t)1 << 20)

Buffer *scratch_acquire(CoreState *state)
{
    unsigned unused = ~state->scratch_used & ((1u << SCRATCH_BUFFERS) - 1);
    if (UNLIKELY(unused == 0)) {
        return calloc(1, sizeof(Buffer)); /* deep re-entrance, or many threads inside hooks */
    }
    state->scratch_used |= unused & -unused;
    Buffer *buffer = &state->scratch[__builtin_ctz(unused)];
    buffer_clear(buffer);
    return buffer;
}

void scratch_release(CoreState *state, Buffer *buffer)
{
    size_t index = ((uintptr_t)buffer - (uintptr_t)state->scratch) / sizeof *buffer;
    if (UNLIKELY(index >= SCRATCH_BUFFERS)) {
        buffer_free(buffer);
        free(buffer);
        return;
    }
    if (UNLIKELY(buffer->cap > SCRATCH_KEPT_BYTES)) {
        buffer_free(buffer);
    }
    state->scratch_used &= ~(1u << index);
}
