/* module.c: mlflow_fasttrace._core: its state, and the functions that the thin package and the
 * sender call. */
#include "context.h"
#include "decode.h"
#include "encode.h"
#include "ids.h"
#include "json.h"
#include "otlp.h"
#include "ring.h"
#include "segment.h"
#include "span.h"

PyObject *segment_write(PyObject *module, PyObject *args);

static CoreState *module_state(PyObject *module) { return (CoreState *)PyModule_GetState(module); }

int state_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, const char *name)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*slot == NULL) {
        return -1;
    }
    if (name == NULL) {
        return 0;
    }
    return PyModule_AddObjectRef(module, name, (PyObject *)*slot);
}

Buffer *scratch_acquire(CoreState *state)
{
    unsigned count = sizeof state->scratch / sizeof *state->scratch;
    for (unsigned i = 0; i < count; i++) {
        if (!(state->scratch_used & 1u << i)) {
            state->scratch_used |= 1u << i;
            buffer_clear(&state->scratch[i]);
            return &state->scratch[i];
        }
    }
    return calloc(1, sizeof(Buffer)); /* deep re-entrance, or many threads inside hooks */
}

void scratch_release(CoreState *state, Buffer *buffer)
{
    static const size_t keep = 1u << 20; /* one huge value does not stay allocated */
    ptrdiff_t index = buffer - state->scratch;
    bool own = buffer >= state->scratch &&
               buffer < state->scratch + sizeof state->scratch / sizeof *state->scratch;
    if (!own) {
        buffer_free(buffer);
        free(buffer);
        return;
    }
    if (buffer->cap > keep) {
        buffer_free(buffer);
    }
    state->scratch_used &= ~(1u << index);
}

/* encode(value) -> bytes: one msgpack value. */
static PyObject *core_encode(PyObject *module, PyObject *value)
{
    Buffer out = {0};
    encode_value(module_state(module), &out, value);
    PyObject *bytes =
        out.failed ? PyErr_NoMemory() : PyBytes_FromStringAndSize(out.data, (Py_ssize_t)out.len);
    buffer_free(&out);
    return bytes;
}

/* ---- what the agent's runtime sets ---- */

static void replace(PyObject **slot, PyObject *value)
{
    Py_XINCREF(value);
    set_owned(slot, value);
}

/* set_destination(ring, destination, second_ring=None): where the traces that start from now on go.
 * `destination` is a dict; what goes to the ring goes to the second_ring too. (None, None):
 * start_recording is asked again at the next root. */
static PyObject *core_set_destination(PyObject *module, PyObject *args)
{
    CoreState *state = module_state(module);
    PyObject *ring, *destination, *second_ring = Py_None;
    if (!PyArg_ParseTuple(args, "OO|O:set_destination", &ring, &destination, &second_ring)) {
        return NULL;
    }
    if (ring == Py_None) {
        replace((PyObject **)&state->ring, NULL);
        replace((PyObject **)&state->second_ring, NULL);
        replace(&state->destination, NULL);
        Py_RETURN_NONE;
    }
    if (!Py_IS_TYPE(ring, state->ring_writer_type) || !PyDict_Check(destination) ||
        (second_ring != Py_None && !Py_IS_TYPE(second_ring, state->ring_writer_type))) {
        PyErr_SetString(PyExc_TypeError,
                        "set_destination() takes a RingWriter, a dict and perhaps a RingWriter");
        return NULL;
    }
    PyObject *bytes = core_encode(module, destination);
    if (bytes == NULL) {
        return NULL;
    }
    replace((PyObject **)&state->ring, ring);
    replace((PyObject **)&state->second_ring, second_ring == Py_None ? NULL : second_ring);
    replace(&state->destination, bytes);
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}

