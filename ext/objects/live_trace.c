/* live_trace.c: a trace in flight: what the package reads and sets of it. */
#include "objects/live_trace.h"

#include "base/errors.h"
#include "trace/span.h"
#include "trace/trace_record.h"

static int trace_traverse(Trace *trace, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)trace));
    Py_VISIT(trace->tags);
    Py_VISIT(trace->metadata);
    Py_VISIT(trace->inherited_metadata);
    Py_VISIT(trace->assessments);
    Py_VISIT(trace->info);
    Py_VISIT(trace->whole_spans);
    return 0;
}

static int trace_clear(Trace *trace)
{
    Py_CLEAR(trace->tags);
    Py_CLEAR(trace->metadata);
    Py_CLEAR(trace->inherited_metadata);
    Py_CLEAR(trace->assessments);
    Py_CLEAR(trace->info);
    Py_CLEAR(trace->whole_spans);
    return 0;
}

static void trace_dealloc(Trace *trace)
{
    PyTypeObject *type = Py_TYPE(trace);
    PyObject_GC_UnTrack(trace);
    trace_release(trace);
    PyObject_GC_Del(trace);
    Py_DECREF(type);
}

/* A container of the trace, handed out: changes to it are the trace's. */
static PyObject *handed_out(Trace *trace, PyObject *container)
{
    Py_XINCREF(container);
    trace_track_with_spans(trace);
    return container;
}

/* The containers are made when they are first asked for. */
static PyObject *get_tags(Trace *trace, void *unused)
{
    (void)unused;
    if (trace->tags == NULL) {
        PyObject *name = trace->root_name; /* it may be replaced meanwhile */
        Py_INCREF(name);
        slot_fill(&trace->tags, Py_BuildValue("{sN}", NAME_TAG, name));
    }
    return handed_out(trace, trace->tags);
}

static PyObject *get_metadata(Trace *trace, void *unused)
{
    (void)unused;
    return handed_out(trace, slot_dict(&trace->metadata));
}

static PyObject *get_inherited(Trace *trace, void *unused)
{
    (void)unused;
    return handed_out(trace, slot_dict(&trace->inherited_metadata));
}

static PyObject *get_assessments(Trace *trace, void *unused)
{
    (void)unused;
    return handed_out(trace, slot_list(&trace->assessments));
}

static PyObject *get_id(Trace *trace, void *unused)
{
    (void)unused;
    return trace_id_str(trace);
}

static PyObject *get_start(Trace *trace, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(trace->root_start_ns);
}

static PyObject *get_complete(Trace *trace, void *unused)
{
    (void)unused;
    return PyBool_FromLong(trace_is_complete(trace));
}

static PyObject *get_destination(Trace *trace, void *unused)
{
    (void)unused;
    PyObject *destination = trace->destination != NULL ? trace->destination : Py_None;
    Py_INCREF(destination);
    return destination;
}

static PyObject *get_state(Trace *trace, void *unused)
{
    (void)unused;
    return PyLong_FromLong(trace->trace_state);
}

static int set_state(Trace *trace, PyObject *value, void *unused)
{
    (void)unused;
    long number = value ? PyLong_AsLong(value) : -1;
    if (number < STATE_UNSPECIFIED || number > STATE_IN_PROGRESS) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a trace's state is 0 to 3");
        }
        return -1;
    }
    trace->trace_state = (unsigned char)number;
    return 0;
}

static PyObject *get_remote(Trace *trace, void *unused)
{
    (void)unused;
    return PyBool_FromLong(trace->remote);
}

/* Has the trace hold its spans that end from now on until all have. 0, or -1 with an exception. */
static int hold_spans(Trace *trace)
{
    trace_track_with_spans(trace);
    return trace->open_spans == 0 || slot_list(&trace->whole_spans) != NULL ? 0 : -1;
}

static int set_info(Trace *trace, PyObject *value, void *unused)
{
    (void)unused;
    set_shared(&trace->info, value);
    /* MLflow's code that has a trace's info may ask for its spans too, ended ones included. */
    return hold_spans(trace);
}

