/* otlp.h: span records -> one OTLP ExportTraceServiceRequest (protobuf). */
#ifndef FASTTRACE_OTLP_H
#define FASTTRACE_OTLP_H

#include "record/record.h"

/* A request is built as: otlp_begin, otlp_span for each, otlp_end. */
typedef struct {
    size_t resource_spans;
    size_t scope_spans;
} OtlpMarks;

/* The form of a span for a collector, as OpenTelemetry's SDK sends it: a kind, flags, and
 * attributes as MLflow stores them. An MLflow server gets no flags, and a kind by MLflow's release.
 */
typedef struct {
    bool json_attributes; /* each attribute as its JSON text, not as a value of OTLP */
    uint64_t kind;        /* as OTLP has it; 0 for the span's own */
    Reader extra;         /* an encoded map: attributes besides the record's, as values */
    const char *name;     /* stands, with `extra`, for the record's name and attributes; or NULL */
    size_t name_size;
} CollectorForm;

/* `resource` is an encoded map, NULL for an MLflow server. */
RUNS_PYTHON ConvertResult otlp_begin(Buffer *out, OtlpMarks *marks, const Reader *resource);

/* Where the record cannot be encoded `out` is as before; without memory it has failed besides.
 * `form` is NULL for an MLflow server, which gets the span's kind if `with_kind`. `*inexact` is set
 * where a value travels as text that protobuf cannot carry as it is, and JSON can. Needs the GIL
 * (for values that travel as their JSON text). */
RUNS_PYTHON ConvertResult otlp_span(Buffer *out, const SpanRecord *span, const CollectorForm *form,
                                    bool with_kind, bool *inexact);

void otlp_end(Buffer *out, OtlpMarks marks);

#endif