static PyObject *core_set_hook(PyObject *module, PyObject *args)
{
    CoreState *state = module_state(module);
    const struct {
        const char *name;
        PyObject **slot;
    } hooks[] = {
        {"encode_default", &state->encode_default},
        {"format_exception", &state->format_exception},
        {"start_recording", &state->start_recording},
        {"warn", &state->warn},
        {"extract_attachments", &state->extract_attachments},
        {"payload_repr", &state->payload_repr},
        {"root_context", &state->root_context},
        {"process_span", &state->process_span},
        {"trace_completed", &state->trace_completed},
        {"restart_sender", &state->restart_sender},
        {"take_info", &state->take_info},
        {"whole_trace_ended", &state->whole_trace_ended},
        {"external_parent", &state->external_parent},
    };
    const char *name;
    PyObject *callable;
    if (!PyArg_ParseTuple(args, "sO:set_hook", &name, &callable)) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        if (strcmp(hooks[i].name, name) == 0) {
            replace(hooks[i].slot, callable == Py_None ? NULL : callable);
            Py_RETURN_NONE;
        }
    }
    PyErr_Format(PyExc_ValueError, "no hook is called %s", name);
    return NULL;
}

static PyObject *core_set_enabled(PyObject *module, PyObject *enabled)
{
    int truth = PyObject_IsTrue(enabled);
    if (truth < 0) {
        return NULL;
    }
    module_state(module)->disabled = !truth;
    Py_RETURN_NONE;
}

static PyObject *core_enabled(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(!module_state(module)->disabled);
}

static PyObject *core_set_sampling(PyObject *module, PyObject *ratio)
{
    double value = PyFloat_AsDouble(ratio);
    if (value == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    module_state(module)->sampling_bound = sampling_bound(value);
    Py_RETURN_NONE;
}

/* From now on scope_var, and Python's root_context hook, are looked at. */
static PyObject *core_use_scopes(PyObject *module, PyObject *unused)
{
    (void)unused;
    module_state(module)->scoped = true;
    Py_RETURN_NONE;
}

static PyObject *core_current_span(PyObject *module, PyObject *unused)
{
    (void)unused;
    CoreState *state = module_state(module);
    Current *current;
    if (context_current(state, &current) < 0 || current == NULL) {
        Py_RETURN_NONE;
    }
    Span *span = as_span(state, current);
    if (span == NULL || UNLIKELY(span->remote)) {
        Py_DECREF((PyObject *)current);
        Py_RETURN_NONE;
    }
    if (UNLIKELY(span->has_twin)) {
        PyObject *object = PyDict_GetItemString(span->dict, "_twin"); /* borrowed */
        if (object != NULL) {
            Py_INCREF(object);
            Py_DECREF((PyObject *)span);
            return object;
        }
    }
    return (PyObject *)current;
}

/* What is current: a span, also one that is recorded elsewhere, or a non-recording one; None. */
static PyObject *core_current(PyObject *module, PyObject *unused)
{
    (void)unused;
    Current *current;
    if (context_current(module_state(module), &current) < 0 || current == NULL) {
        Py_RETURN_NONE;
    }
    return (PyObject *)current;
}

/* An int, or None, which leaves what is there. */
static bool read_uint64(PyObject *value, uint64_t *number)
{
    if (value == Py_None) {
        return true;
    }
    *number = PyLong_AsUnsignedLongLong(value);
    return !PyErr_Occurred();
}

/* start_span(name, parent or None, experiment id or None, start ns or None, span id or None,
 * parent id or None, trace id = None) -> a span that is not made current; None where it is not
 * recorded, or the non-recording span that stands for it where its trace is not sampled. Without a
 * parent it goes under what is current; with a trace id (bytes) it begins a trace, of that id
 * unless that is empty.
 */
static PyObject *core_start_span(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    CoreState *state = module_state(module);
    char *trace_id = NULL;
    Py_ssize_t trace_id_size = 0;
    bool not_sampled = false;
    SpanOptions options = {0};
    if (count < 6 || count > 7 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "start_span() takes a name and five or six more");
        return NULL;
    }
    PyObject *name = args[0], *parent = args[1], *experiment = args[2];
    if (!read_uint64(args[3], &options.start_ns) || !read_uint64(args[4], &options.id) ||
        !read_uint64(args[5], &options.parent_id) ||
        (count == 7 && args[6] != Py_None &&
         PyBytes_AsStringAndSize(args[6], &trace_id, &trace_id_size) < 0)) {
        return NULL;
    }
    options.root.experiment = experiment == Py_None ? NULL : experiment;
    Span *span = NULL;
    if (trace_id_size == TRACE_ID_SIZE) {
        options.root.trace_id = (const unsigned char *)trace_id;
        options.root.has_sampling = true;
        options.root.sampling_bound = SAMPLE_ALL;
    }
    if (parent == Py_None && trace_id == NULL) {
        Current *opened = span_open(state, name, &options);
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
    if (parent == Py_None) {
        if (!state->disabled && !(state->scoped && scope_disables(state))) {
            span = span_start(state, name, NULL, &options, &not_sampled);
        }
    }
    else if (!Py_IS_TYPE(parent, state->span_type)) {
        PyErr_SetString(PyExc_TypeError, "the parent is no span of this module");
        return NULL;
    }
    else if (!state->disabled && !(state->scoped && scope_disables(state))) {
        span = span_start(state, name, (Span *)parent, &options, &not_sampled);
    }
    PyObject *result = span != NULL  ? (PyObject *)span
                       : not_sampled ? (PyObject *)non_recording_new(state, true)
                                     : NULL;
    if (result == NULL) {
        Py_RETURN_NONE;
    }
    return result;
}

/* remote_span(trace id, span id, own info?) -> see span_remote(); None where nothing is recorded.
 */
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
        PyErr_SetString(PyExc_ValueError, "a trace's id has 16 bytes, and a span's is not 0");
        return NULL;
    }
    Span *span = span_remote(module_state(module), (const unsigned char *)trace_id, id, own_info);
    if (span == NULL) {
        Py_RETURN_NONE;
    }
    return (PyObject *)span;
}

