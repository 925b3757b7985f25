/* trace.c: what the spans of one trace share, and the trace records.
 *
 * A trace record is written when the first span of the trace that is not its root ends (so that a
 * crash leaves what the sender needs to deliver the spans), when the root ends while others are
 * open, and when the last span ends. A trace of one span writes one. */
#include "trace.h"

#include "encode.h"
#include "ids.h"
#include "ring.h"
#include "span.h"

#define NAME_TAG "mlflow.traceName"

static const char hex_digits[] = "0123456789abcdef";

PyObject *trace_id_str(const Trace *trace)
{
    return PyUnicode_DecodeUTF8(trace->id_text, TRACE_ID_TEXT_SIZE, NULL);
}

void trace_id_text(char text[TRACE_ID_TEXT_SIZE], const unsigned char id[TRACE_ID_SIZE])
{
    memcpy(text, "tr-", 3);
    for (int i = 0; i < TRACE_ID_SIZE; i++) {
        text[3 + 2 * i] = hex_digits[id[i] >> 4];
        text[4 + 2 * i] = hex_digits[id[i] & 15];
    }
}

void trace_set_name(Trace *trace, PyObject *name)
{
    if (trace->tags != NULL && PyDict_SetItemString(trace->tags, NAME_TAG, name) < 0) {
        swallow_exception();
    }
    Py_INCREF(name);
    set_owned(&trace->root_name, name);
}

/* Where traces go is worked out by Python, once: it makes the ring and starts the sender. Other
 * threads that come in the meantime wait for it there. */
static bool ensure_runtime(CoreState *state)
{
    if (LIKELY(state->ring != NULL && ring_is_ours(state->ring))) {
        return true;
    }
    if (state->start_recording == NULL) {
        return false;
    }
    forget_result(PyObject_CallNoArgs(state->start_recording));
    return state->ring != NULL && ring_is_ours(state->ring);
}

uint64_t sampling_bound(double ratio)
{
    if (!(ratio < 1.0)) {
        return SAMPLE_ALL;
    }
    return ratio <= 0.0 ? 0 : (uint64_t)(ratio * 18446744073709551616.0);
}

/* As OpenTelemetry decides by ratio: by the lower half of the id. */
static bool is_sampled(const Trace *trace, uint64_t bound)
{
    uint64_t lower = 0;
    for (int i = TRACE_ID_SIZE / 2; i < TRACE_ID_SIZE; i++) {
        lower = lower << 8 | trace->id[i];
    }
    return lower < bound;
}

/* What Python knows of a new trace: its experiment, an active run or model, an enclosing
 * mlflow.tracing.context(). */
static void take_context(CoreState *state, Trace *trace, PyObject *experiment)
{
    PyObject *destination, *metadata, *tags;
    int whole = 0;
    PyObject *known =
        PyObject_CallFunctionObjArgs(state->root_context, experiment ? experiment : Py_None, NULL);
    if (known == NULL ||
        !PyArg_ParseTuple(known, "OOO|p", &destination, &metadata, &tags, &whole)) {
        swallow_exception();
        Py_XDECREF(known);
        return;
    }
    if (PyBytes_Check(destination)) {
        Py_INCREF(destination);
        set_owned(&trace->destination, destination);
    }
    if (PyDict_Check(metadata)) {
        Py_INCREF(metadata);
        set_owned(&trace->metadata, metadata);
    }
    if (PyDict_Check(tags)) {
        Py_INCREF(tags);
        set_owned(&trace->tags, tags);
        if (PyDict_SetItemString(tags, NAME_TAG, trace->root_name) < 0) {
            swallow_exception();
        }
    }
    if (UNLIKELY(whole)) {
        trace->whole = slot_list(&trace->kept) != NULL;
    }
    Py_DECREF(known);
}

static bool has_context(CoreState *state, const RootOptions *options)
{
    if (state->root_context == NULL) {
        return false;
    }
    if (state->scoped || (options != NULL && options->experiment != NULL)) {
        return true;
    }
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    if (PyDict_GetItemWithError(modules, state->runs_module) != NULL) {
        return true;
    }
    PyErr_Clear();
    return false;
}

