/* span_json.h: a span record as MLflow's dictionary of a span, in JSON. */
#ifndef FASTTRACE_SPAN_JSON_H
#define FASTTRACE_SPAN_JSON_H

#include "base/state.h"
#include "record/record.h"

/* Appends json.dumps(span.to_dict()) as MLflow's client of that release measures it; see MLFLOW()
 * in state.h. Needs the GIL (float repr). */
RUNS_PYTHON ConvertResult span_json(Buffer *out, const SpanRecord *span, uint32_t mlflow);

#endif