/* non_recording_span(not sampled?): to be made current where spans are not recorded. */
static PyObject *core_non_recording_span(PyObject *module, PyObject *not_sampled)
{
    int truth = PyObject_IsTrue(not_sampled);
    if (truth < 0) {
        return NULL;
    }
    PyObject *span = (PyObject *)non_recording_new(module_state(module), truth);
    return span != NULL ? span : PyErr_NoMemory();
}

static PyObject *core_set_last_trace_id(PyObject *module, PyObject *id)
{
    CoreState *state = module_state(module);
    forget_result(PyObject_CallFunctionObjArgs(state->last_trace_id_set, id, NULL));
    replace(&state->last_trace_id, id == Py_None ? NULL : id);
    Py_RETURN_NONE;
}

/* A trace of this process that is not complete, or None. */
static PyObject *core_live_trace(PyObject *module, PyObject *id)
{
    Py_ssize_t size;
    const char *text = PyUnicode_Check(id) ? PyUnicode_AsUTF8AndSize(id, &size) : NULL;
    Trace *trace = text ? trace_find(module_state(module), text, (size_t)size) : NULL;
    PyErr_Clear();
    if (trace == NULL || trace_is_complete(trace)) {
        Py_RETURN_NONE;
    }
    Py_INCREF((PyObject *)trace);
    return (PyObject *)trace;
}

static PyObject *core_end_abandoned(PyObject *module, PyObject *unused)
{
    (void)unused;
    span_end_abandoned(module_state(module));
    Py_RETURN_NONE;
}

