/* trace.c: what the spans of one trace share, and the trace records.
 *
 * A trace record is written when the first span of the trace that is not its root ends (so that a
 * crash leaves what the sender needs to deliver the spans), when the root ends while others are
 * open, and when the last span ends. A trace of one span writes one. */
#include "trace.h"

#include "encode.h"
#include "ids.h"
#include "ring.h"

static const char hex_digits[] = "0123456789abcdef";

PyObject *trace_id_str(const Trace *trace)
{
    return PyUnicode_DecodeUTF8(trace->id_text, TRACE_ID_TEXT_SIZE, NULL);
}

/* Where traces go is worked out by Python, once: it makes the ring and starts the sender. Other
 * threads that come in the meantime wait for it there. */
static bool ensure_runtime(CoreState *state)
{
    if (LIKELY(state->ring != NULL)) {
        return true;
    }
    if (state->start_runtime == NULL) {
        return false;
    }
    PyObject *done = PyObject_CallNoArgs(state->start_runtime);
    if (done == NULL) {
        swallow_exception();
    }
    Py_XDECREF(done);
    return state->ring != NULL;
}

Trace *trace_new(CoreState *state, PyObject *root_name)
{
    if (!ensure_runtime(state)) {
        return NULL;
    }
    Trace *trace = PyObject_New(Trace, state->trace_type);
    if (trace == NULL) {
        swallow_exception();
        return NULL;
    }
    uint64_t words[2] = {ids_next(), ids_next()};
    memcpy(trace->id, words, sizeof trace->id);
    memcpy(trace->id_text, "tr-", 3);
    for (int i = 0; i < TRACE_ID_SIZE; i++) {
        trace->id_text[3 + 2 * i] = hex_digits[trace->id[i] >> 4];
        trace->id_text[4 + 2 * i] = hex_digits[trace->id[i] & 15];
    }
    trace->announced = trace->root_ended = false;
    trace->state = STATE_UNSPECIFIED;
    trace->open_spans = trace->ended_spans = 0;
    trace->root_start_ns = trace->root_end_ns = 0;
    Py_INCREF(state->ring);
    trace->ring = state->ring;
    Py_INCREF(state->destination);
    trace->destination = state->destination;
    Py_INCREF(root_name);
    trace->root_name = root_name;
    trace->tags = trace->metadata = NULL;
    trace->request_preview = trace->response_preview = trace->client_request_id = NULL;
    return trace;
}

static void trace_dealloc(Trace *trace)
{
    PyTypeObject *type = Py_TYPE(trace);
    Py_XDECREF((PyObject *)trace->ring);
    Py_XDECREF(trace->destination);
    Py_XDECREF(trace->root_name);
    Py_XDECREF(trace->tags);
    Py_XDECREF(trace->metadata);
    Py_XDECREF(trace->request_preview);
    Py_XDECREF(trace->response_preview);
    Py_XDECREF(trace->client_request_id);
    PyObject_Free(trace);
    Py_DECREF(type);
}

static void encode_named(CoreState *state, Buffer *out, const char *name, PyObject *value)
{
    encode_text(out, name, strlen(name));
    encode_value(state, out, value);
}

static void encode_trace(CoreState *state, Buffer *out, Trace *trace, int phase)
{
    static const char name_tag[] = "mlflow.traceName";
    bool ended = trace->root_ended;

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
    wire_pack_uint8(out, trace->state ? trace->state : STATE_IN_PROGRESS);
    buffer_append(out, PyBytes_AsString(trace->destination),
                  (size_t)PyBytes_Size(trace->destination));

    wire_pack_map(out, 2u + (trace->metadata != NULL) + (trace->request_preview != NULL) +
                           (trace->response_preview != NULL) + (trace->client_request_id != NULL));
    encode_text(out, "name", 4);
    encode_str(out, trace->root_name);
    encode_text(out, "tags", 4);
    if (trace->tags != NULL) {
        encode_value(state, out, trace->tags);
    }
    else {
        wire_pack_map(out, 1);
        encode_text(out, name_tag, sizeof name_tag - 1);
        encode_str(out, trace->root_name);
    }
    if (trace->metadata != NULL) {
        encode_named(state, out, "metadata", trace->metadata);
    }
    if (trace->request_preview != NULL) {
        encode_named(state, out, "request_preview", trace->request_preview);
    }
    if (trace->response_preview != NULL) {
        encode_named(state, out, "response_preview", trace->response_preview);
    }
    if (trace->client_request_id != NULL) {
        encode_named(state, out, "client_request_id", trace->client_request_id);
    }
}

static void append_or_count(CoreState *state, Ring *ring, const Buffer *record)
{
    if (LIKELY(!record->failed && ring_append(ring, record))) {
        return;
    }
    warn(state,
         "A span could not be recorded: neither the ring nor the spool folder has room. Free disk "
         "space, or point MLFLOW_FASTTRACE_SPOOL_DIR to a folder that has some.");
}

static void write_trace_record(CoreState *state, Trace *trace, int phase)
{
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    encode_trace(state, out, trace, phase);
    append_or_count(state, trace->ring, out);
    scratch_release(state, out);
}

void trace_span_ended(CoreState *state, Trace *trace, const Buffer *span_record, bool is_root)
{
    if (!trace->announced && !(is_root && trace->open_spans == 1)) {
        trace->announced = true;
        write_trace_record(state, trace, PHASE_OPEN);
    }
    append_or_count(state, trace->ring, span_record);
    trace->ended_spans++;
    trace->open_spans--;
    if (trace->root_ended && trace->open_spans == 0) {
        write_trace_record(state, trace, PHASE_COMPLETE);
    }
    else if (is_root) {
        write_trace_record(state, trace, PHASE_ROOT_ENDED);
    }
}

static PyType_Slot trace_slots[] = {
    {Py_tp_dealloc, trace_dealloc},
    {0, NULL},
};

static PyType_Spec trace_spec = {
    .name = "mlflow_fasttrace._core.Trace",
    .basicsize = sizeof(Trace),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = trace_slots,
};

int trace_add_types(PyObject *module, CoreState *state)
{
    return state_add_type(module, &trace_spec, &state->trace_type, NULL);
}
