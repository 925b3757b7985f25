/* module.c: makes mlflow_fasttrace._core. It knows every part and holds no logic. */
#include "api/delivery.h"
#include "api/recording.h"
#include "base/ids.h"
#include "base/state.h"
#include "objects/live_span.h"
#include "objects/live_trace.h"
#include "objects/non_recording_span.h"
#include "objects/span_scope.h"
#include "objects/stream.h"
#include "objects/traced.h"
#include "spool/ring_reader.h"
#include "spool/ring_writer.h"
#include "spool/segment_reader.h"
#include "trace/attributes.h"
#include "trace/context.h"
#include "trace/span.h"

static int core_exec(PyObject *module)
{
    CoreState *state = state_of_module(module);
    int (*const add_type[])(PyObject *, CoreState *) = {
#define ADD_TYPE(name) name##_add_type,
        CORE_TYPES(ADD_TYPE)};

    attributes_prepare_keys();
    if (ids_seed() != 0) {
        PyErr_SetString(PyExc_OSError, "the system gives no random bytes for span ids");
        return -1;
    }
    for (size_t i = 0; i < sizeof add_type / sizeof *add_type; i++) {
        if (add_type[i](module, state) < 0) {
            return -1;
        }
    }
    if (recording_add_functions(module) < 0 || delivery_add_functions(module) < 0) {
        return -1;
    }
    if (state_init(module) < 0) {
        return -1;
    }
    return context_watch_collections(module);
}

static int core_clear(PyObject *module)
{
    span_free_unused(state_of_module(module));
    return state_clear(module);
}

static void core_free(void *module)
{
    span_free_unused(state_of_module((PyObject *)module));
    state_free(module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if defined(Py_GIL_DISABLED)
    /* One thread at a time is in a ring, a trace or a scratch buffer. */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mlflow_fasttrace._core",
    .m_doc = "The C core of mlflow-fasttrace. Its types and functions are documented in _core.pyi.",
    .m_size = sizeof(CoreState),
    .m_slots = core_slots,
    .m_traverse = state_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
