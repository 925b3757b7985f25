/* traced.c: a call of a traced function.
 *
 * A synchronous function becomes a Traced object, which is the callable itself. Its
 * attributes (name, code, __dict__, even __class__) are those of its signature function, a Python
 * function that looks as MLflow's wrapper does: tools that want a function find one.
 * Coroutine functions and generators keep a thin Python wrapper around it
 * (_internal/spans/wrappers.py), so that inspect and asyncio still see what they are; the wrapper
 * calls _begin, _finish and _fail, or _stream, and there is no signature function. */
#include "objects/traced.h"

#include "base/errors.h"
#include "base/stack.h"
#include "objects/signature.h"
#include "objects/stream.h"
#include "trace/span_end.h"
#include "trace/span_events.h"
#include "trace/span_start.h"
#include "trace/span_values.h"
#include "value/encode.h"

typedef struct {
    PyObject_HEAD PyObject *weak_references;
    PyObject *signature_function; /* owned; NULL inside a wrapper */
    PyObject *arguments; /* owned tuple that it was made of: a copy by value is made of them */
    CoreState *state;
    PyObject *function;     /* owned */
    PyObject *span_name;    /* owned str */
    PyObject *reducer;      /* owned; None but for generators */
    PyObject *root_options; /* owned; None, or (experiment id or None, None, links or None) */
    SpanOptions options;    /* borrows from root_options */
    bool has_options;
    Attributes prepared; /* what every span of it begins with */
    bool prepared_name_a_first_one;
    Attribute prepared_entries[INLINE_ATTRIBUTES];
    Signature signature;
} Traced;

/* ---- a call ---- */

/* Starts the span of a call, as span_open() does: prepared attributes and inputs are set, and it is
 * made current if asked. */
static Current *begin(Traced *self, PyObject *args, PyObject *kwargs, bool activate)
{
    CoreState *state = self->state;
    Current *opened = span_open(state, self->span_name, self->has_options ? &self->options : NULL);
    Span *span = as_span(state, opened);
    if (UNLIKELY(span == NULL)) {
        if (opened != NULL && activate) {
            current_activate(state, opened);
        }
        return opened;
    }
    if (UNLIKELY(!span_add_prepared(span, &self->prepared, self->prepared_name_a_first_one))) {
        value_has_no_room(state);
    }
    if (UNLIKELY(self->root_options != Py_None)) {
        span_apply_root_options(span, self->root_options);
    }
    if (activate) {
        current_activate(state, opened);
    }
    signature_set_inputs(&self->signature, span, args, kwargs);
    return opened;
}

/* Ends the span of a call that returned. `opened` may be NULL. */
static void finish(CoreState *state, Current *opened, PyObject *result)
{
    Span *span = as_span(state, opened);
    if (UNLIKELY(opened == NULL)) {
        return;
    }
    if (LIKELY(span != NULL)) {
        span_default_outputs(span, result);
    }
    current_deactivate(state, opened);
    if (LIKELY(span != NULL)) {
        span_end(span, 0);
    }
}

/* Ends the span of a call that raised the pending exception, which stays pending. `opened` may be
 * NULL. */
static void fail(CoreState *state, Current *opened)
{
    PyObject *type, *value, *traceback;
    Span *span = as_span(state, opened);
    if (opened == NULL) {
        return;
    }
    if (span != NULL) {
        span_record_pending(span);
    }
    PyErr_Fetch(&type, &value, &traceback);
    current_deactivate(state, opened);
    if (span != NULL) {
        span_end(span, 0);
    }
    PyErr_Restore(type, value, traceback);
}

static PyObject *call_function(Traced *self, PyObject *args, PyObject *kwargs)
{
    if (UNLIKELY(self->function == NULL)) { /* a finalizer calls what is being collected with it */
        PyErr_SetString(PyExc_RuntimeError,
                        "the garbage collector has released the function that is traced");
        return NULL;
    }
    return PyObject_Call(self->function, args, kwargs);
}

