/* traced.c: a call of a traced function.
 *
 * A synchronous function becomes a Traced object, which is the callable itself. What one asks it
 * for (its name, its code, its __dict__, even its __class__) its shape answers, a Python function
 * that looks as MLflow's wrapper does: tools that want a function find one. Coroutine functions and
 * generators keep a thin Python shell around it (see _shells.py), so that inspect and asyncio still
 * see what they are; the shell calls _begin / _finish / _fail, or _stream, and there is no shape.
 *
 * The signature is read once, at decoration, by Python; here a call's arguments are matched with
 * the parameters as inspect.Signature.bind and apply_defaults would, and encoded under the
 * parameters' names, which were encoded at decoration. Arguments that don't fit are not this
 * file's business: the function itself raises its TypeError, and the span says so. */
#include "traced.h"

#include "context.h"
#include "generator.h"

#define INLINE_PARAMETERS 16

/* ---- inputs ---- */

/* The values of all parameters, borrowed; NULL stands for the two variadic ones. False when the
 * arguments don't fit. */
static bool bind_arguments(const Traced *self, PyObject *args, PyObject *kwargs, PyObject **values,
                           size_t *extra_keywords)
{
    Py_ssize_t given = PyTuple_Size(args);

    *extra_keywords = 0;
    if (given > self->positional_count && self->var_positional < 0) {
        return false;
    }
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        values[i] = i < given && i < self->positional_count ? PyTuple_GetItem(args, i) : NULL;
    }
    if (kwargs != NULL) {
        PyObject *name, *value;
        Py_ssize_t at = 0;
        while (PyDict_Next(kwargs, &at, &name, &value)) {
            Py_ssize_t found = -1;
            for (Py_ssize_t i = 0; i < self->parameter_count && found < 0; i++) {
                const Parameter *p = &self->parameters[i];
                if ((p->kind == POSITIONAL_OR_KEYWORD || p->kind == KEYWORD_ONLY) &&
                    (p->name == name || PyUnicode_Compare(p->name, name) == 0)) {
                    found = i;
                }
            }
            if (found < 0) {
                if (self->var_keyword < 0) {
                    return false;
                }
                ++*extra_keywords;
            }
            else if (values[found] != NULL) {
                return false;
            }
            else {
                values[found] = value;
            }
        }
    }
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        const Parameter *p = &self->parameters[i];
        if (values[i] == NULL && i != self->var_positional && i != self->var_keyword) {
            if (p->default_value == NULL) {
                return false;
            }
            values[i] = p->default_value;
        }
    }
    return true;
}

static bool is_extra_keyword(const Traced *self, PyObject *name)
{
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        const Parameter *p = &self->parameters[i];
        if ((p->kind == POSITIONAL_OR_KEYWORD || p->kind == KEYWORD_ONLY) &&
            (p->name == name || PyUnicode_Compare(p->name, name) == 0)) {
            return false;
        }
    }
    return true;
}

/* What **kwargs receives, as a new dict. */
static PyObject *extra_keywords_dict(const Traced *self, PyObject *kwargs)
{
    PyObject *extra = PyDict_New();
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (extra != NULL && kwargs != NULL && PyDict_Next(kwargs, &at, &name, &value)) {
        if (is_extra_keyword(self, name) && PyDict_SetItem(extra, name, value) < 0) {
            Py_CLEAR(extra);
        }
    }
    return extra;
}

/* The value of a parameter as a new reference. */
static PyObject *bound_value(const Traced *self, Py_ssize_t i, PyObject **values, PyObject *args,
                             PyObject *kwargs)
{
    if (i == self->var_positional) {
        Py_ssize_t given = PyTuple_Size(args);
        return PyTuple_GetSlice(
            args, self->positional_count < given ? self->positional_count : given, given);
    }
    if (i == self->var_keyword) {
        return extra_keywords_dict(self, kwargs);
    }
    Py_INCREF(values[i]);
    return values[i];
}

/* self, and a class that is handed as cls: the first parameter, or the first after self. */
static bool left_out(const Traced *self, Py_ssize_t i, PyObject **values)
{
    const Parameter *p = &self->parameters[i];
    bool first = i == 0 || (i == 1 && self->parameters[0].is_self);
    return p->is_self || (first && values[i] != NULL && PyType_Check(values[i]) &&
                          PyUnicode_CompareWithASCIIString(p->name, "cls") == 0);
}

