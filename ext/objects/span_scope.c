/* span_scope.c: the context manager, and decorator, that start_span() returns. */
#include "objects/span_scope.h"

#include "base/errors.h"
#include "base/python_side.h"
#include "trace/span.h"
#include "trace/span_end.h"
#include "trace/span_events.h"
#include "trace/span_start.h"
#include "trace/span_values.h"

/* The values that a scope is made of: the first members of SpanScope. */
#define SCOPE_VALUES 7

typedef struct {
    /* The name is kept over Python code, because only tp_clear replaces it, which finds nobody at
     * it. */
    PyObject_HEAD PyObject *name;
    PyObject *span_type;
    PyObject *attributes;
    PyObject *description;
    PyObject *log_level;
    PyObject *no_op;        /* yielded where the span is not recorded */
    PyObject *root_options; /* None, or (experiment id or None, run id or None, links or None) */
    Current *opened;        /* owned */
    bool entered;
} SpanScope;

static SpanScope *scope_make(PyTypeObject *type, PyObject *const *values)
{
    SpanScope *scope = PyObject_GC_New(SpanScope, type);
    if (scope == NULL) {
        return NULL;
    }
    PyObject **slots = &scope->name;
    for (int i = 0; i < SCOPE_VALUES; i++) {
        Py_INCREF(values[i]);
        slots[i] = values[i];
    }
    scope->opened = NULL;
    scope->entered = false;
    if (scope->attributes != Py_None || scope->root_options != Py_None) {
        PyObject_GC_Track(scope); /* only these may refer back to it */
    }
    return scope;
}

/* Takes the values of the usual call apart, which PyArg_ParseTuple() takes its time for; false for
 * any other call. */
static bool take_usual_values(PyObject *args, PyObject **values)
{
    if (UNLIKELY(PyTuple_Size(args) != SCOPE_VALUES - 1 ||
                 !PyUnicode_Check(PyTuple_GetItem(args, 0)))) {
        return false;
    }
    for (Py_ssize_t i = 0; i < SCOPE_VALUES - 1; i++) {
        values[i] = PyTuple_GetItem(args, i);
    }
    return true;
}

static PyObject *scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *values[SCOPE_VALUES] = {NULL, NULL, NULL, NULL, NULL, NULL, Py_None};
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "SpanScope takes no keyword arguments");
        return NULL;
    }
    if (UNLIKELY(!take_usual_values(args, values)) &&
        !PyArg_ParseTuple(args, "UOOOOO|O!:SpanScope", &values[0], &values[1], &values[2],
                          &values[3], &values[4], &values[5], &PyTuple_Type, &values[6])) {
        return NULL;
    }
    return (PyObject *)scope_make(type, values);
}

static int scope_traverse(SpanScope *scope, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)scope));
    PyObject **slots = &scope->name;
    for (int i = 0; i < SCOPE_VALUES; i++) {
        Py_VISIT(slots[i]);
    }
    Py_VISIT((PyObject *)scope->opened);
    return 0;
}

/* What the program may still call is kept whole: only values are released. */
static int scope_clear(SpanScope *scope)
{
    PyObject **slots = &scope->name;
    for (int i = 0; i < SCOPE_VALUES; i++) {
        set_shared(&slots[i], Py_None);
    }
    return 0;
}

static void scope_dealloc(SpanScope *scope)
{
    PyTypeObject *type = Py_TYPE(scope);
    PyObject_GC_UnTrack(scope);
    if (UNLIKELY(scope->opened != NULL)) { /* it was entered and never left */
        CoreState *state = state_of_type(type);
        current_leave_behind(scope->opened);
        if (as_span(state, scope->opened) != NULL) {
            abandon(state, (PyObject *)scope->opened);
        }
    }
    PyObject **slots = &scope->name;
    for (int i = 0; i < SCOPE_VALUES; i++) {
        Py_DECREF(slots[i]);
    }
    Py_XDECREF((PyObject *)scope->opened);
    PyObject_GC_Del(scope);
    Py_DECREF(type);
}

/* A root option, borrowed; NULL where it is None or not given. */
static PyObject *root_option(const SpanScope *scope, Py_ssize_t i)
{
    PyObject *item =
        scope->root_options != Py_None ? PyTuple_GetItem(scope->root_options, i) : NULL;
    if (item == NULL) {
        PyErr_Clear();
    }
    return item == Py_None ? NULL : item;
}

/* Takes any mapping, and pairs, as dict() does. */
static void set_attributes(Span *span, PyObject *attributes)
{
    if (LIKELY(PyDict_Check(attributes))) {
        span_set_attributes(span, attributes);
        return;
    }
    PyObject *dict = PyObject_CallFunctionObjArgs((PyObject *)&PyDict_Type, attributes, NULL);
    if (dict == NULL) {
        swallow_exception(span->state);
    }
    span_set_attributes(span, dict != NULL ? dict : attributes);
    Py_XDECREF(dict);
}

/* Gives a span that has just started what the scope was made with. */
static void fill(SpanScope *scope, Span *span)
{
    span_set(span, KEY_TYPE, scope->span_type);
    if (scope->attributes != Py_None) {
        set_attributes(span, scope->attributes);
    }
    if (scope->description != Py_None) {
        span_set(span, KEY_DESCRIPTION, scope->description);
    }
    if (scope->log_level != Py_None) {
        span_set(span, KEY_LOG_LEVEL, scope->log_level);
    }
    if (UNLIKELY(scope->root_options != Py_None)) {
        span_apply_root_options(span, scope->root_options);
    }
}

