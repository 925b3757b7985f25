#include "objects/signature.h"

#include "base/errors.h"
#include "trace/span_values.h"
#include "value/encode.h"
#include "value/plain.h"

/* The values of so many parameters are bound on the C stack. */
#define INLINE_PARAMETERS 16

/* ---- binding ---- */

/* The parameter that a keyword of that name sets; -1 when there is none. */
static Py_ssize_t index_of_keyword(const Signature *s, PyObject *name)
{
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        const Parameter *p = &s->parameters[i];
        if ((p->kind == POSITIONAL_OR_KEYWORD || p->kind == KEYWORD_ONLY) &&
            (p->name == name || (PyUnicode_Check(name) && PyUnicode_Compare(p->name, name) == 0))) {
            return i;
        }
    }
    return -1;
}

static void release_values(const Signature *s, PyObject **values)
{
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        Py_XDECREF(values[i]);
    }
}

/* Finds the values of all parameters, as new references (the program's code that is run later may
 * change the dictionary); NULL stands for the two variadic ones. False when the arguments do not
 * fit. Runs no Python code. */
static bool bind_arguments(const Signature *s, PyObject *args, PyObject *kwargs, PyObject **values)
{
    Py_ssize_t given = PyTuple_Size(args);

    if (given > s->positional_count && s->var_positional < 0) {
        return false;
    }
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        values[i] = i < given && i < s->positional_count ? PyTuple_GetItem(args, i) : NULL;
        Py_XINCREF(values[i]);
    }
    if (kwargs != NULL) {
        PyObject *name, *value;
        Py_ssize_t at = 0;
        while (PyDict_Next(kwargs, &at, &name, &value)) {
            Py_ssize_t found = index_of_keyword(s, name);
            if (found < 0 ? s->var_keyword < 0 : values[found] != NULL) {
                goto misfit;
            }
            if (found >= 0) {
                Py_INCREF(value);
                values[found] = value;
            }
        }
    }
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        const Parameter *p = &s->parameters[i];
        if (values[i] == NULL && i != s->var_positional && i != s->var_keyword) {
            if (p->default_value == NULL) {
                goto misfit;
            }
            Py_INCREF(p->default_value);
            values[i] = p->default_value;
        }
    }
    return true;
misfit:
    release_values(s, values);
    return false;
}

/* The keywords that **kwargs receives, as a new dict. */
static PyObject *extra_keywords_dict(const Signature *s, PyObject *kwargs)
{
    PyObject *extra = PyDict_New();
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (extra != NULL && kwargs != NULL && PyDict_Next(kwargs, &at, &name, &value)) {
        if (index_of_keyword(s, name) >= 0) {
            continue;
        }
        Py_INCREF(name);
        Py_INCREF(value);
        if (PyDict_SetItem(extra, name, value) < 0) {
            Py_CLEAR(extra);
        }
        Py_DECREF(name);
        Py_DECREF(value);
    }
    return extra;
}

/* The value of a parameter as a new reference. */
static PyObject *bound_value(const Signature *s, Py_ssize_t i, PyObject **values, PyObject *args,
                             PyObject *kwargs)
{
    if (i == s->var_positional) {
        Py_ssize_t given = PyTuple_Size(args);
        return PyTuple_GetSlice(args, s->positional_count < given ? s->positional_count : given,
                                given);
    }
    if (i == s->var_keyword) {
        return extra_keywords_dict(s, kwargs);
    }
    Py_INCREF(values[i]);
    return values[i];
}

/* Whether a parameter is no input: self, and a class that is handed as cls, which is the first
 * parameter or the first after self. */
static bool left_out(const Signature *s, Py_ssize_t i, PyObject **values)
{
    const Parameter *p = &s->parameters[i];
    bool first = i == 0 || (i == 1 && s->parameters[0].is_self);
    return p->is_self || (first && values[i] != NULL && PyType_Check(values[i]) &&
                          PyUnicode_CompareWithASCIIString(p->name, "cls") == 0);
}

static void set_inputs_as_dict(const Signature *s, Span *span, PyObject **values, PyObject *args,
                               PyObject *kwargs)
{
    PyObject *inputs = PyDict_New();
    for (Py_ssize_t i = 0; inputs != NULL && i < s->parameter_count; i++) {
        if (left_out(s, i, values)) {
            continue;
        }
        PyObject *value = bound_value(s, i, values, args, kwargs);
        if (value == NULL || PyDict_SetItem(inputs, s->parameters[i].name, value) < 0) {
            Py_CLEAR(inputs);
        }
        Py_XDECREF(value);
    }
    if (inputs == NULL) {
        swallow_exception(span->state);
        return;
    }
    span_set_payload(span, KEY_INPUTS, inputs);
    Py_DECREF(inputs);
}

/* Encodes the arguments one by one. False where one of them decides how all are recorded: it is not
 * JSON (MLflow keeps the repr of the whole dictionary), or it may hold binary content. */
static bool encode_inputs(const Signature *s, CoreState *state, Buffer *out, PyObject **values,
                          PyObject *args, PyObject *kwargs)
{
    size_t shown = 0;
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        shown += !left_out(s, i, values);
    }
    wire_pack_map(out, shown);
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        const Parameter *p = &s->parameters[i];
        if (left_out(s, i, values)) {
            continue;
        }
        buffer_append(out, s->keys.data + p->key_start, p->key_size);
        EncodeResult result;
        if (i == s->var_positional || i == s->var_keyword) {
            PyObject *value = bound_value(s, i, values, args, kwargs);
            if (value == NULL) {
                swallow_exception(state);
                wire_pack_nil(out);
                continue;
            }
            result = encode_payload(state, out, value);
            Py_DECREF(value);
        }
        else {
            result = encode_payload(state, out, values[i]);
        }
        if (UNLIKELY(result != ENCODED)) {
            return false;
        }
    }
    return true;
}