static PyObject *core_live_traces(PyObject *module, PyObject *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    Trace *trace = module_state(module)->traces;
    for (; list != NULL && trace != NULL; trace = trace->next) {
        if (!trace_is_complete(trace) && PyList_Append(list, (PyObject *)trace) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *core_last_trace_id(PyObject *module, PyObject *unused)
{
    (void)unused;
    CoreState *state = module_state(module);
    PyObject *id = state->last_trace_id ? state->last_trace_id : Py_None;
    Py_INCREF(id);
    return id;
}

/* ---- values: for tests, for the sender ---- */

static PyObject *core_decode(PyObject *module, PyObject *arg)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(arg, &bytes, &size) < 0) {
        return NULL;
    }
    Reader whole = reader_over(bytes, (size_t)size), value = whole;
    if (!reader_skip(&whole) || whole.at != whole.end) {
        PyErr_SetString(PyExc_ValueError, "not one msgpack value");
        return NULL;
    }
    return decode_value(&value);
}

static PyObject *core_json(PyObject *module, PyObject *args)
{
    (void)module;
    const char *bytes;
    Py_ssize_t size;
    int ascii = 0;
    if (!PyArg_ParseTuple(args, "y#|p:json_text", &bytes, &size, &ascii)) {
        return NULL;
    }
    Reader value = reader_over(bytes, (size_t)size);
    return decode_json_text(&value, ascii);
}

/* ---- records: for the sender ---- */

static int parse_span(SpanRecord *span, PyObject *record)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(record, &bytes, &size) < 0) {
        return -1;
    }
    if (span_record_parse(span, bytes, (size_t)size) < 0) {
        PyErr_SetString(PyExc_ValueError, "not a span record");
        return -1;
    }
    return 0;
}

static bool find_attribute(const SpanRecord *span, const char *name, Reader *value)
{
    Reader r = span->attributes_at;
    size_t size = strlen(name);
    for (uint32_t i = 0; i < span->attributes; i++) {
        Token key = reader_next(&r);
        if (key.kind == TOKEN_STR && key.size == size && memcmp(key.bytes, name, size) == 0) {
            *value = r;
            return true;
        }
        reader_skip(&r);
    }
    return false;
}

static PyObject *attribute_object(const SpanRecord *span, const char *name)
{
    Reader value;
    if (!find_attribute(span, name, &value)) {
        Py_RETURN_NONE;
    }
    return decode_value(&value);
}

static PyObject *attribute_json(const SpanRecord *span, const char *name)
{
    Reader value;
    if (!find_attribute(span, name, &value)) {
        Py_RETURN_NONE;
    }
    return decode_json_text(&value, false);
}

/* span_summary(record, roots' parent id = None) -> (span id, parent id or None, size of its JSON in
 * bytes, token usage, cost, inputs' JSON text, outputs' JSON text): what finishing a trace needs of
 * each span; the texts only of a root. */
static PyObject *core_span_summary(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *record;
    const char *roots_under = NULL;
    Py_ssize_t size_under = 0;
    SpanRecord span;
    if (!PyArg_ParseTuple(args, "O|z#:span_summary", &record, &roots_under, &size_under) ||
        parse_span(&span, record) < 0) {
        return NULL;
    }
    bool is_root =
        span.parent_id == NULL ||
        (size_under == SPAN_ID_SIZE && memcmp(span.parent_id, roots_under, SPAN_ID_SIZE) == 0);
    Buffer json = {0};
    bool whole = json_span(&json, &span);
    size_t size = json.len;
    buffer_free(&json);
    if (!whole) {
        PyErr_SetString(PyExc_ValueError, "damaged span record");
        return NULL;
    }
    PyObject *usage = attribute_object(&span, "mlflow.chat.tokenUsage"), *cost = NULL;
    PyObject *inputs = NULL, *outputs = NULL, *result = NULL;
    if (usage == NULL) {
        goto done;
    }
    cost = attribute_object(&span, "mlflow.llm.cost");
    if (cost == NULL) {
        goto done;
    }
    if (is_root) {
        inputs = attribute_json(&span, ATTR_INPUTS);
        outputs = inputs ? attribute_json(&span, ATTR_OUTPUTS) : NULL;
        if (outputs == NULL) {
            goto done;
        }
    }
    result =
        Py_BuildValue("(y#y#nOOOO)", span.span_id, (Py_ssize_t)SPAN_ID_SIZE, span.parent_id,
                      span.parent_id ? (Py_ssize_t)SPAN_ID_SIZE : (Py_ssize_t)0, (Py_ssize_t)size,
                      usage, cost, inputs ? inputs : Py_None, outputs ? outputs : Py_None);
done:
    Py_XDECREF(usage);
    Py_XDECREF(cost);
    Py_XDECREF(inputs);
    Py_XDECREF(outputs);
    return result;
}