/* Takes what the scope has opened out of it and ends it, with the exception (or None) that the
 * block was left with. */
static void leave_scope(CoreState *state, SpanScope *scope, PyObject *exception)
{
    Current *opened = scope->opened;
    Span *span = as_span(state, opened);
    if (opened == NULL) {
        return;
    }
    scope->opened = NULL;
    if (PyErr_GivenExceptionMatches(exception, PyExc_GeneratorExit)) {
        current_leave_behind(opened); /* perhaps by the garbage collector, see trace/context.c */
    }
    else {
        current_deactivate(state, opened);
    }
    if (span != NULL) {
        if (exception != Py_None && PyErr_GivenExceptionMatches(exception, PyExc_Exception)) {
            span_record_exception(span, exception, true);
        }
        span_end(span, 0);
    }
    Py_DECREF((PyObject *)opened);
}

/* The program was interrupted while the span was starting: the block is not entered. */
static PyObject *enter_interrupted(CoreState *state, SpanScope *scope)
{
    PyObject *type, *value, *traceback;
    raise_interruption(state);
    take_exception(&type, &value, &traceback);
    leave_scope(state, scope, value);
    PyErr_Restore(type, value, traceback);
    return leave_core(state, NULL);
}

static PyObject *scope_enter(SpanScope *scope, PyObject *unused)
{
    (void)unused;
    CoreState *state = state_of_type(Py_TYPE((PyObject *)scope));
    if (scope->entered) {
        PyErr_SetString(PyExc_RuntimeError, "this span has been started already");
        return NULL;
    }
    scope->entered = true;
    SpanOptions options = {
        .root = {.experiment = root_option(scope, 0), .run_id = root_option(scope, 1)}};
    Current *opened =
        span_open(state, scope->name, LIKELY(scope->root_options == Py_None) ? NULL : &options);
    Span *span = as_span(state, opened);
    Py_XINCREF((PyObject *)opened); /* the code of a value may leave the scope meanwhile */
    scope->opened = opened;
    if (LIKELY(span != NULL)) {
        fill(scope, span);
    }
    if (opened != NULL && scope->opened == opened) {
        current_activate(state, opened);
    }
    if (UNLIKELY(is_interrupted(state))) {
        Py_XDECREF((PyObject *)opened);
        return enter_interrupted(state, scope);
    }
    if (LIKELY(span != NULL)) {
        return (PyObject *)span;
    }
    Py_XDECREF((PyObject *)opened);
    Py_INCREF(scope->no_op);
    return scope->no_op;
}

static PyObject *scope_exit(SpanScope *scope, PyObject *const *args, Py_ssize_t count)
{
    CoreState *state = state_of_type(Py_TYPE((PyObject *)scope));
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "__exit__() takes exactly 3 arguments (%zd given)", count);
        return NULL;
    }
    PyObject *type = args[0], *value = args[1], *made = NULL;
    /* Called by hand with the type alone: the exception is made, as a with statement would. */
    if (value == Py_None && type != Py_None && as_span(state, scope->opened) != NULL) {
        made = PyObject_CallNoArgs(type);
        if (made == NULL) {
            swallow_exception(state);
        }
    }
    leave_scope(state, scope, made != NULL ? made : value);
    Py_XDECREF(made);
    Py_INCREF(Py_False);
    return leave_core(state, Py_False);
}

/* As a decorator: every call of the function gets a scope of its own. */
static PyObject *scope_call(SpanScope *scope, PyObject *args, PyObject *kwargs)
{
    PyObject *function;
    if ((kwargs != NULL && PyDict_Size(kwargs) > 0) || !PyArg_ParseTuple(args, "O", &function)) {
        PyErr_SetString(PyExc_TypeError, "start_span(...) as a decorator takes one function");
        return NULL;
    }
    return python_call(SPANS_WRAPPERS, "function_in_scope", (PyObject *)scope, function);
}

static PyObject *scope_again(SpanScope *scope, PyObject *unused)
{
    (void)unused;
    return (PyObject *)scope_make(Py_TYPE((PyObject *)scope), &scope->name);
}

static PyMethodDef scope_methods[] = {
    {"__enter__", (PyCFunction)scope_enter, METH_NOARGS,
     "__enter__($self, /)\n--\n\nStart the span and make it current."},
    {"__exit__", (PyCFunction)(void (*)(void))scope_exit, METH_FASTCALL,
     "__exit__($self, kind, value, traceback, /)\n--\n\nEnd the span; never swallows an "
     "exception."},
    {"again", (PyCFunction)scope_again, METH_NOARGS,
     "again($self, /)\n--\n\nA scope like this one, not entered."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_new, scope_new},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_traverse, scope_traverse},
    {Py_tp_clear, scope_clear},
    {Py_tp_call, scope_call},
    {Py_tp_methods, scope_methods},
    {Py_tp_doc,
     "SpanScope(name, span_type, attributes, description, log_level, no_op, "
     "root_options=None, /)\n--\n\n"
     "What ``start_span()`` returns: a context manager whose value is the span, and a decorator."},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "mlflow_fasttrace._core.SpanScope",
    .basicsize = sizeof(SpanScope),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = scope_slots,
};

int span_scope_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &scope_spec, &state->types.span_scope, "SpanScope");
}
