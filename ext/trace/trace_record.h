/* trace_record.h: what a trace writes to its rings. See trace_record.c. */
#ifndef FASTTRACE_TRACE_RECORD_H
#define FASTTRACE_TRACE_RECORD_H

#include "trace/trace.h"

/* Whether a span of the trace must wait with its record: in a forked child, where recording is
 * about to begin. */
RUNS_PYTHON bool trace_waits_for_ring(CoreState *state, Trace *trace);

/* Whether a record is in the rings, and why not. */
typedef enum {
    PUT_DONE,
    PUT_FAILED_RECORD,    /* it could not be made */
    PUT_BEFORE_RECORDING, /* of a forked child that records nothing yet */
    PUT_WITHOUT_ROOM,
} PutResult;

/* What a span's end writes: the trace's own records around the span's, which is put in between, by
 * trace_put_span() or in place. */
RUNS_PYTHON void trace_span_ends(CoreState *state, Trace *trace, bool is_root);
RUNS_PYTHON void trace_span_was_put(CoreState *state, Trace *trace, PutResult result, bool is_root);

/* Puts the record of a span into the rings; runs no Python code. */
PutResult trace_put_span(Trace *trace, const Buffer *span_record);

/* Where a record of up to so many bytes can be written that goes to one ring, in one piece; NULL
 * where there is no such place. Good until any Python code runs. trace_record_written() makes a
 * record of what was written there. These run no Python code. */
char *trace_record_place(Trace *trace, size_t size);
void trace_record_written(Trace *trace, size_t size);

/* Appends a record that belongs to the trace, and shows it to the sender. */
RUNS_PYTHON void trace_append(CoreState *state, Trace *trace, const Buffer *record);

/* Writes once more what is known of a trace that has ended: something of it has changed. Runs
 * Python code. */
RUNS_PYTHON void trace_rewrite(CoreState *state, Trace *trace);

#endif
