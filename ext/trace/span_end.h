/* span_end.h: the end of a span: status, log level, processors, its record, and its trace. */
#ifndef FASTTRACE_SPAN_END_H
#define FASTTRACE_SPAN_END_H

#include "trace/span.h"

/* Ends the span (end_ns 0: now) and hands its record to the ring. Does nothing the second time. */
RUNS_PYTHON void span_end(Span *span, uint64_t end_ns);

/* Ends the span as OpenTelemetry does: no status, no log level and no span processors are added. */
RUNS_PYTHON void span_close(Span *span, uint64_t end_ns);

/* Ends the abandoned spans, and completes the abandoned traces (span.h). */
RUNS_PYTHON void span_end_abandoned(CoreState *state);

#endif
