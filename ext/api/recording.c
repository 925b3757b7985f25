/* recording.c: what the package calls on the program's side: where traces go, hooks, switches, and
 * spans and traces in flight. */
#include "api/recording.h"

#include "base/errors.h"
#include "base/python_side.h"
#include "trace/span.h"
#include "trace/span_end.h"
#include "trace/span_start.h"
#include "value/encode.h"

/* ---- where traces go, hooks, switches ---- */

static PyObject *core_set_destination(PyObject *module, PyObject *args)
{
    CoreState *state = state_of_module(module);
    PyObject *ring, *destination, *second_ring = Py_None;
    if (!PyArg_ParseTuple(args, "OO|O:set_destination", &ring, &destination, &second_ring)) {
        return NULL;
    }
    if (ring == Py_None) {
        set_shared((PyObject **)&state->ring, NULL);
        set_shared((PyObject **)&state->second_ring, NULL);
        set_shared(&state->destination, NULL);
        Py_RETURN_NONE;
    }
    if (!Py_IS_TYPE(ring, state->types.ring_writer) || !PyDict_Check(destination) ||
        (second_ring != Py_None && !Py_IS_TYPE(second_ring, state->types.ring_writer))) {
        PyErr_SetString(PyExc_TypeError,
                        "set_destination() takes a RingWriter, a dict and perhaps a RingWriter");
        return NULL;
    }
    PyObject *bytes = encode_to_bytes(state, destination);
    if (bytes == NULL) {
        return NULL;
    }
    set_shared((PyObject **)&state->ring, ring);
    set_shared((PyObject **)&state->second_ring, second_ring == Py_None ? NULL : second_ring);
    set_shared(&state->destination, bytes);
    Py_DECREF(bytes);
    return leave_core_with_none(state);
}

static PyObject *core_set_hook(PyObject *module, PyObject *args)
{
    const char *name;
    PyObject *callable;
    if (!PyArg_ParseTuple(args, "sO:set_hook", &name, &callable)) {
        return NULL;
    }
    PyObject **slot = python_hook(state_of_module(module), name);
    if (slot == NULL) {
        return PyErr_Format(PyExc_ValueError, "no hook is called %s", name);
    }
    set_shared(slot, callable == Py_None ? NULL : callable);
    Py_RETURN_NONE;
}

static PyObject *core_follow_mlflow(PyObject *module, PyObject *args)
{
    unsigned int major, minor;
    if (!PyArg_ParseTuple(args, "II:follow_mlflow", &major, &minor)) {
        return NULL;
    }
    state_of_module(module)->mlflow =
        MLFLOW(major < UINT16_MAX ? major : UINT16_MAX, minor < UINT16_MAX ? minor : UINT16_MAX);
    Py_RETURN_NONE;
}

static PyObject *core_set_enabled(PyObject *module, PyObject *enabled)
{
    int truth = PyObject_IsTrue(enabled);
    if (truth < 0) {
        return NULL;
    }
    state_of_module(module)->disabled = !truth;
    Py_RETURN_NONE;
}

static PyObject *core_enabled(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(!state_of_module(module)->disabled);
}