static PyObject *traced_call(Traced *self, PyObject *args, PyObject *kwargs)
{
    CoreState *state = self->state;
    if (UNLIKELY(stack_is_low(state))) {
        stack_raise_low();
        return NULL;
    }
    Current *opened = begin(self, args, kwargs, true);
    bool interrupted = raise_interruption(state);
    PyObject *result = interrupted ? NULL : call_function(self, args, kwargs);
    if (LIKELY(result != NULL)) {
        finish(state, opened, result);
    }
    else {
        fail(state, opened);
    }
    Py_XDECREF((PyObject *)opened);
    return leave_core(state, result);
}

/* ---- for the wrapper of a coroutine function ----
 *
 * What _begin() made current is handed over in a list of the wrapper's, of one item that was None,
 * and not as a result: an exception of a signal handler may come between a call and the use of its
 * result. */

static bool has_arguments(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted)
{
    bool fit = count == wanted && PyList_Check(args[0]) &&
               (wanted != 3 || (PyTuple_Check(args[1]) && PyDict_Check(args[2])));
    if (UNLIKELY(!fit)) {
        PyErr_SetString(PyExc_TypeError, "these are not the arguments of a step of a coroutine");
    }
    return fit;
}

static PyObject *traced_py_begin(Traced *self, PyObject *const *args, Py_ssize_t count)
{
    CoreState *state = self->state;
    if (!has_arguments(args, count, 3)) {
        return NULL;
    }
    Current *opened = begin(self, args[1], args[2], true);
    bool failed = raise_interruption(state);
    if (!failed && opened != NULL) {
        Py_INCREF((PyObject *)opened);
        failed = PyList_SetItem(args[0], 0, (PyObject *)opened) < 0;
    }
    if (UNLIKELY(failed)) {
        fail(state, opened);
    }
    Py_XDECREF((PyObject *)opened);
    if (UNLIKELY(failed)) {
        return leave_core(state, NULL);
    }
    Py_RETURN_NONE;
}

/* Takes what _begin() put into the list; NULL where there is nothing (any more). */
static Current *take_held(const CoreState *state, PyObject *held)
{
    PyObject *object = PyList_Size(held) > 0 ? PyList_GetItem(held, 0) : NULL;
    if (object == NULL || !is_current(state, object)) {
        return NULL;
    }
    Py_INCREF(object);
    Py_INCREF(Py_None);
    PyList_SetItem(held, 0, Py_None);
    return (Current *)object;
}

static PyObject *traced_py_finish(Traced *self, PyObject *const *args, Py_ssize_t count)
{
    if (!has_arguments(args, count, 2)) {
        return NULL;
    }
    Current *opened = take_held(self->state, args[0]);
    finish(self->state, opened, args[1]);
    Py_XDECREF((PyObject *)opened);
    return leave_core_with_none(self->state);
}

/* GeneratorExit means that the coroutine was closed, perhaps by the garbage collector, where the
 * context must not be touched. */
static PyObject *traced_py_fail(Traced *self, PyObject *const *args, Py_ssize_t count)
{
    CoreState *state = self->state;
    if (!has_arguments(args, count, 2)) {
        return NULL;
    }
    PyObject *exception = args[1];
    Current *opened = take_held(state, args[0]);
    if (opened == NULL) {
        Py_RETURN_NONE;
    }
    Span *span = as_span(state, opened);
    if (span != NULL && PyErr_GivenExceptionMatches(exception, PyExc_Exception)) {
        span_record_exception(span, exception, true);
    }
    if (PyErr_GivenExceptionMatches(exception, PyExc_GeneratorExit)) {
        current_leave_behind(opened);
    }
    else {
        current_deactivate(state, opened);
    }
    if (span != NULL) {
        span_end(span, 0);
    }
    Py_DECREF((PyObject *)opened);
    return leave_core_with_none(state);
}

static PyObject *traced_py_stream(Traced *self, PyObject *arguments)
{
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(arguments, "O!O!:_stream", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) {
        return NULL;
    }
    CoreState *state = self->state;
    Current *opened = begin(self, args, kwargs, false);
    bool interrupted = raise_interruption(state);
    PyObject *iterator = interrupted ? NULL : call_function(self, args, kwargs);
    PyObject *stream = iterator != NULL ? stream_new(state, opened, iterator, self->reducer) : NULL;
    if (UNLIKELY(stream == NULL)) {
        fail(state, opened); /* the arguments do not fit, say */
    }
    Py_XDECREF(iterator);
    Py_XDECREF((PyObject *)opened);
    return leave_core(state, stream);
}

