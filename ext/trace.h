/* trace.h: a trace in flight. */
#ifndef FASTTRACE_TRACE_H
#define FASTTRACE_TRACE_H

#include "record.h"
#include "state.h"

#define TRACE_ID_TEXT_SIZE 35 /* "tr-" and 32 hex digits */

enum { STATE_UNSPECIFIED = 0, STATE_OK = 1, STATE_ERROR = 2, STATE_IN_PROGRESS = 3 };

/* How a root begins; what is NULL or 0 is as everywhere. */
typedef struct {
    PyObject *experiment;          /* borrowed str: the id of the trace's experiment */
    PyObject *run_id;              /* borrowed str */
    const unsigned char *trace_id; /* borrowed, of TRACE_ID_SIZE bytes: instead of a new one */
    uint64_t sampling_bound;       /* where has_sampling is set */
    bool has_sampling;
} RootOptions;

/* The part of an id below this is sampled at that ratio, from 0 to 1. */
uint64_t sampling_bound(double ratio);

/* Made by the root's start, kept by every span of the trace. Where it goes was captured then. */
struct Trace {
    PyObject_HEAD CoreState *state; /* outlives the trace: the type holds the module */
    Trace *previous, *next;         /* in the state's list */
    Span *spans;                    /* those alive, linked; borrowed */
    unsigned char id[TRACE_ID_SIZE];
    char id_text[TRACE_ID_TEXT_SIZE];
    bool announced; /* a trace record with phase open has been written */
    bool root_ended;
    bool remote; /* begun by another process, which sends what is known of it as a whole */
    unsigned char trace_state; /* STATE_*; UNSPECIFIED until somebody decides */
    uint32_t open_spans;
    uint32_t ended_spans;
    uint64_t root_start_ns;
    uint64_t root_end_ns;
    uint64_t roots_under;  /* the parent id of its roots: 0 but for a trace that continues another
                            * library's, and NO_ROOT for a remote one */
    Ring *ring;            /* owned */
    Ring *second_ring;     /* owned, or NULL: gets the same records */
    PyObject *destination; /* owned bytes: an encoded map */
    PyObject *root_name;   /* owned str: the tag mlflow.traceName */
    /* Owned dicts and a list, NULL until somebody asks for them. */
    PyObject *tags;
    PyObject *metadata;
    PyObject *inherited_metadata; /* of a trace that was added: gives way to the trace's own */
    PyObject *assessments;        /* dicts, as Assessment.to_dictionary() makes them */
    /* Owned str, or NULL. */
    PyObject *request_preview;
    PyObject *response_preview;
    PyObject *client_request_id;
    PyObject *info; /* owned TraceInfo that was handed out: take_info() reads it from then on */
    PyObject *kept; /* owned list of the spans that have ended, until all have: where Python has to
                     * do with the trace as a whole */
    bool whole;     /* whole_trace_ended() is given them */
};

#define NO_ROOT UINT64_MAX

/* A new trace bound to the current destination; NULL when it is not recorded: it is not sampled
 * (then *not_sampled is set), or there is nowhere to record it to. No exception is set. */
Trace *trace_new(CoreState *state, PyObject *root_name, const RootOptions *options,
                 bool *not_sampled);

/* The record of an ended span is ready: appends it, with the trace's own records around it. */
void trace_span_ended(CoreState *state, Trace *trace, const Buffer *span_record, bool is_root);

/* Root and all other spans have ended. */
static inline bool trace_is_complete(const Trace *trace)
{
    return trace->root_ended && trace->open_spans == 0;
}

/* Appends a record that belongs to the trace. */
void trace_append(CoreState *state, Trace *trace, const Buffer *record);

PyObject *trace_id_str(const Trace *trace);

/* "tr-" and the hex digits of an id. */
void trace_id_text(char text[TRACE_ID_TEXT_SIZE], const unsigned char id[TRACE_ID_SIZE]);

/* Its name, where that is known only after it was made. */
void trace_set_name(Trace *trace, PyObject *name);

/* A trace of this process by its id's text, borrowed; NULL when it is not alive. */
Trace *trace_find(CoreState *state, const char *id_text, size_t size);

#endif