static PyObject *core_set_sampling(PyObject *module, PyObject *ratio)
{
    double value = PyFloat_AsDouble(ratio);
    if (value == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    state_of_module(module)->sampling_bound = sampling_bound_of_ratio(value);
    Py_RETURN_NONE;
}

static PyObject *core_use_scopes(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_of_module(module)->scoped = true;
    Py_RETURN_NONE;
}

/* ---- spans and traces ---- */

static PyObject *core_current(PyObject *module, PyObject *unused)
{
    (void)unused;
    Current *current;
    if (context_current(state_of_module(module), &current) != CURRENT_FOUND) {
        Py_RETURN_NONE;
    }
    return (PyObject *)current;
}

static PyObject *core_current_span(PyObject *module, PyObject *unused)
{
    (void)unused;
    CoreState *state = state_of_module(module);
    Current *current;
    if (context_current(state, &current) != CURRENT_FOUND) {
        Py_RETURN_NONE;
    }
    Span *span = as_span(state, current);
    if (span == NULL || UNLIKELY(span->remote)) {
        Py_DECREF((PyObject *)current);
        Py_RETURN_NONE;
    }
    if (UNLIKELY(span->has_twin)) {
        PyObject *dict = span->dict;
        Py_INCREF(dict);
        PyObject *twin = PyDict_GetItemString(dict, "_twin"); /* borrowed */
        Py_XINCREF(twin);
        Py_DECREF(dict);
        if (twin != NULL) {
            Py_DECREF((PyObject *)span);
            return twin;
        }
    }
    return (PyObject *)current;
}

/* What may be made current by Python code; NULL with an exception for anything else. */
static Current *as_current(CoreState *state, PyObject *object)
{
    if (!is_current(state, object)) {
        PyErr_SetString(PyExc_TypeError, "a span or a non-recording span can be current");
        return NULL;
    }
    return (Current *)object;
}

static PyObject *core_enter(PyObject *module, PyObject *object)
{
    CoreState *state = state_of_module(module);
    Current *current = as_current(state, object), *outer;
    if (current == NULL) {
        return NULL;
    }
    if (current->token != NULL || current->outer != NULL) {
        PyErr_SetString(PyExc_ValueError, "it has been current before");
        return NULL;
    }
    context_current(state, &outer);
    current->outer = outer;
    current_activate(state, current);
    return leave_core_with_none(state);
}

static PyObject *core_leave(PyObject *module, PyObject *object)
{
    CoreState *state = state_of_module(module);
    Current *current = as_current(state, object);
    if (current == NULL) {
        return NULL;
    }
    current_deactivate(state, current);
    return leave_core_with_none(state);
}

/* Reads an int; None leaves what is there. False with an exception. */
static bool read_uint64(PyObject *value, uint64_t *number)
{
    if (value == Py_None) {
        return true;
    }
    *number = PyLong_AsUnsignedLongLong(value);
    return !PyErr_Occurred();
}

/* A span that was started for the program, or what stands for one; where the program was
 * interrupted meanwhile the span is ended, and NULL with an exception. Takes it over. */
static PyObject *leave_with_started(CoreState *state, PyObject *started)
{
    if (UNLIKELY(is_interrupted(state)) && Py_IS_TYPE(started, state->types.live_span)) {
        span_end((Span *)started, 0);
    }
    return leave_core(state, started);
}

/* Starts a span under what is current, without making it current. A new reference; None where
 * nothing is recorded and nothing has to be known of that. */
static PyObject *start_where_program_stands(CoreState *state, PyObject *name,
                                            const SpanOptions *options)
{
    Current *opened = span_open(state, name, options);
    if (opened == NULL) {
        Py_RETURN_NONE;
    }
    Py_CLEAR(opened->outer); /* nobody will make it current and abandon it */
    if (as_span(state, opened) == NULL && !((NonRecordingSpan *)opened)->not_sampled) {
        Py_DECREF((PyObject *)opened);
        Py_RETURN_NONE;
    }
    return (PyObject *)opened;
}

static PyObject *core_start_span(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    CoreState *state = state_of_module(module);
    char *trace_id = NULL;
    Py_ssize_t trace_id_size = 0;
    SpanOptions options = {0};
    if (count < 6 || count > 7 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(
            PyExc_TypeError,
            "start_span() takes name (a str), parent, experiment_id, start_ns, span_id, "
            "parent_id and perhaps trace_id, by position");
        return NULL;
    }
    PyObject *name = args[0], *parent = args[1], *experiment = args[2];
    if (!read_uint64(args[3], &options.start_ns) || !read_uint64(args[4], &options.id) ||
        !read_uint64(args[5], &options.parent_id) ||
        (count == 7 && args[6] != Py_None &&
         PyBytes_AsStringAndSize(args[6], &trace_id, &trace_id_size) < 0)) {
        return NULL;
    }
    if (parent != Py_None && !Py_IS_TYPE(parent, state->types.live_span)) {
        return PyErr_Format(PyExc_TypeError, "parent must be a LiveSpan of this module or None");
    }
    options.root.experiment = experiment == Py_None ? NULL : experiment;
    if (trace_id_size != 0 && trace_id_size != TRACE_ID_SIZE) {
        return PyErr_Format(PyExc_ValueError, "a trace_id has 16 bytes, or none for a new one");
    }
    if (trace_id_size == TRACE_ID_SIZE) {
        options.root.trace_id = (const unsigned char *)trace_id;
        options.root.has_sampling = true;
        options.root.sampling_bound = SAMPLE_ALL;
    }
    if (parent == Py_None && trace_id == NULL) {
        return leave_with_started(state, start_where_program_stands(state, name, &options));
    }
    if (state->disabled) {
        span_left_out(state);
        Py_INCREF(Py_None);
        return leave_core(state, Py_None);
    }
    if (state->scoped && scope_disables(state)) {
        Py_RETURN_NONE;
    }
    Span *span;
    StartResult result =
        span_start(state, name, parent != Py_None ? (Span *)parent : NULL, &options, &span);
    if (result == START_RECORDED) {
        return leave_with_started(state, (PyObject *)span);
    }
    PyObject *left_out =
        result == START_NOT_SAMPLED ? (PyObject *)non_recording_new(state, true) : NULL;
    if (left_out == NULL) {
        Py_INCREF(Py_None);
        left_out = Py_None;
    }
    return leave_core(state, left_out);
}

static PyObject *core_remote_span(PyObject *module, PyObject *args)
{
    const char *trace_id;
    Py_ssize_t size;
    unsigned long long id;
    int own_info;
    if (!PyArg_ParseTuple(args, "y#Kp:remote_span", &trace_id, &size, &id, &own_info)) {
        return NULL;
    }
    if (size != TRACE_ID_SIZE || id == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "remote_span() takes a trace_id of 16 bytes and a span_id other than 0");
        return NULL;
    }
    CoreState *state = state_of_module(module);
    PyObject *span = (PyObject *)span_remote(state, (const unsigned char *)trace_id, id, own_info);
    if (span == NULL) {
        Py_INCREF(Py_None);
        span = Py_None;
    }
    return leave_core(state, span);
}