/* span_json(record): the text of span.to_dict(), attributes as their JSON texts. */
static PyObject *core_span_json(PyObject *module, PyObject *record)
{
    (void)module;
    SpanRecord span;
    if (parse_span(&span, record) < 0) {
        return NULL;
    }
    Buffer json = {0};
    PyObject *text = NULL;
    if (json_span(&json, &span)) {
        text = PyUnicode_DecodeUTF8(json.data, (Py_ssize_t)json.len, NULL);
    }
    else {
        PyErr_SetString(PyExc_ValueError, "damaged span record");
    }
    buffer_free(&json);
    return text;
}

static int append_index(PyObject *list, Py_ssize_t i)
{
    PyObject *index = PyLong_FromSsize_t(i);
    int result = index ? PyList_Append(list, index) : -1;
    Py_XDECREF(index);
    return result;
}

/* otlp_request(records) -> (bytes of an ExportTraceServiceRequest, [indexes of records that could
 * not be encoded], [indexes of those that JSON would carry better]) */
static PyObject *core_otlp_request(PyObject *module, PyObject *records)
{
    (void)module;
    if (!PyList_Check(records)) {
        PyErr_SetString(PyExc_TypeError, "otlp_request() takes a list of span records");
        return NULL;
    }
    PyObject *refused = PyList_New(0), *inexact = PyList_New(0), *result = NULL;
    Buffer out = {0};
    if (refused == NULL || inexact == NULL) {
        goto done;
    }
    OtlpMarks marks;
    otlp_begin(&out, &marks, NULL);
    for (Py_ssize_t i = 0; i < PyList_Size(records); i++) {
        SpanRecord span;
        bool is_inexact = false;
        bool ok = parse_span(&span, PyList_GetItem(records, i)) == 0 &&
                  otlp_span(&out, &span, NULL, &is_inexact);
        if (out.failed) {
            PyErr_NoMemory();
            goto done;
        }
        if (!ok) {
            PyErr_Clear();
        }
        if ((!ok && append_index(refused, i) < 0) ||
            (ok && is_inexact && append_index(inexact, i) < 0)) {
            goto done;
        }
    }
    otlp_end(&out, marks);
    if (out.failed) {
        PyErr_NoMemory();
        goto done;
    }
    result = Py_BuildValue("(y#OO)", out.data, (Py_ssize_t)out.len, refused, inexact);
done:
    Py_XDECREF(refused);
    Py_XDECREF(inexact);
    buffer_free(&out);
    return result;
}

/* collector_request([(record, kind, encoded map of further attributes, name in UTF-8 or None),
 * ...], encoded map of the resource, attributes as JSON texts?) -> (bytes of an
 * ExportTraceServiceRequest, [indexes of records that could not be encoded]) */