static void set_inputs_as_dict(const Traced *self, Span *span, PyObject **values, PyObject *args,
                               PyObject *kwargs)
{
    PyObject *inputs = PyDict_New();
    for (Py_ssize_t i = 0; inputs != NULL && i < self->parameter_count; i++) {
        if (left_out(self, i, values)) {
            continue;
        }
        PyObject *value = bound_value(self, i, values, args, kwargs);
        if (value == NULL || PyDict_SetItem(inputs, self->parameters[i].name, value) < 0) {
            Py_CLEAR(inputs);
        }
        Py_XDECREF(value);
    }
    if (inputs == NULL) {
        swallow_exception();
        return;
    }
    span_set_payload(span, KEY_INPUTS, inputs);
    Py_DECREF(inputs);
}

/* Encodes the arguments one by one. False where one of them decides how all are recorded: it is not
 * JSON (MLflow keeps the repr of the whole dictionary), or it may hold binary content. */
static bool encode_inputs(const Traced *self, Buffer *out, PyObject **values, PyObject *args,
                          PyObject *kwargs)
{
    size_t shown = 0;
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        shown += !left_out(self, i, values);
    }
    wire_pack_map(out, shown);
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        const Parameter *p = &self->parameters[i];
        if (left_out(self, i, values)) {
            continue;
        }
        buffer_append(out, self->keys.data + p->key_start, p->key_size);
        EncodeResult result;
        if (i == self->var_positional || i == self->var_keyword) {
            PyObject *value = bound_value(self, i, values, args, kwargs);
            if (value == NULL) {
                swallow_exception();
                wire_pack_nil(out);
                continue;
            }
            result = encode_payload(self->state, out, value);
            Py_DECREF(value);
        }
        else {
            result = encode_payload(self->state, out, values[i]);
        }
        if (UNLIKELY(result != ENCODED)) {
            return false;
        }
    }
    return true;
}

static void set_inputs(const Traced *self, Span *span, PyObject *args, PyObject *kwargs)
{
    PyObject *inline_values[INLINE_PARAMETERS], **values = inline_values;
    size_t extra;
    Buffer *out = scratch_acquire(self->state);

    if (out == NULL) {
        return;
    }
    if (self->parameter_count > INLINE_PARAMETERS) {
        values = malloc((size_t)self->parameter_count * sizeof *values);
    }
    if (values == NULL || !self->has_signature ||
        !bind_arguments(self, args, kwargs, values, &extra)) {
        wire_pack_nil(out);
    }
    else if (UNLIKELY(!encode_inputs(self, out, values, args, kwargs))) {
        set_inputs_as_dict(self, span, values, args, kwargs);
        goto done;
    }
    if (LIKELY(!out->failed)) {
        span_set_encoded(span, KEY_INPUTS, out->data, out->len);
    }
done:
    scratch_release(self->state, out);
    if (values != inline_values) {
        free(values);
    }
}

/* ---- a call ---- */

Current *traced_begin(Traced *self, PyObject *args, PyObject *kwargs, bool activate)
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
    span_add_prepared(span, &self->prepared);
    if (UNLIKELY(self->rare != Py_None)) {
        span_apply_root_options(span, self->rare);
    }
    if (activate) {
        current_activate(state, opened);
    }
    set_inputs(self, span, args, kwargs);
    return opened;
}

/* Takes `opened`, which may be NULL, over. */
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
    Py_DECREF((PyObject *)opened);
}

static PyObject *traced_call(Traced *self, PyObject *args, PyObject *kwargs)
{
    CoreState *state = self->state;
    Current *opened = traced_begin(self, args, kwargs, true);
    PyObject *result = PyObject_Call(self->function, args, kwargs);
    if (LIKELY(result != NULL)) {
        finish(state, opened, result);
        return result;
    }
    if (opened == NULL) {
        return NULL;
    }
    PyObject *type, *value, *traceback;
    Span *span = as_span(state, opened);
    if (span != NULL) {
        span_record_pending(span);
    }
    PyErr_Fetch(&type, &value, &traceback);
    current_deactivate(state, opened);
    if (span != NULL) {
        span_end(span, 0);
    }
    Py_DECREF((PyObject *)opened);
    PyErr_Restore(type, value, traceback);
    return NULL;
}

/* _begin(args, kwargs) -> what is current now: the span, or a non-recording span; None where
 * nothing changed. */
static PyObject *traced_py_begin(Traced *self, PyObject *arguments)
{
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(arguments, "O!O!:_begin", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) {
        return NULL;
    }
    Current *opened = traced_begin(self, args, kwargs, true);
    if (opened == NULL) {
        Py_RETURN_NONE;
    }
    return (PyObject *)opened;
}

static Current *as_current(const CoreState *state, PyObject *object)
{
    return is_current(state, object) ? (Current *)object : NULL;
}