Trace *trace_new(CoreState *state, PyObject *root_name, const RootOptions *options,
                 bool *not_sampled)
{
    *not_sampled = false;
    if (!ensure_runtime(state)) {
        return NULL;
    }
    /* A place that has no room for the trace does not get it, the other does. */
    Ring *ring = ring_admits_trace(state->ring) ? state->ring : NULL;
    Ring *second_ring = state->second_ring != NULL && ring_admits_trace(state->second_ring)
                            ? state->second_ring
                            : NULL;
    if (UNLIKELY(ring == NULL || (second_ring == NULL && state->second_ring != NULL))) {
        *not_sampled = ring == NULL && second_ring == NULL;
        warn(state, "New traces are not recorded for now: what waits for delivery has reached "
                    "MLFLOW_FASTTRACE_SPOOL_MAX_BYTES, or the spool folder cannot be written. They "
                    "are counted; sender.log in the spool folder says why delivery waits.");
        if (*not_sampled) {
            return NULL;
        }
    }
    Trace *trace = PyObject_New(Trace, state->trace_type);
    if (trace == NULL) {
        swallow_exception();
        return NULL;
    }
    memset((char *)trace + offsetof(Trace, state), 0, sizeof *trace - offsetof(Trace, state));
    trace->state = state;
    trace->next = state->traces;
    if (trace->next != NULL) {
        trace->next->previous = trace;
    }
    state->traces = trace;
    if (UNLIKELY(options != NULL && options->trace_id != NULL)) {
        memcpy(trace->id, options->trace_id, sizeof trace->id);
    }
    else {
        uint64_t words[2] = {ids_next(), ids_next()};
        memcpy(trace->id, words, sizeof trace->id);
    }
    trace_id_text(trace->id_text, trace->id);
    uint64_t bound =
        options != NULL && options->has_sampling ? options->sampling_bound : state->sampling_bound;
    if (UNLIKELY(bound != SAMPLE_ALL) && !is_sampled(trace, bound)) {
        *not_sampled = true;
        Py_DECREF(trace);
        return NULL;
    }
    trace->ring = ring != NULL ? ring : second_ring;
    trace->second_ring = ring != NULL ? second_ring : NULL;
    Py_INCREF((PyObject *)trace->ring);
    Py_XINCREF((PyObject *)trace->second_ring);
    Py_INCREF(state->destination);
    trace->destination = state->destination;
    Py_INCREF(root_name);
    trace->root_name = root_name;
    if (UNLIKELY(has_context(state, options))) {
        take_context(state, trace, options ? options->experiment : NULL);
    }
    if (options != NULL && options->run_id != NULL) {
        if (slot_dict(&trace->metadata) == NULL ||
            PyDict_SetItemString(trace->metadata, "mlflow.sourceRun", options->run_id) < 0) {
            swallow_exception();
        }
    }
    return trace;
}

static void trace_dealloc(Trace *trace)
{
    PyTypeObject *type = Py_TYPE(trace);
    if (trace->previous != NULL) {
        trace->previous->next = trace->next;
    }
    else {
        trace->state->traces = trace->next;
    }
    if (trace->next != NULL) {
        trace->next->previous = trace->previous;
    }
    Py_XDECREF((PyObject *)trace->ring);
    Py_XDECREF((PyObject *)trace->second_ring);
    Py_XDECREF(trace->destination);
    Py_XDECREF(trace->root_name);
    Py_XDECREF(trace->tags);
    Py_XDECREF(trace->metadata);
    Py_XDECREF(trace->inherited_metadata);
    Py_XDECREF(trace->assessments);
    Py_XDECREF(trace->request_preview);
    Py_XDECREF(trace->response_preview);
    Py_XDECREF(trace->client_request_id);
    Py_XDECREF(trace->info);
    Py_XDECREF(trace->kept);
    PyObject_Free(trace);
    Py_DECREF(type);
}

Trace *trace_find(CoreState *state, const char *id_text, size_t size)
{
    Trace *trace = size == TRACE_ID_TEXT_SIZE ? state->traces : NULL;
    while (trace != NULL && memcmp(trace->id_text, id_text, TRACE_ID_TEXT_SIZE) != 0) {
        trace = trace->next;
    }
    return trace;
}

