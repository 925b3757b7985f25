/* span_record.h: what a span leaves when it ends. See span_record.c. */
#ifndef FASTTRACE_SPAN_RECORD_H
#define FASTTRACE_SPAN_RECORD_H

#include "trace/span.h"

/* Appends the record (record/record.h) of a span that has ended. */
RUNS_PYTHON void span_encode_record(const Span *span, Buffer *out);

/* Appends the records of the span's attachments to its trace's rings, ahead of the span's own. Runs
 * Python code. */
RUNS_PYTHON void span_append_attachments(Span *span);

#endif