/* ---- the object ---- */

static int add_prepared(Traced *self, PyObject *key, PyObject *value)
{
    Buffer out = {0};
    encode_str(&out, key);
    size_t key_size = out.len;
    encode_value(self->state, &out, value);
    bool ok = !out.failed &&
              attributes_set(&self->prepared, self->prepared_entries, key_of(out.data, key_size),
                             out.data + key_size, out.len - key_size);
    buffer_free(&out);
    if (!ok) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* `attributes`: [(key, value)]. */
static int prepare_attributes(Traced *self, PyObject *attributes)
{
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_Size(attributes); i++) {
        PyObject *key, *value, *pair = PyList_GetItem(attributes, i);
        Py_INCREF(pair);
        bool is_pair =
            need_tuple(pair, "an attribute") && PyArg_ParseTuple(pair, "UO", &key, &value);
        result = is_pair ? add_prepared(self, key, value) : -1;
        Py_DECREF(pair);
    }
    return result;
}

/* `root_options` is None or a tuple, see Traced; `sampling` None or a ratio. */
static int read_options(Traced *self, PyObject *root_options, PyObject *sampling)
{
    RootOptions *root = &self->options.root;
    if (root_options != Py_None) {
        PyObject *experiment, *run_id, *links;
        if (!need_tuple(root_options, "root_options") ||
            !PyArg_ParseTuple(root_options, "OOO", &experiment, &run_id, &links)) {
            return -1;
        }
        root->experiment = experiment == Py_None ? NULL : experiment;
        self->has_options = root->experiment != NULL;
    }
    if (sampling != Py_None) {
        double ratio = PyFloat_AsDouble(sampling);
        if (ratio == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        root->sampling_bound = sampling_bound_of_ratio(ratio);
        root->has_sampling = true;
        self->has_options = true;
    }
    return 0;
}

static PyObject *traced_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *function, *span_name, *attributes, *parameters, *reducer;
    PyObject *root_options = Py_None, *sampling = Py_None;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Traced takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OUO!OO|OO:Traced", &function, &span_name, &PyList_Type,
                          &attributes, &parameters, &reducer, &root_options, &sampling)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Traced *self = (Traced *)alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state_of_type(type);
    Py_INCREF(args);
    self->arguments = args;
    Py_INCREF(function);
    self->function = function;
    Py_INCREF(span_name);
    self->span_name = span_name;
    Py_INCREF(reducer);
    self->reducer = reducer;
    Py_INCREF(root_options);
    self->root_options = root_options;
    self->prepared.entries = self->prepared_entries;
    self->prepared.room = INLINE_ATTRIBUTES;
    if (prepare_attributes(self, attributes) < 0 ||
        read_options(self, root_options, sampling) < 0 ||
        signature_read(&self->signature, parameters) < 0) {
        CoreState *state = self->state;
        Py_DECREF(self);
        return leave_core(state, NULL);
    }
    attributes_compact(&self->prepared);
    self->prepared_name_a_first_one = attributes_name_a_first_one(&self->prepared);
    return leave_core(self->state, (PyObject *)self);
}

static int traced_traverse(Traced *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->signature_function);
    Py_VISIT(self->arguments);
    Py_VISIT(self->function);
    Py_VISIT(self->reducer);
    Py_VISIT(self->root_options);
    Py_VISIT(self->span_name);
    return signature_traverse(&self->signature, visit, arg);
}

static int traced_clear(Traced *self)
{
    Py_CLEAR(self->signature_function);
    Py_CLEAR(self->arguments);
    Py_CLEAR(self->function);
    Py_CLEAR(self->reducer);
    signature_clear(&self->signature);
    return 0;
}