static void encode_trace(CoreState *state, Buffer *out, Trace *trace, int phase)
{
    bool ended = trace->root_ended && trace->root_end_ns >= trace->root_start_ns;

    wire_pack_array(out, TRACE_FIELDS);
    wire_pack_uint8(out, RECORD_TRACE);
    wire_pack_bin(out, TRACE_ID_SIZE);
    buffer_append(out, trace->id, TRACE_ID_SIZE);
    buffer_byte(out, 0xcc);
    buffer_byte(out, (unsigned char)phase);
    wire_pack_uint32(out, trace->ended_spans);
    wire_pack_uint64(out, trace->root_start_ns);
    if (ended) {
        wire_pack_uint64(out, trace->root_end_ns - trace->root_start_ns);
    }
    else {
        wire_pack_nil(out);
    }
    wire_pack_uint8(out, trace->trace_state ? trace->trace_state : STATE_IN_PROGRESS);
    buffer_append(out, PyBytes_AsString(trace->destination),
                  (size_t)PyBytes_Size(trace->destination));

    const struct {
        const char *name;
        PyObject *value;
    } given[] = {
        {"metadata", trace->metadata},
        {"inherited", trace->inherited_metadata},
        {"assessments", trace->assessments},
        {"request_preview", trace->request_preview},
        {"response_preview", trace->response_preview},
        {"client_request_id", trace->client_request_id},
        {"remote", trace->remote ? Py_True : NULL},
    };
    bool continues = trace->roots_under != 0 && trace->roots_under != NO_ROOT;
    unsigned entries = 2 + continues;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        entries += given[i].value != NULL;
    }
    wire_pack_map(out, entries);
    encode_text(out, "name", 4);
    encode_str(out, trace->root_name);
    encode_text(out, "tags", 4);
    if (trace->tags != NULL) {
        encode_value(state, out, trace->tags);
    }
    else {
        wire_pack_map(out, 1);
        encode_text(out, NAME_TAG, sizeof NAME_TAG - 1);
        encode_str(out, trace->root_name);
    }
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        if (given[i].value != NULL) {
            encode_text(out, given[i].name, strlen(given[i].name));
            encode_value(state, out, given[i].value);
        }
    }
    if (UNLIKELY(continues)) {
        char hex[2 * SPAN_ID_SIZE];
        span_id_hex(hex, trace->roots_under);
        encode_text(out, "roots_under", 11);
        encode_text(out, hex, sizeof hex);
    }
}

/* The child of a fork carries on the traces that were open in a ring of its own, where they are
 * announced anew. */
static void follow_fork(CoreState *state, Trace *trace)
{
    if (LIKELY(ring_is_ours(trace->ring)) || !ensure_runtime(state)) {
        return;
    }
    Py_INCREF(state->ring);
    set_owned((PyObject **)&trace->ring, (PyObject *)state->ring);
    Py_XINCREF((PyObject *)state->second_ring);
    set_owned((PyObject **)&trace->second_ring, (PyObject *)state->second_ring);
    trace->announced = false;
}

static void trace_publish(Trace *trace)
{
    ring_publish(trace->ring);
    if (UNLIKELY(trace->second_ring != NULL)) {
        ring_publish(trace->second_ring);
    }
}

/* Appends a record, which is seen with the next that is published. */
static void trace_put(CoreState *state, Trace *trace, const Buffer *record)
{
    follow_fork(state, trace);
    bool ok = !record->failed && ring_put(trace->ring, record);
    if (UNLIKELY(trace->second_ring != NULL) && !record->failed) {
        ok = ring_put(trace->second_ring, record) && ok;
    }
    if (LIKELY(ok)) {
        return;
    }
    warn(state,
         "A span could not be recorded: neither the ring nor the spool folder has room. Free disk "
         "space, or point MLFLOW_FASTTRACE_SPOOL_DIR to a folder that has some.");
}

void trace_append(CoreState *state, Trace *trace, const Buffer *record)
{
    trace_put(state, trace, record);
    trace_publish(trace);
}

