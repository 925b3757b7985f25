/* trace.h: a trace in flight. */
#ifndef FASTTRACE_TRACE_H
#define FASTTRACE_TRACE_H

#include "record.h"
#include "state.h"

#define TRACE_ID_TEXT_SIZE 35 /* "tr-" and 32 hex digits */

enum { STATE_UNSPECIFIED = 0, STATE_OK = 1, STATE_ERROR = 2, STATE_IN_PROGRESS = 3 };

/* Made by the root's start, kept by every span of the trace. Where it goes was captured then. */
typedef struct {
    PyObject_HEAD unsigned char id[TRACE_ID_SIZE];
    char id_text[TRACE_ID_TEXT_SIZE];
    bool announced; /* a trace record with phase open has been written */
    bool root_ended;
    unsigned char state; /* STATE_*; UNSPECIFIED until somebody decides */
    uint32_t open_spans;
    uint32_t ended_spans;
    uint64_t root_start_ns;
    uint64_t root_end_ns;
    Ring *ring;            /* owned */
    PyObject *destination; /* owned bytes: an encoded map */
    PyObject *root_name;   /* owned str: the tag mlflow.traceName */
    PyObject *tags;        /* owned dict, NULL until set */
    PyObject *metadata;    /* owned dict, NULL until set */
    PyObject *request_preview;
    PyObject *response_preview;
    PyObject *client_request_id;
} Trace;

/* A new trace bound to the current destination; NULL when there is none (tracing is then off; no
 * exception is set). */
Trace *trace_new(CoreState *state, PyObject *root_name);

/* The record of an ended span is ready: appends it, with the trace's own records around it. */
void trace_span_ended(CoreState *state, Trace *trace, const Buffer *span_record, bool is_root);

PyObject *trace_id_str(const Trace *trace);

#endif
