/* state.h: what one import of the module owns. No static PyObject * anywhere. */
#ifndef FASTTRACE_STATE_H
#define FASTTRACE_STATE_H

#include "buffer.h"

typedef struct Ring Ring;
typedef struct Span Span;
typedef struct Trace Trace;

typedef struct {
    /* Types. */
    PyTypeObject *span_type;
    PyTypeObject *non_recording_type;
    PyTypeObject *trace_type;
    PyTypeObject *span_scope_type;
    PyTypeObject *traced_type;
    PyTypeObject *stream_type;
    PyTypeObject *ring_writer_type;
    PyTypeObject *ring_reader_type;
    PyTypeObject *segment_reader_type;

    /* The current span: bound methods of one ContextVar (PyContextVar_* is not in the Limited
     * API). */
    PyObject *context_get;
    PyObject *context_set;
    PyObject *context_reset;

    /* What the program decided about tracing. */
    bool disabled;           /* mlflow.tracing.disable() */
    bool scoped;             /* scope_var has been used: until then nobody looks at it */
    uint64_t sampling_bound; /* roots whose id is below it are sampled; SAMPLE_ALL: all */
    PyObject *scope_get;     /* bound get of the ContextVar of mlflow.tracing.context() */
    PyObject *runs_module;   /* owned str: once it is loaded, runs and models may be active */

    /* Where new traces go; NULL until the first span, after a fork and after a change of
     * destination. `destination` is an encoded map (bytes). */
    Ring *ring;
    Ring *second_ring; /* gets all that the ring gets; NULL when there is one place to send to */
    PyObject *destination;
    Trace *traces; /* those alive, linked; borrowed */

    PyObject *abandoned; /* owned list of spans that wait for span_end_abandoned(), or NULL */

    /* Python hooks, see set_hook(). */
    PyObject *encode_default;
    PyObject *format_exception;
    PyObject *start_recording;
    PyObject *warn;
    PyObject *extract_attachments;
    PyObject *payload_repr;
    PyObject *root_context;
    PyObject *process_span; /* NULL unless the program has span processors */
    PyObject *restart_sender;
    PyObject *trace_completed;   /* NULL unless somebody waits for completed traces */
    PyObject *take_info;         /* reads a TraceInfo that was handed out */
    PyObject *whole_trace_ended; /* takes whole traces */
    PyObject *external_parent;   /* NULL unless spans of other libraries may be parents */

    PyObject *method_type; /* types.MethodType: binds a traced callable to an instance */

    PyObject *last_trace_id;     /* str, or NULL before the first */
    PyObject *last_trace_id_set; /* bound set of the ContextVar for thread_local=True */

    Buffer scratch[4]; /* encoding buffers; a hook may re-enter, so there are several */
    unsigned scratch_used;
} CoreState;

#define SAMPLE_ALL UINT64_MAX

static inline CoreState *state_of(PyObject *self)
{
    return (CoreState *)PyType_GetModuleState(Py_TYPE(self));
}

/* Puts a new value, whose reference it takes over, where an owned one may stand. The old one is
 * released last: that can run Python code. */
static inline void set_owned(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    *slot = value;
    Py_XDECREF(old);
}

/* The container of a slot, made when it is first asked for. Borrowed; NULL with an exception. */
static inline PyObject *slot_dict(PyObject **slot)
{
    if (*slot == NULL) {
        *slot = PyDict_New();
    }
    return *slot;
}

static inline PyObject *slot_list(PyObject **slot)
{
    if (*slot == NULL) {
        *slot = PyList_New(0);
    }
    return *slot;
}

/* A buffer for the time of one encoding. Hooks can run other threads in between, so a buffer in
 * use is never handed out twice. */
Buffer *scratch_acquire(CoreState *state);
void scratch_release(CoreState *state, Buffer *buffer);

/* Each file's types; 0 or -1 with an exception. */
int ring_add_types(PyObject *module, CoreState *state);
int segment_add_types(PyObject *module, CoreState *state);
int trace_add_types(PyObject *module, CoreState *state);
int context_add_types(PyObject *module, CoreState *state);
int live_span_add_types(PyObject *module, CoreState *state);
int span_scope_add_types(PyObject *module, CoreState *state);
int traced_add_types(PyObject *module, CoreState *state);
int generator_add_types(PyObject *module, CoreState *state);

/* Creates a type, keeps it in *slot and, where `name` is given, adds it to the module. */
int state_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, const char *name);

#endif
