/* span_record.h: what a span leaves when it ends. See span_record.c. */
#ifndef FASTTRACE_SPAN_RECORD_H
#define FASTTRACE_SPAN_RECORD_H

#include "trace/span.h"

/* Appends the record (record/record.h) of a span that has ended. Large attributes are left out:
 * where they belong is returned then, and otherwise 0. */
RUNS_PYTHON size_t span_encode_record(const Span *span, Buffer *out);

/* Does what trace_span_ended() does, with a record whose attributes were left out at `at`: they are
 * not copied for it. */
RUNS_PYTHON void span_put_large(Span *span, const Buffer *record, size_t at, bool is_root);

/* Appends the records of the span's attachments to its trace's rings, ahead of the span's own. Runs
 * Python code. */
RUNS_PYTHON void span_append_attachments(Span *span);

#endif
