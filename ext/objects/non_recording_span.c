#include "objects/non_recording_span.h"

#include "trace/context.h"

static void non_recording_dealloc(NonRecordingSpan *span)
{
    PyTypeObject *type = Py_TYPE(span);
    CoreState *state = state_of_type(type);
    release_in_turn(state, span->current.token);
    release_in_turn(state, (PyObject *)span->current.outer);
    PyObject_Free(span);
    Py_DECREF(type);
}

static PyObject *non_recording_not_sampled(NonRecordingSpan *span, void *unused)
{
    (void)unused;
    return PyBool_FromLong(span->not_sampled);
}

static PyGetSetDef non_recording_getset[] = {
    {"not_sampled", (getter)non_recording_not_sampled, NULL, "Whether its trace is not sampled.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot non_recording_slots[] = {
    {Py_tp_getset, non_recording_getset},
    {Py_tp_dealloc, non_recording_dealloc},
    {Py_tp_doc, "Stands where a span would be current that is not recorded."},
    {0, NULL},
};

static PyType_Spec non_recording_spec = {
    .name = "mlflow_fasttrace._core.NonRecordingSpan",
    .basicsize = sizeof(NonRecordingSpan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = non_recording_slots,
};

int non_recording_span_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &non_recording_spec, &state->types.non_recording_span,
                          "NonRecordingSpan");
}
