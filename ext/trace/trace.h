/* trace.h: a trace in flight. See trace.c. */
#ifndef FASTTRACE_TRACE_H
#define FASTTRACE_TRACE_H

#include "base/state.h"
#include "record/record.h"

#define TRACE_ID_TEXT_SIZE 35 /* "tr-" and 32 hex digits */

/* The tag that holds the name of a trace's root. */
#define NAME_TAG "mlflow.traceName"

enum { STATE_UNSPECIFIED = 0, STATE_OK = 1, STATE_ERROR = 2, STATE_IN_PROGRESS = 3 };

/* Whether what was to be started is recorded. */
typedef enum {
    START_RECORDED,
    START_NOT_SAMPLED,  /* or refused for want of room: what starts inside belongs to its trace, and
                         * is not recorded either */
    START_NOT_RECORDED, /* there is nowhere to record it to, or no memory */
} StartResult;

/* How a root begins, where that differs from the usual; NULL and 0 stand for the usual. */
typedef struct {
    /* The experiment is kept over Python code, because the caller holds what it was given in. */
    PyObject *experiment;          /* borrowed str: the id of the trace's experiment */
    PyObject *run_id;              /* borrowed str */
    const unsigned char *trace_id; /* borrowed, of TRACE_ID_SIZE bytes: instead of a new one */
    uint64_t sampling_bound;       /* where has_sampling is set */
    bool has_sampling;
} RootOptions;

/* The bound below which the lower half of an id is sampled at that ratio, from 0 to 1. */
uint64_t sampling_bound_of_ratio(double ratio);

/* Made by the root's start and kept by every span of the trace. Where the trace goes was captured
 * when it was made, or, where recording was about to start, when its first record was written. */
struct Trace {
    PyObject_HEAD CoreState *state; /* outlives the trace: the type holds the module */
    Trace *previous, *next;         /* in the state's list */
    Span *spans;                    /* borrowed: the first of those that are alive, linked */
    unsigned char id[TRACE_ID_SIZE];
    char id_text[TRACE_ID_TEXT_SIZE];
    bool announced; /* a trace record with phase open has been written */
    bool root_ended;
    bool refused; /* neither place had room when its rings were chosen: nothing is recorded */
    bool remote;  /* begun by another process, which sends what is known of it as a whole */
    unsigned char trace_state; /* STATE_*; UNSPECIFIED until somebody decides */
    uint32_t open_spans;
    uint32_t ended_spans;
    uint64_t root_start_ns;
    uint64_t root_end_ns;
    uint64_t roots_under; /* the parent id of its roots: 0 but for a trace that continues another
                           * library's, and NO_ROOT for a remote one */
    Ring *ring;        /* owned, or NULL: the trace began in the middle of the start of recording */
    Ring *second_ring; /* owned, or NULL: of dual export */
    PyObject *destination; /* owned bytes: an encoded map; NULL at most as long as the ring */
    PyObject *root_name;   /* owned str: the tag NAME_TAG */
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
    PyObject *whole_spans; /* owned list of the spans that have ended, until all have; NULL unless
                            * Python has to do with the trace as a whole. The list and the trace
                            * refer to each other until then. */
    bool reports_whole;    /* the hook whole_trace_ended is given the list */
};

#define NO_ROOT UINT64_MAX

/* Makes a trace bound to the current destination, in *trace as a new reference. Sets no exception;
 * runs Python code. */
RUNS_PYTHON StartResult trace_new(CoreState *state, PyObject *root_name, const RootOptions *options,
                                  Trace **trace);

/* Releases what a trace owns and takes it out of the state's list: the end of its dealloc. */
RUNS_PYTHON void trace_release(Trace *trace);

/* Lets the garbage collector look at the trace from now on: it has got containers of the program,
 * or its info. Runs no Python code. */
static inline void trace_track(Trace *trace)
{
    if (!PyObject_GC_IsTracked((PyObject *)trace)) {
        PyObject_GC_Track((PyObject *)trace);
    }
}

/* Whether the root and all other spans have ended. */
static inline bool trace_is_complete(const Trace *trace)
{
    return trace->root_ended && trace->open_spans == 0;
}

/* Whether there is a ring of this process to record to. */
typedef enum {
    RING_NONE,
    RING_SOON, /* this code runs in the middle of the start of recording: a finalizer, say */
    RING_READY,
} RingResult;

/* Sees to it that the state has a ring of this process: asks Python, once. Other threads that come
 * in the meantime wait for the answer there. */
RUNS_PYTHON RingResult trace_ensure_ring(CoreState *state);

/* Gives a trace that has no ring those of the state, which has them (RING_READY), and where it has
 * no destination of its own also that: a place that has no room for it does not get it, the other
 * one does. False where neither has. */
RUNS_PYTHON bool trace_choose_rings(CoreState *state, Trace *trace);

/* The id's text as a str; NULL with an exception. */
RUNS_PYTHON PyObject *trace_id_str(const Trace *trace);

/* Writes "tr-" and the hex digits of an id, without a NUL. */
void trace_id_text(char text[TRACE_ID_TEXT_SIZE], const unsigned char id[TRACE_ID_SIZE]);

/* Sets the name, where that is known only after the trace was made. */
RUNS_PYTHON void trace_set_name(Trace *trace, PyObject *name);

/* A trace of this process by its id's text, borrowed; NULL when it is not alive. */
Trace *trace_find(CoreState *state, const char *id_text, size_t size);

#endif