static PyObject *traced_py_finish(Traced *self, PyObject *arguments)
{
    PyObject *object, *result;
    if (!PyArg_ParseTuple(arguments, "OO:_finish", &object, &result)) {
        return NULL;
    }
    Current *opened = as_current(self->state, object);
    Py_XINCREF((PyObject *)opened);
    finish(self->state, opened, result);
    Py_RETURN_NONE;
}

/* _fail(what _begin() returned, exception). GeneratorExit means that the coroutine was closed,
 * perhaps by the garbage collector, where the context must not be touched. */
static PyObject *traced_py_fail(Traced *self, PyObject *arguments)
{
    PyObject *object, *exception;
    if (!PyArg_ParseTuple(arguments, "OO:_fail", &object, &exception)) {
        return NULL;
    }
    Current *opened = as_current(self->state, object);
    Span *span = as_span(self->state, opened);
    if (opened == NULL) {
        Py_RETURN_NONE;
    }
    if (span != NULL && PyErr_GivenExceptionMatches(exception, PyExc_Exception)) {
        span_record_exception(span, exception, true);
    }
    if (PyErr_GivenExceptionMatches(exception, PyExc_GeneratorExit)) {
        current_abandon(opened);
    }
    else {
        current_deactivate(self->state, opened);
    }
    if (span != NULL) {
        span_end(span, 0);
    }
    Py_RETURN_NONE;
}

