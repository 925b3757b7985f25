/* state.h: what one import of the module owns. There is no static PyObject * anywhere.
 *
 * This header lies under everything and declares nothing that a layer above defines; the lists
 * below are the one place where a type, a hook or another object of the state is named, and the
 * garbage collector's functions follow from them (state.c). */
#ifndef FASTTRACE_STATE_H
#define FASTTRACE_STATE_H

#include "base/buffer.h"

typedef struct Ring Ring;
typedef struct Span Span;
typedef struct Trace Trace;

/* The module's types, by the name of the file in objects/ or spool/ that makes each. */
#define CORE_TYPES(X)                                                                              \
    X(live_span)                                                                                   \
    X(non_recording_span)                                                                          \
    X(live_trace)                                                                                  \
    X(span_scope)                                                                                  \
    X(traced)                                                                                      \
    X(stream)                                                                                      \
    X(ring_writer)                                                                                 \
    X(ring_reader)                                                                                 \
    X(segment_reader)

/* What the core asks of Python: callables that set_hook() gives it, by name. The package's
 * _internal/base/hooks.py says of each what it is asked, and when. */
#define PYTHON_HOOKS(X)                                                                            \
    X(encode_default)                                                                              \
    X(extract_attachments)                                                                         \
    X(payload_repr)                                                                                \
    X(format_exception)                                                                            \
    X(warn)                                                                                        \
    X(start_recording)                                                                             \
    X(root_context)                                                                                \
    X(restart_sender)                                                                              \
    X(process_span)                                                                                \
    X(trace_completed)                                                                             \
    X(take_info)                                                                                   \
    X(whole_trace_ended)                                                                           \
    X(external_parent)                                                                             \
    X(span_left_out)

/* Other objects that the state owns. */
#define CORE_OBJECTS(X)                                                                            \
    X(current_span.get)                                                                            \
    X(current_span.set)                                                                            \
    X(current_span.reset)                                                                          \
    X(scope_get)                                                                                   \
    X(copy_context)                                                                                \
    X(modules)                                                                                     \
    X(runs_module)                                                                                 \
    X(ring)                                                                                        \
    X(second_ring)                                                                                 \
    X(destination)                                                                                 \
    X(abandoned)                                                                                   \
    X(method_type)                                                                                 \
    X(finalizer_current)                                                                           \
    X(last_trace_id)                                                                               \
    X(last_trace_id_set)

#define SCRATCH_BUFFERS 4

/* An exception that belongs to the program and waits to leave the core (errors.h). */
typedef struct {
    unsigned long thread; /* PyThread_get_thread_ident() */
    PyObject *exception;  /* owned */
    PyObject *caller;     /* owned: the frame that called the core; NULL for none */
} Interruption;

#define MAX_INTERRUPTIONS 16

/* Addresses of a thread's C stack that have enough of it below them. */
typedef struct {
    uintptr_t from, size;
} StackRoom;

/* A release of MLflow as a number that compares as releases do. */
#define MLFLOW(major, minor) ((uint32_t)(major) << 16 | (uint32_t)(minor))

