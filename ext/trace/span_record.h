/* span_record.h: what a span leaves when it ends. See span_record.c. */
#ifndef FASTTRACE_SPAN_RECORD_H
#define FASTTRACE_SPAN_RECORD_H

#include "trace/span.h"
#include "trace/trace_record.h"

/* Puts the record (record/record.h) of a span that has ended into its trace's rings, between
 * trace_span_ends() and trace_span_was_put(). */
RUNS_PYTHON PutResult span_put_record(Span *span);

/* Appends the records of the span's attachments to its trace's rings, ahead of the span's own. Runs
 * Python code. */
RUNS_PYTHON void span_append_attachments(Span *span);

#endif
