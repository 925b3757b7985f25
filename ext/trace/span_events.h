/* span_events.h: status, events and exceptions of a span. */
#ifndef FASTTRACE_SPAN_EVENTS_H
#define FASTTRACE_SPAN_EVENTS_H

#include "trace/span.h"

/* Sets the status by OpenTelemetry's rules: OK is final, UNSET changes nothing. `message` may be
 * NULL. */
RUNS_PYTHON void span_set_status(Span *span, int status, PyObject *message);

/* Records the pending exception (which stays pending) as MLflow's context manager does: event and
 * status ERROR for an Exception, nothing for KeyboardInterrupt and its like. */
RUNS_PYTHON void span_record_pending(Span *span);

/* Records an exception object; with_message: the status has its text too. */
RUNS_PYTHON void span_record_exception(Span *span, PyObject *exception, bool with_message);

/* Adds the event mlflow.chunk.item.N of a generator, whose value is an encoded item. */
RUNS_PYTHON void span_add_item(Span *span, uint32_t index, const char *item, size_t size);

/* Adds an encoded event [name, ns, {attributes}]; an exception raises the log level. False when
 * there is no room for it. Runs no Python code. */
bool span_append_event(Span *span, const Buffer *event, bool is_exception);

#endif