static void write_trace_record(CoreState *state, Trace *trace, int phase)
{
    if (UNLIKELY(trace->info != NULL) && state->take_info != NULL) {
        forget_result(
            PyObject_CallFunctionObjArgs(state->take_info, (PyObject *)trace, trace->info, NULL));
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    encode_trace(state, out, trace, phase);
    trace_append(state, trace, out);
    scratch_release(state, out);
}

void trace_span_ended(CoreState *state, Trace *trace, const Buffer *span_record, bool is_root)
{
    follow_fork(state, trace);
    if (!trace->announced && !(is_root && trace->open_spans == 1)) {
        trace->announced = true;
        write_trace_record(state, trace, PHASE_OPEN);
    }
    trace_put(state, trace, span_record);
    trace->ended_spans++;
    trace->open_spans--;
    if (trace_is_complete(trace)) {
        write_trace_record(state, trace, PHASE_COMPLETE);
    }
    else if (is_root) {
        write_trace_record(state, trace, PHASE_ROOT_ENDED);
    }
    trace_publish(trace); /* not before: a span without a record would have nowhere to go */
    if (is_root && state->restart_sender != NULL &&
        UNLIKELY(ring_is_unattended(trace->ring, trace->root_end_ns) ||
                 (trace->second_ring != NULL &&
                  ring_is_unattended(trace->second_ring, trace->root_end_ns)))) {
        forget_result(PyObject_CallNoArgs(state->restart_sender));
    }
}

/* ---- the Python object: what the thin package reads and sets of a trace in flight ---- */

/* A container that is made when it is first asked for; changes to it are the trace's. */
static PyObject *get_tags(Trace *trace, void *unused)
{
    (void)unused;
    if (trace->tags == NULL) {
        trace->tags = Py_BuildValue("{sO}", NAME_TAG, trace->root_name);
    }
    Py_XINCREF(trace->tags);
    return trace->tags;
}

static PyObject *get_metadata(Trace *trace, void *unused)
{
    (void)unused;
    Py_XINCREF(slot_dict(&trace->metadata));
    return trace->metadata;
}

static PyObject *get_inherited(Trace *trace, void *unused)
{
    (void)unused;
    Py_XINCREF(slot_dict(&trace->inherited_metadata));
    return trace->inherited_metadata;
}

static PyObject *get_assessments(Trace *trace, void *unused)
{
    (void)unused;
    Py_XINCREF(slot_list(&trace->assessments));
    return trace->assessments;
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
    Py_INCREF(trace->destination);
    return trace->destination;
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

static int set_info(Trace *trace, PyObject *value, void *unused)
{
    (void)unused;
    Py_XINCREF(value);
    set_owned(&trace->info, value);
    /* Whoever asked for it may ask for its spans too. */
    return trace_is_complete(trace) || slot_list(&trace->kept) != NULL ? 0 : -1;
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

#define TEXT(name) {#name, (getter)get_text, (setter)set_text, NULL, (void *)offsetof(Trace, name)}

static PyGetSetDef trace_getset[] = {
    {"trace_id", (getter)get_id, NULL, NULL, NULL},
    {"start_time_ns", (getter)get_start, NULL, NULL, NULL},
    {"complete", (getter)get_complete, NULL, "Whether root and all other spans have ended.", NULL},
    {"destination", (getter)get_destination, NULL, "An encoded map, see encode().", NULL},
    {"tags", (getter)get_tags, NULL, NULL, NULL},
    {"metadata", (getter)get_metadata, NULL, NULL, NULL},
    {"inherited_metadata", (getter)get_inherited, NULL, NULL, NULL},
    {"assessments", (getter)get_assessments, NULL, NULL, NULL},
    {"state", (getter)get_state, (setter)set_state, "0 undecided, 1 OK, 2 ERROR.", NULL},
    TEXT(request_preview),
    TEXT(response_preview),
    TEXT(client_request_id),
    {"remote", (getter)get_remote, NULL, "Whether another process began it.", NULL},
    {"info", (getter)get_text, (setter)set_info, "The TraceInfo that was handed out, or None.",
     (void *)offsetof(Trace, info)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *trace_spans(Trace *trace, PyObject *unused)
{
    (void)unused;
    return span_list(trace);
}

static PyObject *trace_rewrite(Trace *trace, PyObject *unused)
{
    (void)unused;
    if (trace_is_complete(trace)) {
        write_trace_record(trace->state, trace, PHASE_COMPLETE);
    }
    Py_RETURN_NONE;
}

static PyMethodDef trace_methods[] = {
    {"rewrite", (PyCFunction)trace_rewrite, METH_NOARGS,
     "Records once more what is known of a trace that has ended: something of it has changed."},
    {"spans", (PyCFunction)trace_spans, METH_NOARGS, "The spans that are alive, oldest first."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot trace_slots[] = {
    {Py_tp_dealloc, trace_dealloc},
    {Py_tp_getset, trace_getset},
    {Py_tp_methods, trace_methods},
    {Py_tp_doc, "A trace in flight."},
    {0, NULL},
};

static PyType_Spec trace_spec = {
    .name = "mlflow_fasttrace._core.Trace",
    .basicsize = sizeof(Trace),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = trace_slots,
};

int trace_add_types(PyObject *module, CoreState *state)
{
    return state_add_type(module, &trace_spec, &state->trace_type, "Trace");
}