static void traced_dealloc(Traced *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    traced_clear(self);
    signature_free(&self->signature);
    attributes_free(&self->prepared, self->prepared_entries);
    Py_XDECREF(self->span_name);
    Py_XDECREF(self->root_options);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *traced_get(PyObject *self, PyObject *instance, PyObject *owner)
{
    (void)owner;
    if (instance == NULL || instance == Py_None) {
        Py_INCREF(self);
        return self;
    }
    return PyObject_CallFunctionObjArgs(((Traced *)self)->state->method_type, self, instance, NULL);
}

/* Whether the type itself answers for an attribute: how it is called and bound. */
static bool is_own(PyObject *name)
{
    return PyUnicode_CompareWithASCIIString(name, "__call__") == 0 ||
           PyUnicode_CompareWithASCIIString(name, "__get__") == 0;
}

static PyObject *traced_getattro(Traced *self, PyObject *name)
{
    if (self->signature_function == NULL || is_own(name)) {
        return PyObject_GenericGetAttr((PyObject *)self, name);
    }
    PyObject *function = self->signature_function; /* it may be replaced meanwhile */
    Py_INCREF(function);
    PyObject *value = PyObject_GetAttr(function, name);
    Py_DECREF(function);
    return value;
}

static int traced_setattro(Traced *self, PyObject *name, PyObject *value)
{
    if (self->signature_function == NULL) {
        return PyObject_GenericSetAttr((PyObject *)self, name, value);
    }
    PyObject *function = self->signature_function; /* it may be replaced meanwhile */
    Py_INCREF(function);
    int result = PyObject_SetAttr(function, name, value);
    Py_DECREF(function);
    return result;
}

static PyObject *traced_repr(Traced *self)
{
    PyObject *function = self->signature_function; /* it may be replaced meanwhile */
    if (function != NULL) {
        Py_INCREF(function);
        PyObject *text = PyObject_Repr(function);
        Py_DECREF(function);
        return text;
    }
    return PyUnicode_FromFormat("<traced %R>", self->function);
}

static PyObject *traced_py_set_signature_function(Traced *self, PyObject *function)
{
    Py_INCREF(function);
    set_owned(&self->signature_function, function);
    Py_RETURN_NONE;
}

static PyMethodDef traced_methods[] = {
    {"_begin", (PyCFunction)(void (*)(void))traced_py_begin, METH_FASTCALL,
     "_begin($self, held, args, kwargs, /)\n--\n\n"
     "Start the span of a call; what is current now replaces the None in `held`."},
    {"_finish", (PyCFunction)(void (*)(void))traced_py_finish, METH_FASTCALL,
     "_finish($self, held, result, /)\n--\n\nEnd the span of a call that returned."},
    {"_fail", (PyCFunction)(void (*)(void))traced_py_fail, METH_FASTCALL,
     "_fail($self, held, error, /)\n--\n\n"
     "End the span of a call that raised, unless it has ended."},
    {"_stream", (PyCFunction)traced_py_stream, METH_VARARGS,
     "_stream($self, args, kwargs, /)\n--\n\nStart the span of a generator: its Stream."},
    {"_set_signature_function", (PyCFunction)traced_py_set_signature_function, METH_O,
     "_set_signature_function($self, function, /)\n--\n\nAnswer for attributes as that function "
     "does."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef traced_members[] = {
    {"_arguments", T_OBJECT, offsetof(Traced, arguments), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Traced, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static const char traced_doc[] = "Traced(function, span_name, attributes, parameters, reducer, "
                                 "root_options=None, sampling=None, "
                                 "/)\n--\n\nA traced callable.";

static PyType_Slot traced_slots[] = {
    {Py_tp_new, traced_new},
    {Py_tp_dealloc, traced_dealloc},
    {Py_tp_traverse, traced_traverse},
    {Py_tp_clear, traced_clear},
    {Py_tp_call, traced_call},
    {Py_tp_descr_get, traced_get},
    {Py_tp_getattro, traced_getattro},
    {Py_tp_setattro, traced_setattro},
    {Py_tp_repr, traced_repr},
    {Py_tp_methods, traced_methods},
    {Py_tp_members, traced_members},
    {Py_tp_doc, (void *)traced_doc},
    {0, NULL},
};

static PyType_Spec traced_spec = {
    .name = "mlflow_fasttrace._core.Traced",
    .basicsize = sizeof(Traced),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = traced_slots,
};

int traced_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &traced_spec, &state->types.traced, "Traced");
}