typedef struct {
#define X(name) PyTypeObject *name;
    struct {
        CORE_TYPES(X)
    } types;
#undef X
#define X(name) PyObject *name; /* NULL until it is set, and while a feature does not need it */
    struct {
        PYTHON_HOOKS(X)
    } hooks;
#undef X

    /* Bound methods of the ContextVar of the current span (PyContextVar_* is not in the Limited
     * API). */
    struct {
        PyObject *get, *set, *reset;
    } current_span;

    /* The release of MLflow whose behaviour is followed, which differs with it: MLFLOW(3, 17). */
    uint32_t mlflow;

    /* What the program decided about tracing. */
    bool disabled;           /* mlflow.tracing.disable() */
    bool scoped;             /* scope_var has been used: until then nobody looks at it */
    uint64_t sampling_bound; /* roots whose id is below it are sampled; SAMPLE_ALL: all */
    PyObject *scope_get;     /* bound get of the ContextVar of mlflow.tracing.context() */
    PyObject *modules;     /* sys.modules' dict: it cannot be asked for at the interpreter's end */
    PyObject *runs_module; /* str: once the module is loaded, runs and models may be active */

    /* Where new traces go; NULL until the first root, after a fork and after a change of
     * destination. */
    Ring *ring;
    Ring *second_ring;     /* of dual export: gets all that the ring gets; NULL otherwise */
    PyObject *destination; /* bytes: an encoded map */
    Trace *traces;         /* borrowed: the first of those that are alive, linked */

    Span *unused_spans; /* memory of released spans for the next ones (trace/span.c), linked */
    unsigned unused_span_count;

    /* Before Python 3.12, the thread in which the garbage collector runs, or 0; and what is current
     * in its finalizers, NULL where that is what the context variable says (trace/context.c). */
    unsigned long collecting_thread;
    PyObject *finalizer_current;
    bool read_in_collection; /* the context variable was read in such a finalizer */
    PyObject *copy_context;  /* contextvars.copy_context */

    PyObject *abandoned; /* list of spans that wait for span_end_abandoned(), or NULL */

    PyObject *method_type; /* types.MethodType: binds a traced callable to an instance */

    PyObject *last_trace_id;     /* str, or NULL before the first */
    PyObject *last_trace_id_set; /* bound set of the ContextVar for thread_local=True */

    Interruption interruptions[MAX_INTERRUPTIONS]; /* one a thread */
    unsigned interruption_count;

    StackRoom stack_room; /* of the thread that was looked at last: see stack.h */

    PyObject **released; /* owned, with its items: see release_in_turn() */
    size_t released_count, released_room;
    unsigned release_depth;

    Buffer scratch[SCRATCH_BUFFERS]; /* a hook may re-enter the encoder, so there are several */
    unsigned scratch_used;           /* a bit a buffer */
} CoreState;

#define SAMPLE_ALL UINT64_MAX

static inline CoreState *state_of_module(PyObject *module)
{
    return (CoreState *)PyModule_GetState(module);
}

static inline CoreState *state_of_type(PyTypeObject *type)
{
    return (CoreState *)PyType_GetModuleState(type);
}

/* ---- making and unmaking the state (module.c) ---- */

/* Fills what does not depend on a layer above; adds the context variables to the module. 0, or -1
 * with an exception. */
RUNS_PYTHON int state_init(PyObject *module);
int state_traverse(PyObject *module, visitproc visit, void *arg);
RUNS_PYTHON int state_clear(PyObject *module);
RUNS_PYTHON void state_free(void *module);

/* Creates a type, keeps it in *slot and adds it to the module under `name`. 0, or -1 with an
 * exception. */
RUNS_PYTHON int state_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot,
                               const char *name);

/* ---- owned slots ---- */

/* Puts a new value, whose reference it takes over, where an owned one may stand. The old one is
 * released last: releasing it can run Python code. */
RUNS_PYTHON static inline void set_owned(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    *slot = value;
    Py_XDECREF(old);
}

/* Puts a new value, which stays the caller's too and may be NULL, in a slot. */
RUNS_PYTHON static inline void set_shared(PyObject **slot, PyObject *value)
{
    Py_XINCREF(value);
    set_owned(slot, value);
}

/* Releases an object (or NULL) of a chain, each of which releases the next: a long chain costs no
 * stack. Runs Python code, later perhaps. */
RUNS_PYTHON void release_in_turn(CoreState *state, PyObject *object);

/* Puts a new object, whose reference it takes over, in a slot that was empty; if another one stands
 * there by now, that one stays. What stands there, borrowed; NULL with an exception. */
RUNS_PYTHON static inline PyObject *slot_fill(PyObject **slot, PyObject *made)
{
    if (*slot == NULL) {
        *slot = made;
    }
    else {
        Py_XDECREF(made);
    }
    return *slot;
}

/* The dict of a slot, made when it is first asked for. Borrowed; NULL with an exception. Runs
 * Python code: making a container may run the garbage collector before Python 3.12. */
RUNS_PYTHON static inline PyObject *slot_dict(PyObject **slot)
{
    return *slot != NULL ? *slot : slot_fill(slot, PyDict_New());
}

/* The list of a slot, likewise. */
RUNS_PYTHON static inline PyObject *slot_list(PyObject **slot)
{
    return *slot != NULL ? *slot : slot_fill(slot, PyList_New(0));
}

/* ---- scratch buffers ---- */

/* A buffer for the time of one encoding; NULL without memory. Hooks let other threads run in
 * between, so a buffer in use is never handed out twice. */
Buffer *scratch_acquire(CoreState *state);
void scratch_release(CoreState *state, Buffer *buffer);

#endif