static PyObject *core_collector_request(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *spans, *refused = NULL, *result = NULL;
    const char *bytes;
    Py_ssize_t size;
    int json;
    Buffer out = {0};
    if (!PyArg_ParseTuple(args, "Oy#p:collector_request", &spans, &bytes, &size, &json)) {
        return NULL;
    }
    if (!PyList_Check(spans)) {
        PyErr_SetString(PyExc_TypeError, "collector_request() takes a list of spans");
        return NULL;
    }
    OtlpMarks marks;
    Reader resource = reader_over(bytes, (size_t)size);
    if (!otlp_begin(&out, &marks, &resource)) {
        PyErr_SetString(PyExc_ValueError, "the resource is not an encoded map");
        goto done;
    }
    refused = PyList_New(0);
    if (refused == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(spans); i++) {
        CollectorForm form = {.json_attributes = json};
        PyObject *item = PyList_GetItem(spans, i), *record;
        unsigned long long kind;
        Py_ssize_t name_size;
        SpanRecord span;
        bool inexact = false;
        if (!PyTuple_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "a span is a tuple");
            goto done;
        }
        if (!PyArg_ParseTuple(item, "OKy#z#", &record, &kind, &bytes, &size, &form.name,
                              &name_size)) {
            goto done;
        }
        form.name_size = (size_t)name_size;
        form.kind = kind;
        form.extra = reader_over(bytes, (size_t)size);
        bool ok = parse_span(&span, record) == 0 && otlp_span(&out, &span, &form, &inexact);
        if (out.failed) {
            PyErr_NoMemory();
            goto done;
        }
        if (!ok) {
            PyErr_Clear();
            if (append_index(refused, i) < 0) {
                goto done;
            }
        }
    }
    otlp_end(&out, marks);
    if (out.failed) {
        PyErr_NoMemory();
        goto done;
    }
    result = Py_BuildValue("(y#O)", out.data, (Py_ssize_t)out.len, refused);
done:
    Py_XDECREF(refused);
    buffer_free(&out);
    return result;
}

