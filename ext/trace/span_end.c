#include "trace/span_end.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/python_side.h"
#include "trace/span_record.h"
#include "trace/span_values.h"

/* DEBUG unless the type is one that users look for; see MLflow's default_log_level. */
static int default_log_level(const Span *span)
{
    static const char *const info_types[] = {"LLM",       "CHAT_MODEL", "TOOL",
                                             "RETRIEVER", "AGENT",      "EMBEDDING"};
    Reader value;
    if (span_find(span, KEY_TYPE, &value)) {
        Token type = reader_next(&value);
        for (size_t i = 0; type.kind == TOKEN_STR && i < sizeof info_types / sizeof *info_types;
             i++) {
            if (strlen(info_types[i]) == type.size &&
                memcmp(info_types[i], type.bytes, type.size) == 0) {
                return 20;
            }
        }
    }
    return 10;
}

/* The time of the end: as given, or now where it is 0. */
static uint64_t end_time(const Span *span, uint64_t end_ns)
{
    if (end_ns == 0) {
        end_ns = clock_ns();
        if (UNLIKELY(end_ns < span->start_ns)) {
            end_ns = span->start_ns; /* the clock was set back */
        }
    }
    return end_ns;
}

/* Sets the id that last_trace_id() returns, and the context variable. The variable is left alone
 * where the root was left behind: the garbage collector may be ending it (context.c). */
static void set_last_trace_id(CoreState *state, const Span *root)
{
    PyObject *id = trace_id_str(root->trace);
    if (id == NULL) {
        swallow_exception(state);
        return;
    }
    bool may_set = !root->current.left_behind && !is_collecting(state);
    if (LIKELY(may_set && state->last_trace_id_set != NULL)) {
        forget_result(state, PyObject_CallFunctionObjArgs(state->last_trace_id_set, id, NULL));
    }
    set_owned(&state->last_trace_id, id);
}

/* Adds a span that has ended to those of a trace that Python has to do with as a whole. */
static void add_to_whole_trace(CoreState *state, Trace *trace, Span *span)
{
    if (PyList_Append(trace->whole_spans, (PyObject *)span) < 0) {
        swallow_exception(state);
    }
    trace_track_with_spans(trace);
}

/* Tells Python that a trace is complete, where it wants to know. */
static void report_complete(CoreState *state, Trace *trace)
{
    PyObject *spans = trace->whole_spans; /* ends the circle of trace and spans */
    trace->whole_spans = NULL;
    if (spans != NULL && trace->reports_whole && state->hooks.whole_trace_ended != NULL) {
        forget_result(state, ask_hook(state->hooks.whole_trace_ended, (PyObject *)trace, spans));
    }
    Py_XDECREF(spans);
    if (state->hooks.trace_completed != NULL) {
        forget_result(state, ask_hook(state->hooks.trace_completed, NULL, NULL));
    }
}

/* Writes the span's record, and does what its end means for its trace. */
static void finish(Span *span, uint64_t end_ns)
{
    CoreState *state = span->state;
    Trace *trace = span->trace;
    span->end_ns = end_ns;
    if (UNLIKELY(span->attachments != NULL)) {
        span_append_attachments(span);
    }

    bool is_root = span->parent_id == trace->roots_under;
    if (UNLIKELY(trace->remote) && end_ns > trace->root_end_ns) {
        trace->root_end_ns = end_ns;
    }
    if (is_root) {
        trace->root_ended = true;
        trace->root_end_ns = end_ns > span->start_ns ? end_ns : span->start_ns;
        if (trace->trace_state == STATE_UNSPECIFIED) {
            trace->trace_state = span->status == STATUS_ERROR ? STATE_ERROR : STATE_OK;
        }
    }
    trace_span_ends(state, trace, is_root);
    PutResult result = span_put_record(span);
    trace_span_was_put(state, trace, result, is_root);
    if (UNLIKELY(trace->whole_spans != NULL)) {
        add_to_whole_trace(state, trace, span);
    }
    /* Before the hooks, which may wait for delivery and raise what a signal handler raises. */
    if (is_root) {
        set_last_trace_id(state, span);
    }
    bool somebody_waits = trace->whole_spans != NULL || state->hooks.trace_completed != NULL;
    if (UNLIKELY(somebody_waits) && trace_is_complete(trace)) {
        report_complete(state, trace);
    }
}

/* Leaves the end of a span to span_end_abandoned(), where there is no ring for its record yet. */
static bool put_off(Span *span, uint64_t end_ns)
{
    if (LIKELY(!trace_waits_for_ring(span->state, span->trace))) {
        return false;
    }
    span->late_end_ns = end_ns;
    abandon(span->state, (PyObject *)span);
    return true;
}

void span_close(Span *span, uint64_t end_ns)
{
    if (span->end_ns != 0 || span->ending) {
        return;
    }
    end_ns = end_time(span, end_ns);
    if (LIKELY(!put_off(span, end_ns))) {
        finish(span, end_ns);
    }
}

void span_end(Span *span, uint64_t end_ns)
{
    if (UNLIKELY(span->end_ns != 0 || span->ending)) {
        return;
    }
    end_ns = end_time(span, end_ns);
    if (UNLIKELY(put_off(span, end_ns))) {
        return;
    }
    CoreState *state = span->state;
    Reader level;
    if (span->status != STATUS_ERROR) {
        span->status = STATUS_OK;
    }
    if (LIKELY(state->mlflow >= MLFLOW(3, 13)) && !span_find(span, KEY_LOG_LEVEL, &level)) {
        char value = (char)default_log_level(span);
        span_set_encoded(span, KEY_LOG_LEVEL, &value, 1);
    }
    if (UNLIKELY(state->hooks.process_span != NULL)) {
        /* Before a byte of the span leaves; what the processors set still counts. */
        span->ending = true;
        forget_result(state, ask_hook(state->hooks.process_span, (PyObject *)span, NULL));
    }
    finish(span, end_ns);
}

void span_end_abandoned(CoreState *state)
{
    PyObject *abandoned = state->abandoned;
    if (abandoned == NULL) {
        return;
    }
    state->abandoned = NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(abandoned); i++) {
        PyObject *item = PyList_GetItem(abandoned, i);
        Py_INCREF(item);
        if (Py_IS_TYPE(item, state->types.live_span)) {
            span_end((Span *)item, ((Span *)item)->late_end_ns);
        }
        else if (trace_is_complete((Trace *)item)) {
            trace_rewrite(state, (Trace *)item);
            report_complete(state, (Trace *)item);
        }
        Py_DECREF(item);
    }
    Py_DECREF(abandoned);
}