/* _stream(args, kwargs, iterator) -> Stream. */
static PyObject *traced_py_stream(Traced *self, PyObject *arguments)
{
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(arguments, "O!O!:_stream", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) {
        return NULL;
    }
    Current *opened = traced_begin(self, args, kwargs, false);
    Span *span = as_span(self->state, opened);
    PyObject *iterator = PyObject_Call(self->function, args, kwargs);
    PyObject *stream = NULL;
    if (iterator != NULL) {
        stream = stream_new(self->state, opened, iterator, self->reducer);
    }
    else if (span != NULL) {
        /* Arguments that don't fit: as for any call that raises. */
        PyObject *type, *value, *traceback;
        span_record_pending(span);
        PyErr_Fetch(&type, &value, &traceback);
        span_end(span, 0);
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(iterator);
    Py_XDECREF((PyObject *)opened);
    return stream;
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
    for (Py_ssize_t i = 0; i < PyList_Size(attributes); i++) {
        PyObject *key, *value;
        if (!PyArg_ParseTuple(PyList_GetItem(attributes, i), "UO", &key, &value) ||
            add_prepared(self, key, value) < 0) {
            return -1;
        }
    }
    return 0;
}

/* `parameters`: [(name, kind, default or nothing)]. */
static int read_parameters(Traced *self, PyObject *parameters)
{
    Py_ssize_t count = PyList_Size(parameters);
    self->parameters = calloc(count ? (size_t)count : 1, sizeof *self->parameters);
    if (self->parameters == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name, *default_value = NULL;
        int kind;
        if (!PyArg_ParseTuple(PyList_GetItem(parameters, i), "Ui|O", &name, &kind,
                              &default_value)) {
            return -1;
        }
        Parameter *p = &self->parameters[i];
        Py_INCREF(name);
        p->name = name;
        PyUnicode_InternInPlace(&p->name);
        Py_XINCREF(default_value);
        p->default_value = default_value;
        p->kind = (ParameterKind)kind;
        p->is_self = PyUnicode_CompareWithASCIIString(name, "self") == 0;
        p->key_start = (uint32_t)self->keys.len;
        encode_str(&self->keys, name);
        p->key_size = (uint32_t)self->keys.len - p->key_start;
        self->parameter_count = i + 1;
        if (kind == POSITIONAL_ONLY || kind == POSITIONAL_OR_KEYWORD) {
            self->positional_count = i + 1;
        }
        else if (kind == VAR_POSITIONAL) {
            self->var_positional = i;
        }
        else if (kind == VAR_KEYWORD) {
            self->var_keyword = i;
        }
    }
    if (self->keys.failed) {
        PyErr_NoMemory();
        return -1;
    }
    self->has_signature = true;
    return 0;
}

/* `rare` is None or a tuple, see traced.h; `sampling` None or a ratio. */
static int read_options(Traced *self, PyObject *rare, PyObject *sampling)
{
    RootOptions *root = &self->options.root;
    if (rare != Py_None) {
        PyObject *experiment, *run_id, *links;
        if (!PyArg_ParseTuple(rare, "OOO", &experiment, &run_id, &links)) {
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
        root->sampling_bound = sampling_bound(ratio);
        root->has_sampling = true;
        self->has_options = true;
    }
    return 0;
}

/* Traced(function, span_name, attributes, parameters or None, reducer or None, rare, sampling) */
static PyObject *traced_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *function, *span_name, *attributes, *parameters, *reducer;
    PyObject *rare = Py_None, *sampling = Py_None;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Traced takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OUO!OO|OO:Traced", &function, &span_name, &PyList_Type,
                          &attributes, &parameters, &reducer, &rare, &sampling)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Traced *self = (Traced *)alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = (CoreState *)PyType_GetModuleState(type);
    Py_INCREF(args);
    self->arguments = args;
    Py_INCREF(function);
    self->function = function;
    Py_INCREF(span_name);
    self->span_name = span_name;
    Py_INCREF(reducer);
    self->reducer = reducer;
    Py_INCREF(rare);
    self->rare = rare;
    self->prepared.entries = self->prepared_entries;
    self->prepared.room = INLINE_ATTRIBUTES;
    self->var_positional = self->var_keyword = -1;
    if (prepare_attributes(self, attributes) < 0 || read_options(self, rare, sampling) < 0 ||
        (PyList_Check(parameters) && read_parameters(self, parameters) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int traced_traverse(Traced *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->shape);
    Py_VISIT(self->arguments);
    Py_VISIT(self->function);
    Py_VISIT(self->reducer);
    Py_VISIT(self->rare);
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        Py_VISIT(self->parameters[i].default_value);
    }
    return 0;
}

static int traced_clear(Traced *self)
{
    Py_CLEAR(self->shape);
    Py_CLEAR(self->arguments);
    Py_CLEAR(self->function);
    Py_CLEAR(self->reducer);
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        Py_CLEAR(self->parameters[i].default_value);
    }
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
    for (Py_ssize_t i = 0; i < self->parameter_count; i++) {
        Py_XDECREF(self->parameters[i].name);
    }
    free(self->parameters);
    buffer_free(&self->keys);
    attributes_free(&self->prepared, self->prepared_entries);
    Py_XDECREF(self->span_name);
    Py_XDECREF(self->rare);
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

/* How it is called and bound is the type's own business. */
static bool is_own(PyObject *name)
{
    return PyUnicode_CompareWithASCIIString(name, "__call__") == 0 ||
           PyUnicode_CompareWithASCIIString(name, "__get__") == 0;
}

static PyObject *traced_getattro(Traced *self, PyObject *name)
{
    if (self->shape == NULL || is_own(name)) {
        return PyObject_GenericGetAttr((PyObject *)self, name);
    }
    return PyObject_GetAttr(self->shape, name);
}

static int traced_setattro(Traced *self, PyObject *name, PyObject *value)
{
    if (self->shape == NULL) {
        return PyObject_GenericSetAttr((PyObject *)self, name, value);
    }
    return PyObject_SetAttr(self->shape, name, value);
}

static PyObject *traced_repr(Traced *self)
{
    if (self->shape != NULL) {
        return PyObject_Repr(self->shape);
    }
    return PyUnicode_FromFormat("<traced %R>", self->function);
}

/* _look_like(function): from now on attributes are that function's. */
static PyObject *traced_py_look_like(Traced *self, PyObject *function)
{
    Py_INCREF(function);
    set_owned(&self->shape, function);
    Py_RETURN_NONE;
}

static PyMethodDef traced_methods[] = {
    {"_begin", (PyCFunction)traced_py_begin, METH_VARARGS, NULL},
    {"_finish", (PyCFunction)traced_py_finish, METH_VARARGS, NULL},
    {"_fail", (PyCFunction)traced_py_fail, METH_VARARGS, NULL},
    {"_stream", (PyCFunction)traced_py_stream, METH_VARARGS, NULL},
    {"_look_like", (PyCFunction)traced_py_look_like, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef traced_members[] = {
    {"_arguments", T_OBJECT, offsetof(Traced, arguments), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Traced, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot traced_slots[] = {
    {Py_tp_new, traced_new},           {Py_tp_dealloc, traced_dealloc},
    {Py_tp_traverse, traced_traverse}, {Py_tp_clear, traced_clear},
    {Py_tp_call, traced_call},         {Py_tp_descr_get, traced_get},
    {Py_tp_getattro, traced_getattro}, {Py_tp_setattro, traced_setattro},
    {Py_tp_repr, traced_repr},         {Py_tp_methods, traced_methods},
    {Py_tp_members, traced_members},   {0, NULL},
};

static PyType_Spec traced_spec = {
    .name = "mlflow_fasttrace._core.Traced",
    .basicsize = sizeof(Traced),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = traced_slots,
};

int traced_add_types(PyObject *module, CoreState *state)
{
    return state_add_type(module, &traced_spec, &state->traced_type, "Traced");
}