static PyMethodDef core_functions[] = {
    {"set_destination", core_set_destination, METH_VARARGS, NULL},
    {"set_hook", core_set_hook, METH_VARARGS, NULL},
    {"set_enabled", core_set_enabled, METH_O, NULL},
    {"enabled", core_enabled, METH_NOARGS, NULL},
    {"set_sampling", core_set_sampling, METH_O, NULL},
    {"use_scopes", core_use_scopes, METH_NOARGS, NULL},
    {"start_span", (PyCFunction)(void (*)(void))core_start_span, METH_FASTCALL, NULL},
    {"remote_span", core_remote_span, METH_VARARGS, NULL},
    {"non_recording_span", core_non_recording_span, METH_O, NULL},
    {"set_last_trace_id", core_set_last_trace_id, METH_O, NULL},
    {"live_trace", core_live_trace, METH_O, NULL},
    {"live_traces", core_live_traces, METH_NOARGS, NULL},
    {"end_abandoned", core_end_abandoned, METH_NOARGS, NULL},
    {"current", core_current, METH_NOARGS, NULL},
    {"current_span", core_current_span, METH_NOARGS, NULL},
    {"last_trace_id", core_last_trace_id, METH_NOARGS, NULL},
    {"encode", core_encode, METH_O, NULL},
    {"decode", core_decode, METH_O, NULL},
    {"json_text", core_json, METH_VARARGS, NULL},
    {"span_summary", core_span_summary, METH_VARARGS, NULL},
    {"span_json", core_span_json, METH_O, NULL},
    {"otlp_request", core_otlp_request, METH_O, NULL},
    {"collector_request", core_collector_request, METH_VARARGS, NULL},
    {"write_segment", segment_write, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- making and unmaking the module ---- */

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

static int core_exec(PyObject *module)
{
    CoreState *state = module_state(module);
    PyObject *current = NULL, *last = NULL, *scope = NULL;
    int result = -1;

    if (ids_seed() != 0) {
        PyErr_SetString(PyExc_OSError, "the system gives no random bytes for span ids");
        return -1;
    }
    if (ring_add_types(module, state) < 0 || segment_add_types(module, state) < 0 ||
        context_add_types(module, state) < 0 || trace_add_types(module, state) < 0 ||
        live_span_add_types(module, state) < 0 || span_scope_add_types(module, state) < 0 ||
        traced_add_types(module, state) < 0 || generator_add_types(module, state) < 0) {
        return -1;
    }
    current = add_context_var(module, "current_span_var", "mlflow_fasttrace.current_span");
    last = add_context_var(module, "last_trace_id_var", "mlflow_fasttrace.last_trace_id");
    scope = add_context_var(module, "scope_var", "mlflow_fasttrace.scope");
    if (current == NULL || last == NULL || scope == NULL) {
        goto done;
    }
    state->context_get = PyObject_GetAttrString(current, "get");
    state->context_set = PyObject_GetAttrString(current, "set");
    state->context_reset = PyObject_GetAttrString(current, "reset");
    state->last_trace_id_set = PyObject_GetAttrString(last, "set");
    state->scope_get = PyObject_GetAttrString(scope, "get");
    state->runs_module = PyUnicode_InternFromString("mlflow.tracking.fluent");
    state->sampling_bound = SAMPLE_ALL;
    state->method_type = attribute_of("types", "MethodType");
    if (state->context_get == NULL || state->context_set == NULL || state->context_reset == NULL ||
        state->last_trace_id_set == NULL || state->method_type == NULL ||
        state->scope_get == NULL || state->runs_module == NULL) {
        goto done;
    }
    result = 0;
done:
    Py_XDECREF(current);
    Py_XDECREF(last);
    Py_XDECREF(scope);
    return result;
}

#define EACH_OBJECT(apply)                                                                         \
    apply(state->span_type);                                                                       \
    apply(state->non_recording_type);                                                              \
    apply(state->trace_type);                                                                      \
    apply(state->span_scope_type);                                                                 \
    apply(state->traced_type);                                                                     \
    apply(state->stream_type);                                                                     \
    apply(state->ring_writer_type);                                                                \
    apply(state->ring_reader_type);                                                                \
    apply(state->segment_reader_type);                                                             \
    apply(state->context_get);                                                                     \
    apply(state->context_set);                                                                     \
    apply(state->context_reset);                                                                   \
    apply(state->ring);                                                                            \
    apply(state->second_ring);                                                                     \
    apply(state->destination);                                                                     \
    apply(state->scope_get);                                                                       \
    apply(state->runs_module);                                                                     \
    apply(state->extract_attachments);                                                             \
    apply(state->payload_repr);                                                                    \
    apply(state->root_context);                                                                    \
    apply(state->process_span);                                                                    \
    apply(state->trace_completed);                                                                 \
    apply(state->abandoned);                                                                       \
    apply(state->restart_sender);                                                                  \
    apply(state->take_info);                                                                       \
    apply(state->whole_trace_ended);                                                               \
    apply(state->external_parent);                                                                 \
    apply(state->encode_default);                                                                  \
    apply(state->format_exception);                                                                \
    apply(state->start_recording);                                                                 \
    apply(state->warn);                                                                            \
    apply(state->method_type);                                                                     \
    apply(state->last_trace_id);                                                                   \
    apply(state->last_trace_id_set)

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    CoreState *state = module_state(module);
    EACH_OBJECT(Py_VISIT);
    return 0;
}

static int core_clear(PyObject *module)
{
    CoreState *state = module_state(module);
    EACH_OBJECT(Py_CLEAR);
    return 0;
}

static void core_free(void *module)
{
    CoreState *state = module_state((PyObject *)module);
    core_clear((PyObject *)module);
    for (size_t i = 0; i < sizeof state->scratch / sizeof *state->scratch; i++) {
        buffer_free(&state->scratch[i]);
    }
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mlflow_fasttrace._core",
    .m_doc = "The C core of mlflow-fasttrace.",
    .m_size = sizeof(CoreState),
    .m_methods = core_functions,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
