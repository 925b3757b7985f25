/* trace_record.h: what a trace writes to its rings. See trace_record.c. */
#ifndef FASTTRACE_TRACE_RECORD_H
#define FASTTRACE_TRACE_RECORD_H

#include "trace/trace.h"

/* Whether a span of the trace must wait with its record: in a forked child, where recording is
 * about to begin. */
RUNS_PYTHON bool trace_waits_for_ring(CoreState *state, Trace *trace);

/* Appends the record of a span that has ended, with the trace's own records around it. Runs Python
 * code where the trace's record is written. */
RUNS_PYTHON void trace_span_ended(CoreState *state, Trace *trace, const Buffer *span_record,
                                  bool is_root);

/* Whether a record is in the rings, and why not. */
typedef enum {
    PUT_DONE,
    PUT_FAILED_RECORD,    /* it could not be made */
    PUT_BEFORE_RECORDING, /* of a forked child that records nothing yet */
    PUT_WITHOUT_ROOM,
} PutResult;

/* The three steps of trace_span_ended(), for a record that may only exist while no Python code
 * runs: the middle one runs none. */
RUNS_PYTHON void trace_span_ends(CoreState *state, Trace *trace, bool is_root);
PutResult trace_put_span(Trace *trace, const Buffer *span_record);
RUNS_PYTHON void trace_span_was_put(CoreState *state, Trace *trace, PutResult result, bool is_root);

/* Appends a record that belongs to the trace, and shows it to the sender. */
RUNS_PYTHON void trace_append(CoreState *state, Trace *trace, const Buffer *record);

/* Writes once more what is known of a trace that has ended: something of it has changed. Runs
 * Python code. */
RUNS_PYTHON void trace_rewrite(CoreState *state, Trace *trace);

#endif