static PyObject *get_text(Trace *trace, void *offset)
{
    PyObject *value = *(PyObject **)((char *)trace + (size_t)offset);
    if (value == NULL) {
        value = Py_None;
    }
    Py_INCREF(value);
    return value;
}

static int set_text(Trace *trace, PyObject *value, void *offset)
{
    if (value == NULL || !PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "a str is needed");
        return -1;
    }
    Py_INCREF(value);
    set_owned((PyObject **)((char *)trace + (size_t)offset), value);
    return 0;
}

#define TEXT(name)                                                                                 \
    {#name, (getter)get_text, (setter)set_text, "A str, or None.", (void *)offsetof(Trace, name)}

static PyGetSetDef trace_getset[] = {
    {"trace_id", (getter)get_id, NULL, "The id of the trace, tr-<32 hex digits>.", NULL},
    {"start_time_ns", (getter)get_start, NULL,
     "When its first span started (ns since the Unix epoch).", NULL},
    {"complete", (getter)get_complete, NULL, "Whether root and all other spans have ended.", NULL},
    {"destination", (getter)get_destination, NULL, "An encoded map, see encode().", NULL},
    {"tags", (getter)get_tags, NULL, "Tags, which may be changed.", NULL},
    {"metadata", (getter)get_metadata, NULL, "Metadata, which may be changed.", NULL},
    {"inherited_metadata", (getter)get_inherited, NULL,
     "Metadata of a trace that was added: gives way to the trace's own.", NULL},
    {"assessments", (getter)get_assessments, NULL, "Assessments as dictionaries.", NULL},
    {"state", (getter)get_state, (setter)set_state, "0 undecided, 1 OK, 2 ERROR.", NULL},
    TEXT(request_preview),
    TEXT(response_preview),
    TEXT(client_request_id),
    {"remote", (getter)get_remote, NULL, "Whether another process began it.", NULL},
    {"info", (getter)get_text, (setter)set_info, "The TraceInfo that was handed out, or None.",
     (void *)offsetof(Trace, info)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *spans(Trace *trace, PyObject *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    for (Span *span = trace->spans; list != NULL && span != NULL; span = span->next) {
        if (!span->remote && PyList_Append(list, (PyObject *)span) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    if (list != NULL && PyList_Reverse(list) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *keep_spans(Trace *trace, PyObject *unused)
{
    (void)unused;
    return hold_spans(trace) < 0 ? NULL : leave_core_with_none(trace->state);
}

static PyObject *rewrite(Trace *trace, PyObject *unused)
{
    (void)unused;
    if (trace_is_complete(trace)) {
        trace_rewrite(trace->state, trace);
    }
    return leave_core_with_none(trace->state);
}

static PyMethodDef trace_methods[] = {
    {"keep_spans", (PyCFunction)keep_spans, METH_NOARGS,
     "keep_spans($self, /)\n--\n\n"
     "Keep the spans that end from now on alive until all have ended."},
    {"rewrite", (PyCFunction)rewrite, METH_NOARGS,
     "rewrite($self, /)\n--\n\n"
     "Record once more what is known of a trace that has ended: something of it has changed."},
    {"spans", (PyCFunction)spans, METH_NOARGS,
     "spans($self, /)\n--\n\nThe spans that are alive, oldest first."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot trace_slots[] = {
    {Py_tp_dealloc, trace_dealloc},
    {Py_tp_traverse, trace_traverse},
    {Py_tp_clear, trace_clear},
    {Py_tp_getset, trace_getset},
    {Py_tp_methods, trace_methods},
    {Py_tp_doc, "A trace in flight."},
    {0, NULL},
};

static PyType_Spec trace_spec = {
    .name = "mlflow_fasttrace._core.Trace",
    .basicsize = sizeof(Trace),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = trace_slots,
};

int live_trace_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &trace_spec, &state->types.live_trace, "Trace");
}