static PyObject *core_non_recording_span(PyObject *module, PyObject *not_sampled)
{
    int truth = PyObject_IsTrue(not_sampled);
    if (truth < 0) {
        return NULL;
    }
    PyObject *span = (PyObject *)non_recording_new(state_of_module(module), truth);
    return span != NULL ? span : PyErr_NoMemory();
}

static PyObject *core_set_last_trace_id(PyObject *module, PyObject *id)
{
    CoreState *state = state_of_module(module);
    if (state->last_trace_id_set != NULL) {
        forget_result(state, PyObject_CallFunctionObjArgs(state->last_trace_id_set, id, NULL));
    }
    set_shared(&state->last_trace_id, id == Py_None ? NULL : id);
    return leave_core_with_none(state);
}

static PyObject *core_live_trace(PyObject *module, PyObject *id)
{
    Py_ssize_t size;
    const char *text = PyUnicode_Check(id) ? PyUnicode_AsUTF8AndSize(id, &size) : NULL;
    Trace *trace = text ? trace_find(state_of_module(module), text, (size_t)size) : NULL;
    if (trace == NULL || trace_is_complete(trace)) {
        PyErr_Clear(); /* of a text that is no UTF-8 */
        Py_RETURN_NONE;
    }
    Py_INCREF((PyObject *)trace);
    return (PyObject *)trace;
}

static PyObject *core_end_abandoned(PyObject *module, PyObject *unused)
{
    (void)unused;
    CoreState *state = state_of_module(module);
    span_end_abandoned(state);
    return leave_core_with_none(state);
}