/* Writes the arguments where they stay; 0, perhaps with a pending exception, where one is not plain
 * (plain.h), or all have no room. Runs no Python code. */
static size_t write_plain_inputs(const Signature *s, char *place, size_t room, PyObject **values)
{
    char *at = place, *end = place + room;
    size_t shown = 0;
    if (s->var_positional >= 0 || s->var_keyword >= 0 || room < s->keys.len + WIRE_HEAD_MAX) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        shown += !left_out(s, i, values);
    }
    put_map(&at, shown);
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        const Parameter *p = &s->parameters[i];
        if (left_out(s, i, values)) {
            continue;
        }
        if (UNLIKELY((size_t)(end - at) < p->key_size)) {
            return 0;
        }
        memcpy(at, s->keys.data + p->key_start, p->key_size);
        at += p->key_size;
        size_t size = encode_plain(at, (size_t)(end - at), values[i], true);
        if (UNLIKELY(size == 0)) {
            return 0;
        }
        at += size;
    }
    return (size_t)(at - place);
}

/* Sets the inputs to arguments that are plain; false for others. */
static bool set_plain_inputs(const Signature *s, Span *span, PyObject **values)
{
    size_t room;
    char *place = span_value_place(span, KEY_INPUTS, &room);
    return LIKELY(place != NULL) &&
           span_value_written(span, KEY_INPUTS, write_plain_inputs(s, place, room, values));
}

/* Sets the inputs to arguments of any kind. */
static void set_any_inputs(const Signature *s, Span *span, PyObject **values, PyObject *args,
                           PyObject *kwargs)
{
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        value_has_no_room(span->state);
        return;
    }
    if (LIKELY(encode_inputs(s, span->state, out, values, args, kwargs))) {
        span_set_from(span, KEY_INPUTS, out);
    }
    else {
        set_inputs_as_dict(s, span, values, args, kwargs);
    }
    scratch_release(span->state, out);
}

void signature_set_inputs(const Signature *s, Span *span, PyObject *args, PyObject *kwargs)
{
    PyObject *inline_values[INLINE_PARAMETERS], **values = inline_values;

    if (UNLIKELY(s->parameter_count > INLINE_PARAMETERS)) {
        values = malloc((size_t)s->parameter_count * sizeof *values);
        if (values == NULL) {
            value_has_no_room(span->state);
            return;
        }
    }
    if (LIKELY(s->known && bind_arguments(s, args, kwargs, values))) {
        if (UNLIKELY(!set_plain_inputs(s, span, values))) {
            set_any_inputs(s, span, values, args, kwargs);
        }
        release_values(s, values);
    }
    else {
        span_set_payload(span, KEY_INPUTS, Py_None);
    }
    if (UNLIKELY(values != inline_values)) {
        free(values);
    }
}

/* ---- reading, keeping ---- */

int signature_read(Signature *s, PyObject *parameters)
{
    s->var_positional = s->var_keyword = -1;
    if (!PyList_Check(parameters)) {
        return 0;
    }
    Py_ssize_t count = PyList_Size(parameters);
    s->parameters = calloc(count ? (size_t)count : 1, sizeof *s->parameters);
    if (s->parameters == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name, *default_value = NULL, *parameter = PyList_GetItem(parameters, i);
        int kind;
        Py_INCREF(parameter);
        if (!need_tuple(parameter, "a parameter") ||
            !PyArg_ParseTuple(parameter, "Ui|O", &name, &kind, &default_value)) {
            Py_DECREF(parameter);
            return -1;
        }
        Parameter *p = &s->parameters[i];
        Py_INCREF(name);
        p->name = name;
        PyUnicode_InternInPlace(&p->name);
        Py_XINCREF(default_value);
        p->default_value = default_value;
        Py_DECREF(parameter);
        p->kind = (ParameterKind)kind;
        p->is_self = PyUnicode_CompareWithASCIIString(p->name, "self") == 0;
        p->key_start = (uint32_t)s->keys.len;
        encode_str(&s->keys, p->name);
        p->key_size = (uint32_t)s->keys.len - p->key_start;
        s->parameter_count = i + 1;
        if (kind == POSITIONAL_ONLY || kind == POSITIONAL_OR_KEYWORD) {
            s->positional_count = i + 1;
        }
        else if (kind == VAR_POSITIONAL) {
            s->var_positional = i;
        }
        else if (kind == VAR_KEYWORD) {
            s->var_keyword = i;
        }
    }
    if (s->keys.failed) {
        PyErr_NoMemory();
        return -1;
    }
    s->known = true;
    return 0;
}

int signature_traverse(Signature *s, visitproc visit, void *arg)
{
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        Py_VISIT(s->parameters[i].default_value);
    }
    return 0;
}

void signature_clear(Signature *s)
{
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        Py_CLEAR(s->parameters[i].default_value);
    }
}

void signature_free(Signature *s)
{
    signature_clear(s);
    for (Py_ssize_t i = 0; i < s->parameter_count; i++) {
        Py_XDECREF(s->parameters[i].name);
    }
    free(s->parameters);
    buffer_free(&s->keys);
}
