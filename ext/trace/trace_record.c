/* trace_record.c: what a trace writes to its rings.
 *
 * A trace record is written when the first span of the trace that is not its root ends (so that a
 * crash leaves what the sender needs to deliver the spans), when the root ends while others are
 * open, and when the last span ends. A trace of one span writes one. */
#include "trace/trace_record.h"

#include "base/errors.h"
#include "base/ids.h"
#include "base/python_side.h"
#include "spool/ring_writer.h"
#include "value/encode.h"

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

    /* With references of their own, taken below: encoding one of them may replace another. */
    struct {
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
    PyObject *tags = trace->tags, *name = trace->root_name;
    bool continues = trace->roots_under != 0 && trace->roots_under != NO_ROOT;
    unsigned entries = 2 + continues;
    Py_XINCREF(tags);
    Py_INCREF(name);
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        Py_XINCREF(given[i].value);
        entries += given[i].value != NULL;
    }
    wire_pack_map(out, entries);
    encode_text(out, SIZED("name"));
    encode_str(out, name);
    encode_text(out, SIZED("tags"));
    if (tags != NULL) {
        encode_value(state, out, tags);
    }
    else {
        wire_pack_map(out, 1);
        encode_text(out, SIZED(NAME_TAG));
        encode_str(out, name);
    }
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        /* The request_preview, say, is kept over Python code, because given[] has a reference. */
        if (given[i].value != NULL) {
            encode_text(out, given[i].name, strlen(given[i].name));
            encode_value(state, out, given[i].value);
            Py_DECREF(given[i].value);
        }
    }
    if (UNLIKELY(continues)) {
        char hex[2 * SPAN_ID_SIZE];
        span_id_hex(hex, trace->roots_under);
        encode_text(out, SIZED("roots_under"));
        encode_text(out, hex, sizeof hex);
    }
    Py_XDECREF(tags);
    Py_DECREF(name);
}

/* Gives the trace a ring of this process where it has none. The child of a fork carries on the
 * traces that were open in a ring of its own, where they are announced anew. */
static RingResult get_ring(CoreState *state, Trace *trace)
{
    if (LIKELY(ring_is_ours(trace->ring))) {
        return RING_READY;
    }
    if (trace->refused) {
        return RING_NONE;
    }
    RingResult result = trace_ensure_ring(state);
    /* The start of recording may have ended another span of the trace. */
    if (result != RING_READY || ring_is_ours(trace->ring)) {
        return result;
    }
    if (trace->ring == NULL) {
        trace->announced = false;
        return trace_choose_rings(state, trace) ? RING_READY : RING_NONE;
    }
    Py_INCREF(state->ring);
    set_owned((PyObject **)&trace->ring, (PyObject *)state->ring);
    Py_XINCREF((PyObject *)state->second_ring);
    set_owned((PyObject **)&trace->second_ring, (PyObject *)state->second_ring);
    trace->announced = false;
    return RING_READY;
}

bool trace_waits_for_ring(CoreState *state, Trace *trace)
{
    return get_ring(state, trace) == RING_SOON;
}

static void trace_publish(Trace *trace)
{
    ring_publish(trace->ring);
    if (UNLIKELY(trace->second_ring != NULL)) {
        ring_publish(trace->second_ring);
    }
}

/* Puts a record into the rings; trace_publish() shows it. Runs no Python code. */
static inline __attribute__((always_inline)) PutResult put_record(Trace *trace,
                                                                  const Buffer *record)
{
    if (UNLIKELY(record->failed)) {
        return PUT_FAILED_RECORD;
    }
    if (UNLIKELY(!ring_is_ours(trace->ring))) {
        return trace->refused ? PUT_DONE : PUT_BEFORE_RECORDING;
    }
    bool ok = ring_put(trace->ring, record);
    if (UNLIKELY(trace->second_ring != NULL)) {
        ok = ring_put(trace->second_ring, record) && ok;
    }
    return LIKELY(ok) ? PUT_DONE : PUT_WITHOUT_ROOM;
}

/* Says in the log why a record is not in the rings. */
static void report_put(CoreState *state, PutResult result)
{
    static const char *const lines[] = {
        [PUT_FAILED_RECORD] =
            "A span, or what is known of its trace, could not be recorded: it is larger than 1 "
            "GiB, or there is no memory for it.",
        [PUT_BEFORE_RECORDING] = "A span of a trace that was begun before a fork, or while "
                                 "recording was starting, could "
                                 "not be recorded: recording has not begun in this process.",
        [PUT_WITHOUT_ROOM] =
            "A span could not be recorded: neither the ring nor the spool folder has room. Free "
            "disk space, or point MLFLOW_FASTTRACE_SPOOL_DIR to a folder that has some.",
    };
    warn(state, lines[result]);
}

static inline __attribute__((always_inline)) void trace_put(CoreState *state, Trace *trace,
                                                            const Buffer *record)
{
    PutResult result = put_record(trace, record);
    if (UNLIKELY(result != PUT_DONE)) {
        report_put(state, result);
    }
}

void trace_append(CoreState *state, Trace *trace, const Buffer *record)
{
    get_ring(state, trace);
    trace_put(state, trace, record);
    trace_publish(trace);
}

static void write_trace_record(CoreState *state, Trace *trace, int phase)
{
    if (UNLIKELY(trace->info != NULL) && state->hooks.take_info != NULL) {
        PyObject *info = trace->info; /* the hook may have another one put in its place */
        Py_INCREF(info);
        forget_result(state, ask_hook(state->hooks.take_info, (PyObject *)trace, info));
        Py_DECREF(info);
    }
    if (UNLIKELY(get_ring(state, trace) != RING_READY) && trace->destination == NULL) {
        if (!trace->refused) {
            report_put(state, PUT_BEFORE_RECORDING);
        }
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    encode_trace(state, out, trace, phase);
    trace_append(state, trace, out);
    scratch_release(state, out);
}

void trace_span_ends(CoreState *state, Trace *trace, bool is_root)
{
    get_ring(state, trace);
    if (!trace->announced && !(is_root && trace->open_spans == 1)) {
        trace->announced = true;
        write_trace_record(state, trace, PHASE_OPEN);
    }
}

void trace_span_was_put(CoreState *state, Trace *trace, PutResult result, bool is_root)
{
    if (UNLIKELY(result != PUT_DONE)) {
        report_put(state, result);
    }
    trace->ended_spans++;
    trace->open_spans--;
    if (trace_is_complete(trace)) {
        write_trace_record(state, trace, PHASE_COMPLETE);
    }
    else if (is_root) {
        write_trace_record(state, trace, PHASE_ROOT_ENDED);
    }
    /* Published only now: a span record without its trace's record could not be delivered. */
    trace_publish(trace);
    if (is_root && state->hooks.restart_sender != NULL && trace->ring != NULL &&
        UNLIKELY(ring_lacks_sender(trace->ring, trace->root_end_ns) ||
                 (trace->second_ring != NULL &&
                  ring_lacks_sender(trace->second_ring, trace->root_end_ns)))) {
        forget_result(state, ask_hook(state->hooks.restart_sender, NULL, NULL));
    }
}

PutResult trace_put_span(Trace *trace, const Buffer *span_record)
{
    return put_record(trace, span_record);
}

char *trace_record_place(Trace *trace, size_t size)
{
    return LIKELY(trace->second_ring == NULL) ? ring_place(trace->ring, size) : NULL;
}

void trace_record_written(Trace *trace, size_t size) { ring_add_written(trace->ring, size); }

void trace_rewrite(CoreState *state, Trace *trace)
{
    write_trace_record(state, trace, PHASE_COMPLETE);
}