static PyObject *core_live_traces(PyObject *module, PyObject *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    Trace *trace = state_of_module(module)->traces;
    for (; list != NULL && trace != NULL; trace = trace->next) {
        if (!trace_is_complete(trace) && PyList_Append(list, (PyObject *)trace) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyObject *core_after_fork(PyObject *module, PyObject *unused)
{
    (void)unused;
    context_after_fork(state_of_module(module));
    Py_RETURN_NONE;
}

static PyObject *core_is_interruption(PyObject *module, PyObject *exception)
{
    (void)module;
    return PyBool_FromLong(is_interruption(exception));
}

static PyObject *core_last_trace_id(PyObject *module, PyObject *unused)
{
    (void)unused;
    CoreState *state = state_of_module(module);
    PyObject *id = state->last_trace_id ? state->last_trace_id : Py_None;
    Py_INCREF(id);
    return id;
}

static PyMethodDef functions[] = {
    {"set_destination", core_set_destination, METH_VARARGS,
     "set_destination($module, ring, destination, second_ring=None, /)\n--\n\n"
     "Say where the traces that start from now on go.\n\n"
     "What goes to the ring goes to the second one too (dual export). With (None, None) the hook\n"
     "start_recording is asked again at the next root."},
    {"set_hook", core_set_hook, METH_VARARGS,
     "set_hook($module, name, callable, /)\n--\n\n"
     "Set what answers when the core asks Python; None: nobody does."},
    {"follow_mlflow", core_follow_mlflow, METH_VARARGS,
     "follow_mlflow($module, major, minor, /)\n--\n\n"
     "Do as this release of MLflow does, where releases differ; the newest where it is not "
     "called."},
    {"set_enabled", core_set_enabled, METH_O,
     "set_enabled($module, enabled, /)\n--\n\n"
     "Record spans, or stop recording. Spans that are open go on to their end."},
    {"enabled", core_enabled, METH_NOARGS,
     "enabled($module, /)\n--\n\nWhether spans are recorded."},
    {"set_sampling", core_set_sampling, METH_O,
     "set_sampling($module, ratio, /)\n--\n\nSet the share of new traces, 0 to 1, that is "
     "recorded."},
    {"use_scopes", core_use_scopes, METH_NOARGS,
     "use_scopes($module, /)\n--\n\n"
     "From now on scope_var and the hook root_context are asked at every root."},
    {"current", core_current, METH_NOARGS,
     "current($module, /)\n--\n\n"
     "What is current: a span, also one that is recorded elsewhere, a non-recording one, or None."},
    {"current_span", core_current_span, METH_NOARGS,
     "current_span($module, /)\n--\n\n"
     "The span that the program stands in, as it knows it (a twin's is another one), or None."},
    {"enter", core_enter, METH_O,
     "enter($module, current, /)\n--\n\n"
     "Make a span of another process, or a non-recording one, current; once only."},
    {"leave", core_leave, METH_O,
     "leave($module, current, /)\n--\n\n"
     "Make current again what was so before enter(). Where that cannot be (in another task or "
     "thread,\n"
     "without memory), what was entered is looked past from now on."},
    {"start_span", (PyCFunction)(void (*)(void))core_start_span, METH_FASTCALL,
     "start_span($module, name, parent, experiment_id, start_ns, span_id, parent_id, "
     "trace_id=None, "
     "/)\n--\n\n"
     "Start a span without making it current.\n\n"
     "Without a parent it goes under what is current; with a trace_id (bytes) it begins a trace, "
     "of\n"
     "that id unless that is empty. None where it is not recorded, or a NonRecordingSpan where "
     "its\n"
     "trace is not sampled."},
    {"remote_span", core_remote_span, METH_VARARGS,
     "remote_span($module, trace_id, span_id, own_info, /)\n--\n\n"
     "A span that is recorded elsewhere, for spans of this process to stand under.\n\n"
     "own_info: nobody else says what is known of the trace as a whole. None where nothing is\n"
     "recorded."},
    {"non_recording_span", core_non_recording_span, METH_O,
     "non_recording_span($module, not_sampled, /)\n--\n\n"
     "A span to be made current where spans are not recorded."},
    {"end_abandoned", core_end_abandoned, METH_NOARGS,
     "end_abandoned($module, /)\n--\n\n"
     "End the abandoned spans: their context manager was released without being left."},
    {"live_trace", core_live_trace, METH_O,
     "live_trace($module, trace_id, /)\n--\n\n"
     "The trace of this process with that id (tr-...), until it is complete; None otherwise."},
    {"live_traces", core_live_traces, METH_NOARGS,
     "live_traces($module, /)\n--\n\nThe traces of this process that are not complete."},
    {"after_fork", core_after_fork, METH_NOARGS,
     "after_fork($module, /)\n--\n\nForget, in a forked child, what other threads of the parent "
     "did."},
    {"is_interruption", core_is_interruption, METH_O,
     "is_interruption($module, exception, /)\n--\n\n"
     "Whether an exception that came out of a value's or a hook's own code belongs to the "
     "program:\n"
     "a signal handler raised it, or it is one like KeyboardInterrupt, which is no Exception. A\n"
     "SystemExit that comes from no signal handler is the value's own."},
    {"last_trace_id", core_last_trace_id, METH_NOARGS,
     "last_trace_id($module, /)\n--\n\nThe id of the trace whose root ended last, or None."},
    {"set_last_trace_id", core_set_last_trace_id, METH_O,
     "set_last_trace_id($module, trace_id, /)\n--\n\nSet what last_trace_id() returns."},
    {NULL, NULL, 0, NULL},
};

int recording_add_functions(PyObject *module) { return PyModule_AddFunctions(module, functions); }
