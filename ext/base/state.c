#include "base/state.h"

#include "base/getattr.h"
#include "base/imports.h"

/* ---- making and unmaking ---- */

static PyObject *attribute_of(const char *module_name, const char *name)
{
    PyObject *module = import_module(module_name);
    PyObject *result = module ? attribute_named(module, name) : NULL;
    Py_XDECREF(module);
    return result;
}

/* A ContextVar of that name, whose default is None, added to the module. */
static PyObject *add_context_var(PyObject *module, const char *attribute, const char *name)
{
    PyObject *type = attribute_of("contextvars", "ContextVar");
    PyObject *args = type ? Py_BuildValue("(s)", name) : NULL;
    PyObject *kwargs = args ? Py_BuildValue("{sO}", "default", Py_None) : NULL;
    PyObject *variable = kwargs ? PyObject_Call(type, args, kwargs) : NULL;
    if (variable != NULL && PyModule_AddObjectRef(module, attribute, variable) < 0) {
        Py_CLEAR(variable);
    }
    Py_XDECREF(type);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return variable;
}

/* Makes a context variable and keeps bound methods of it in slots, by name, until a NULL. */
static int keep_context_var(PyObject *module, const char *attribute, const char *name,
                            const char *const *methods, PyObject **const *slots)
{
    PyObject *variable = add_context_var(module, attribute, name);
    int result = variable != NULL ? 0 : -1;
    for (int i = 0; result == 0 && methods[i] != NULL; i++) {
        *slots[i] = attribute_named(variable, methods[i]);
        result = *slots[i] != NULL ? 0 : -1;
    }
    Py_XDECREF(variable);
    return result;
}

int state_init(PyObject *module)
{
    CoreState *state = state_of_module(module);
    static const char *const get_set_reset[] = {"get", "set", "reset", NULL};
    static const char *const get[] = {"get", NULL}, *const set[] = {"set", NULL};
    PyObject **const current[] = {&state->current_span.get, &state->current_span.set,
                                  &state->current_span.reset};
    PyObject **const last[] = {&state->last_trace_id_set}, **const scope[] = {&state->scope_get};

    if (keep_context_var(module, "current_span_var", "mlflow_fasttrace.current_span", get_set_reset,
                         current) < 0 ||
        keep_context_var(module, "last_trace_id_var", "mlflow_fasttrace.last_trace_id", set, last) <
            0 ||
        keep_context_var(module, "scope_var", "mlflow_fasttrace.scope", get, scope) < 0) {
        return -1;
    }
    state->mlflow = UINT32_MAX; /* the newest, until follow_mlflow() says otherwise */
    state->sampling_bound = SAMPLE_ALL;
    set_shared(&state->modules, PyImport_GetModuleDict());
    state->runs_module = PyUnicode_InternFromString("mlflow.tracking.fluent");
    if (state->runs_module == NULL) {
        return -1;
    }
    state->method_type = attribute_of("types", "MethodType");
    state->copy_context = attribute_of("contextvars", "copy_context");
    return state->method_type != NULL && state->copy_context != NULL ? 0 : -1;
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
    for (unsigned i = 0; i < state->interruption_count; i++) {
        Py_VISIT(state->interruptions[i].exception);
        Py_VISIT(state->interruptions[i].caller);
    }
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
    while (state->interruption_count > 0) {
        Interruption last = state->interruptions[--state->interruption_count];
        Py_DECREF(last.exception);
        Py_XDECREF(last.caller);
    }
    return 0;
}

void state_free(void *module)
{
    CoreState *state = state_of_module((PyObject *)module);
    state_clear((PyObject *)module);
    for (size_t i = 0; i < SCRATCH_BUFFERS; i++) {
        buffer_free(&state->scratch[i]);
    }
    free(state->released);
}

int state_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, const char *name)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*slot == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, name, (PyObject *)*slot);
}

/* ---- owned slots ---- */

/* So many links of a chain are released inside one another. */
#define MAX_RELEASE_DEPTH 32

static bool release_later(CoreState *state, PyObject *object)
{
    if (state->released_count == state->released_room) {
        size_t room = state->released_room ? 2 * state->released_room : 64;
        PyObject **released = realloc(state->released, room * sizeof *released);
        if (released == NULL) {
            return false;
        }
        state->released = released;
        state->released_room = room;
    }
    state->released[state->released_count++] = object;
    return true;
}

void release_in_turn(CoreState *state, PyObject *object)
{
    if (object == NULL) {
        return;
    }
    if (state->release_depth >= MAX_RELEASE_DEPTH && release_later(state, object)) {
        return;
    }
    state->release_depth++;
    Py_DECREF(object);
    while (state->release_depth == 1 && state->released_count > 0) {
        Py_DECREF(state->released[--state->released_count]);
    }
    state->release_depth--;
}

/* ---- scratch buffers ---- */

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
    if (UNLIKELY(buffer->cap > BUFFER_LARGE)) { /* one huge value does not stay allocated */
        buffer_free(buffer);
    }
    state->scratch_used &= ~(1u << index);
}
