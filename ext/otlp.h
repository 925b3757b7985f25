/* otlp.h: span records -> one OTLP ExportTraceServiceRequest (protobuf). */
#ifndef FASTTRACE_OTLP_H
#define FASTTRACE_OTLP_H

#include "record.h"

/* A request is built as: otlp_begin, otlp_span for each, otlp_end. */
typedef struct {
    size_t resource_spans;
    size_t scope_spans;
} OtlpMarks;

OtlpMarks otlp_begin(Buffer *out);

/* False when the record cannot be encoded (damaged, out of memory); `out` is then as before.
 * `*inexact` is set where a value travels as text that protobuf cannot carry as it is, and JSON
 * can. Needs the GIL (a value that is too deep for protobuf travels as its JSON text). */
bool otlp_span(Buffer *out, const SpanRecord *span, bool *inexact);

void otlp_end(Buffer *out, OtlpMarks marks);

#endif
