/* span_start.h: a span's start: its parent, its trace, and what it begins with. */
#ifndef FASTTRACE_SPAN_START_H
#define FASTTRACE_SPAN_START_H

#include "trace/span.h"

/* How a span begins, where that differs from the usual; NULL and 0 stand for the usual. */
typedef struct {
    RootOptions root; /* where it becomes a root */
    uint64_t start_ns;
    uint64_t id;
    uint64_t parent_id; /* instead of the parent's */
} SpanOptions;

/* Starts a span where the program stands: under what is current. Returns what to make current, as a
 * new reference: the span; or a non-recording span, where its trace is not sampled or tracing is
 * off. NULL where nothing is recorded and the context stays as it is. `name` is a str, `options`
 * may be NULL. */
RUNS_PYTHON Current *span_open(CoreState *state, PyObject *name, const SpanOptions *options);

/* Tells whoever counts them of a span that would have started, were tracing not off. */
RUNS_PYTHON void span_left_out(CoreState *state);

/* Starts a span under `parent` (NULL: a new trace), in *span as a new reference. */
RUNS_PYTHON StartResult span_start(CoreState *state, PyObject *name, Span *parent,
                                   const SpanOptions *options, Span **span);

/* A span that is recorded elsewhere, for spans of this process to stand under, in the trace of that
 * id: one that is alive here, or a new one. own_info: nobody else says what is known of the trace
 * as a whole. A new reference; NULL when nothing is recorded. */
RUNS_PYTHON Span *span_remote(CoreState *state, const unsigned char *trace_id, uint64_t id,
                              bool own_info);

/* `options`: (experiment id or None, run id or None, links or None), as given for a span that has
 * started: says which of them only a root can have, and adds the links. */
RUNS_PYTHON void span_apply_root_options(Span *span, PyObject *options);

#endif
