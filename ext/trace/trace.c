/* trace.c: what the spans of one trace share. What it writes is in trace_record.c. */
#include "trace/trace.h"

#include "base/errors.h"
#include "base/ids.h"
#include "base/python_side.h"
#include "spool/ring_writer.h"

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
        swallow_exception(trace->state);
    }
    Py_INCREF(name);
    set_owned(&trace->root_name, name);
}

RingResult trace_ensure_ring(CoreState *state)
{
    if (LIKELY(ring_is_ours(state->ring))) {
        return RING_READY;
    }
    if (state->hooks.start_recording == NULL) {
        return RING_NONE;
    }
    PyObject *answer = ask_hook(state->hooks.start_recording, NULL, NULL);
    bool soon = answer == Py_True;
    forget_result(state, answer);
    if (ring_is_ours(state->ring)) {
        return RING_READY;
    }
    return soon ? RING_SOON : RING_NONE;
}

uint64_t sampling_bound_of_ratio(double ratio)
{
    if (!(ratio < 1.0)) {
        return SAMPLE_ALL;
    }
    return ratio <= 0.0 ? 0 : (uint64_t)(ratio * 18446744073709551616.0);
}

/* Decides as OpenTelemetry does by ratio: by the lower half of the id. */
static bool is_sampled(const Trace *trace, uint64_t bound)
{
    uint64_t lower = 0;
    for (int i = TRACE_ID_SIZE / 2; i < TRACE_ID_SIZE; i++) {
        lower = lower << 8 | trace->id[i];
    }
    return lower < bound;
}

/* Takes what Python knows of a new trace: its experiment, an active run or model, an enclosing
 * mlflow.tracing.context(). */
static void take_context(CoreState *state, Trace *trace, PyObject *experiment)
{
    PyObject *destination, *metadata, *tags;
    int whole = 0;
    PyObject *known = ask_hook(state->hooks.root_context, experiment ? experiment : Py_None, NULL);
    if (known == NULL ||
        !PyArg_ParseTuple(known, "OOO|p", &destination, &metadata, &tags, &whole)) {
        swallow_exception(state);
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
            swallow_exception(state);
        }
    }
    if (UNLIKELY(whole)) {
        trace->reports_whole = slot_list(&trace->whole_spans) != NULL;
    }
    trace_track(trace);
    Py_DECREF(known);
}

static bool has_context(CoreState *state, const RootOptions *options)
{
    if (state->hooks.root_context == NULL) {
        return false;
    }
    if (state->scoped || (options != NULL && options->experiment != NULL)) {
        return true;
    }
    if (PyDict_GetItemWithError(state->modules, state->runs_module) != NULL) {
        return true;
    }
    swallow_exception(state);
    return false;
}

bool trace_choose_rings(CoreState *state, Trace *trace)
{
    Ring *first = ring_admits_trace(state->ring) ? state->ring : NULL;
    Ring *second = state->second_ring;
    if (second != NULL && !ring_admits_trace(second)) {
        second = NULL;
    }
    bool all = first != NULL && second == state->second_ring;
    trace->refused = first == NULL && second == NULL;
    trace->ring = first != NULL ? first : second;
    trace->second_ring = first != NULL ? second : NULL;
    Py_XINCREF((PyObject *)trace->ring);
    Py_XINCREF((PyObject *)trace->second_ring);
    if (LIKELY(trace->destination == NULL)) {
        trace->destination = state->destination;
        Py_XINCREF(trace->destination);
    }
    if (UNLIKELY(!all)) {
        warn(state, "New traces are not recorded for now: what waits for delivery has reached "
                    "MLFLOW_FASTTRACE_SPOOL_MAX_BYTES, or the spool folder cannot be written. "
                    "They are counted; sender.log in the spool folder says why delivery waits.");
    }
    return trace->ring != NULL;
}

/* A trace with an id, in the state's list; NULL without memory. */
static Trace *make_trace(CoreState *state, const RootOptions *options)
{
    PyTypeObject *type = state->types.live_trace; /* NULL: the garbage collector has cleared it */
    Trace *trace = type != NULL ? PyObject_GC_New(Trace, type) : NULL;
    if (trace == NULL) {
        swallow_exception(state);
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
        ids_next_trace(trace->id);
    }
    trace_id_text(trace->id_text, trace->id);
    return trace;
}

StartResult trace_new(CoreState *state, PyObject *root_name, const RootOptions *options,
                      Trace **made)
{
    StartResult result = START_NOT_SAMPLED;
    *made = NULL;
    if (trace_ensure_ring(state) == RING_NONE) {
        return START_NOT_RECORDED;
    }
    Trace *trace = make_trace(state, options);
    /* Making it may have run Python code. */
    RingResult ring = trace != NULL ? trace_ensure_ring(state) : RING_NONE;
    if (ring == RING_NONE) {
        result = START_NOT_RECORDED;
        goto not_recorded;
    }
    uint64_t bound =
        options != NULL && options->has_sampling ? options->sampling_bound : state->sampling_bound;
    if (UNLIKELY(bound != SAMPLE_ALL) && !is_sampled(trace, bound)) {
        goto not_recorded;
    }
    if (LIKELY(ring == RING_READY) && UNLIKELY(!trace_choose_rings(state, trace))) {
        goto not_recorded;
    }
    Py_INCREF(root_name);
    trace->root_name = root_name;
    if (UNLIKELY(has_context(state, options))) {
        take_context(state, trace, options ? options->experiment : NULL);
    }
    if (options != NULL && options->run_id != NULL) {
        PyObject *metadata = slot_dict(&trace->metadata);
        if (metadata == NULL ||
            PyDict_SetItemString(metadata, "mlflow.sourceRun", options->run_id) < 0) {
            swallow_exception(state);
        }
    }
    *made = trace;
    return START_RECORDED;
not_recorded:
    Py_XDECREF((PyObject *)trace);
    return result;
}

void trace_release(Trace *trace)
{
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
    Py_XDECREF(trace->whole_spans);
}

Trace *trace_find(CoreState *state, const char *id_text, size_t size)
{
    Trace *trace = size == TRACE_ID_TEXT_SIZE ? state->traces : NULL;
    while (trace != NULL && memcmp(trace->id_text, id_text, TRACE_ID_TEXT_SIZE) != 0) {
        trace = trace->next;
    }
    return trace;
}
