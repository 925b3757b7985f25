/* live_span.c: the span as the traced program sees it, in place of MLflow's LiveSpan.
 *
 * What a span owns is in trace/span.h. Its dealloc releases that and runs no Python code but what
 * releasing an object that the program put into its __dict__ runs. What MLflow's entities are
 * needed for is asked of _internal/spans/entities.py, by name. */
#include "objects/live_span.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/getattr.h"
#include "base/ids.h"
#include "base/python_side.h"
#include "trace/span.h"
#include "trace/span_end.h"
#include "trace/span_events.h"
#include "trace/span_values.h"
#include "value/decode.h"
#include "value/encode.h"

/* By the numbers of OpenTelemetry's status codes. */
static const char *const status_names[] = {"UNSET", "OK", "ERROR"};

static int span_traverse(Span *span, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)span));
    Py_VISIT((PyObject *)span->trace);
    Py_VISIT(span->current.token);
    Py_VISIT((PyObject *)span->current.outer);
    Py_VISIT(span->link_list);
    Py_VISIT(span->attachments);
    Py_VISIT(span->dict);
    return 0;
}

/* What makes circles is released; a finalizer may still use the span. */
static int span_clear(Span *span)
{
    span->has_twin = false;
    Py_CLEAR(span->current.token);
    Py_CLEAR(span->link_list);
    Py_CLEAR(span->attachments);
    Py_CLEAR(span->dict);
    return 0;
}

static void span_dealloc(Span *span)
{
    PyTypeObject *type = Py_TYPE(span);
    PyObject_GC_UnTrack(span);
    span_release(span);
    Py_DECREF(type);
}

/* Lets the garbage collector know of what the program keeps on the span. */
static int span_setattr(Span *span, PyObject *name, PyObject *value)
{
    int result = PyObject_GenericSetAttr((PyObject *)span, name, value);
    if (span->dict != NULL) {
        span_track(span);
    }
    return result;
}

static PyObject *get_dict(Span *span, void *unused)
{
    PyObject *dict = PyObject_GenericGetDict((PyObject *)span, unused);
    if (dict != NULL) {
        span_track(span);
    }
    return dict;
}

static int set_dict(Span *span, PyObject *value, void *unused)
{
    int result = PyObject_GenericSetDict((PyObject *)span, value, unused);
    if (span->dict != NULL) {
        span_track(span);
    }
    return result;
}

/* The result of a function of _internal/spans/entities.py for the span. */
static PyObject *from_entities(Span *span, const char *function)
{
    return python_call(SPANS_ENTITIES, function, (PyObject *)span, NULL);
}

/* Sets an MlflowException (INVALID_PARAMETER_VALUE); takes the message over. */
static void raise_invalid(PyObject *message)
{
    PyObject *exception = message ? python_call(SPANS_ENTITIES, "invalid", message, NULL) : NULL;
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    Py_XDECREF(message);
    Py_XDECREF(exception);
}

/* Sets the TypeError that a function of Python would raise for arguments that do not fit `count`
 * required ones, one or two. */
static void raise_not_fitting(const char *function, const char *const *names, Py_ssize_t count,
                              Py_ssize_t given, PyObject *keywords)
{
    bool is_given[2] = {given > 0, given > 1};
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t k = 0; k < named; k++) {
        PyObject *keyword = PyTuple_GetItem(keywords, k);
        Py_ssize_t i = 0;
        while (i < count && PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0) {
            i++;
        }
        if (i == count || is_given[i]) {
            PyErr_Format(PyExc_TypeError,
                         i == count ? "LiveSpan.%s() got an unexpected keyword argument '%U'"
                                    : "LiveSpan.%s() got multiple values for argument '%U'",
                         function, keyword);
            return;
        }
        is_given[i] = true;
    }
    if (given > count) {
        PyErr_Format(PyExc_TypeError,
                     "LiveSpan.%s() takes %zd positional arguments but %zd were given", function,
                     count + 1, given + 1);
    }
    else if (count == 2 && !is_given[0] && !is_given[1]) {
        PyErr_Format(PyExc_TypeError,
                     "LiveSpan.%s() missing 2 required positional arguments: '%s' and '%s'",
                     function, names[0], names[1]);
    }
    else {
        PyErr_Format(PyExc_TypeError, "LiveSpan.%s() missing 1 required positional argument: '%s'",
                     function, names[is_given[0] ? 1 : 0]);
    }
}

/* Takes the arguments of a method that has `count` required ones, by position or by name. False
 * with an exception. */
static bool take_arguments(const char *function, const char *const *names, Py_ssize_t count,
                           PyObject *const *args, Py_ssize_t given, PyObject *keywords,
                           PyObject **values)
{
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        values[i] = i < given ? args[i] : NULL;
    }
    bool fits = given + named == count;
    for (Py_ssize_t k = 0; fits && k < named; k++) {
        Py_ssize_t i = given;
        while (i < count &&
               PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, k), names[i]) != 0) {
            i++;
        }
        fits = i < count && values[i] == NULL;
        if (fits) {
            values[i] = args[given + k];
        }
    }
    if (!fits) {
        raise_not_fitting(function, names, count, given, keywords);
    }
    return fits;
}

/* A method of one argument that may be given by name. */
#define ONE_ARGUMENT(function, argument)                                                           \
    static PyObject *method_##function(Span *span, PyObject *const *args, Py_ssize_t given,        \
                                       PyObject *keywords)                                         \
    {                                                                                              \
        static const char *const names[] = {argument};                                             \
        PyObject *value;                                                                           \
        if (!take_arguments(#function, names, 1, args, given, keywords, &value)) {                 \
            return NULL;                                                                           \
        }                                                                                          \
        return leave_core(span->state, function(span, value));                                     \
    }

static PyObject *set_inputs(Span *span, PyObject *value)
{
    span_set_payload(span, KEY_INPUTS, value);
    Py_RETURN_NONE;
}

static PyObject *set_outputs(Span *span, PyObject *value)
{
    span_set_payload(span, KEY_OUTPUTS, value);
    Py_RETURN_NONE;
}

static PyObject *set_span_type(Span *span, PyObject *value)
{
    span_set(span, KEY_TYPE, value);
    Py_RETURN_NONE;
}

static PyObject *set_description(Span *span, PyObject *value)
{
    span_set(span, KEY_DESCRIPTION, value);
    Py_RETURN_NONE;
}

static PyObject *method_set_attribute(Span *span, PyObject *const *args, Py_ssize_t given,
                                      PyObject *keywords)
{
    static const char *const names[] = {"key", "value"};
    PyObject *values[2];
    if (!take_arguments("set_attribute", names, 2, args, given, keywords, values)) {
        return NULL;
    }
    span_set_attribute(span, values[0], values[1]);
    return leave_core_with_none(span->state);
}

static PyObject *set_attributes(Span *span, PyObject *attributes)
{
    span_set_attributes(span, attributes);
    Py_RETURN_NONE;
}

/* A status as the program gives it: "OK", a SpanStatusCode (a str too), or a SpanStatus. */
static int apply_status(Span *span, PyObject *status)
{
    PyObject *code = NULL, *message = NULL;
    int result = -1;

    if (PyUnicode_Check(status)) {
        Py_INCREF(status);
        code = status;
    }
    else {
        code = attribute_named(status, "status_code");
        if (code == NULL) {
            goto done;
        }
        message = attribute_named(status, "description");
        if (message == NULL) {
            swallow_exception(span->state);
        }
    }
    for (int i = 0; PyUnicode_Check(code) && i < 3; i++) {
        if (PyUnicode_CompareWithASCIIString(code, status_names[i]) == 0) {
            span_set_status(span, i, message);
            result = 0;
            goto done;
        }
    }
    raise_invalid(PyUnicode_FromFormat("%S is not a valid SpanStatusCode value. Please use one of "
                                       "['UNSET', 'OK', 'ERROR']",
                                       code));
done:
    Py_XDECREF(code);
    Py_XDECREF(message);
    return result;
}

static PyObject *set_status(Span *span, PyObject *status)
{
    if (apply_status(span, status) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether a value of an event's attributes is recorded as it is. */
static bool is_plain(PyObject *value)
{
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
           PyBool_Check(value) || value == Py_None;
}

/* The attributes of an event as they are recorded: those themselves where all are plain, else what
 * OpenTelemetry would make of them. A new reference to a dict; NULL with a MemoryError, or the
 * exception of a signal handler. */
RUNS_PYTHON static PyObject *recorded_attributes(PyObject *attributes)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    bool plain = PyDict_CheckExact(attributes);
    while (plain && PyDict_Next(attributes, &position, &key, &value)) {
        plain = PyUnicode_CheckExact(key) && is_plain(value);
    }
    if (plain) {
        Py_INCREF(attributes);
        return attributes;
    }
    return python_call(SPANS_EVENT_ATTRIBUTES, "recorded", attributes, NULL);
}

/* The event is a SpanEvent, or anything with name, timestamp (ns) and attributes. */
static PyObject *add_event(Span *span, PyObject *event)
{
    CoreState *state = span->state;
    PyObject *name = NULL, *time = NULL, *given = NULL, *attributes = NULL, *result = NULL;
    Buffer *out = NULL;

    name = attribute_named(event, "name");
    time = name ? attribute_named(event, "timestamp") : NULL;
    given = time ? attribute_named(event, "attributes") : NULL;
    if (given == NULL) {
        goto done;
    }
    uint64_t time_ns = PyLong_Check(time) ? PyLong_AsUnsignedLongLong(time) : clock_ns();
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* it is below zero or beyond 64 bits */
        time_ns = clock_ns();
    }
    result = Py_None;
    attributes = recorded_attributes(given);
    if (attributes == NULL) {
        swallow_exception(state);
        if (!is_interrupted(state)) {
            value_has_no_room(state);
        }
        goto done;
    }
    out = scratch_acquire(state);
    if (out == NULL) {
        value_has_no_room(state);
        goto done;
    }
    wire_pack_array(out, 3);
    if (PyUnicode_Check(name)) {
        encode_str(out, name);
    }
    else {
        encode_text(out, "event", 5);
    }
    wire_pack_uint64(out, time_ns);
    if (!PyDict_Check(attributes) || encode_try(state, out, attributes) != ENCODED) {
        wire_pack_map(out, 0);
    }
    if (!span_append_event(span, out,
                           PyUnicode_Check(name) &&
                               PyUnicode_CompareWithASCIIString(name, "exception") == 0)) {
        value_has_no_room(state);
    }
done:
    if (out != NULL) {
        scratch_release(state, out);
    }
    Py_XDECREF(name);
    Py_XDECREF(time);
    Py_XDECREF(given);
    Py_XDECREF(attributes);
    Py_XINCREF(result);
    return result;
}

static PyObject *record_exception(Span *span, PyObject *exception)
{
    PyObject *made = NULL, *description = NULL, *text = exception;
    if (PyUnicode_Check(exception)) {
        made = PyObject_CallFunctionObjArgs(PyExc_Exception, exception, NULL);
        if (made == NULL) {
            return NULL;
        }
        exception = made;
    }
    if (!PyErr_GivenExceptionMatches(exception, PyExc_Exception) || PyType_Check(exception)) {
        raise_invalid(PyUnicode_FromString(
            "The `exception` parameter must be an Exception instance or a string."));
        Py_XDECREF(made);
        return NULL;
    }
    span_record_exception(span, exception, true);
    if (made != NULL &&
        span->state->mlflow < MLFLOW(3, 17)) { /* tells the type of what was given */
        description = PyUnicode_FromFormat("str: %U", text);
        if (description == NULL) {
            swallow_exception(span->state);
        }
        span_set_status(span, STATUS_ERROR, description);
    }
    Py_XDECREF(description);
    Py_XDECREF(made);
    Py_RETURN_NONE;
}

static PyObject *span_py_end(Span *span, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"outputs", "attributes", "status", "end_time_ns", NULL};
    PyObject *outputs = Py_None, *attributes = Py_None, *status = Py_None, *time = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOOO:LiveSpan.end", names, &outputs,
                                     &attributes, &status, &time)) {
        return NULL;
    }
    if (span->end_ns != 0) {
        Py_RETURN_NONE;
    }
    if (attributes != Py_None) {
        span_set_attributes(span, attributes);
    }
    if (outputs != Py_None) {
        span_set_payload(span, KEY_OUTPUTS, outputs);
    }
    if (status != Py_None && apply_status(span, status) < 0) {
        swallow_exception(span->state);
        warn(span->state, "A span was ended with a status that is none of OK, ERROR and UNSET.");
    }
    uint64_t end_ns = 0;
    if (time != Py_None) {
        end_ns = PyLong_AsUnsignedLongLong(time);
        if (PyErr_Occurred()) {
            swallow_exception(span->state);
            end_ns = 0;
        }
    }
    span_end(span, end_ns);
    return leave_core_with_none(span->state);
}

/* ---- reading ---- */

/* An encoded value, decoded from a copy of its own: making a container may run the garbage
 * collector before Python 3.12, and with it code that changes the span. */
static PyObject *decode_copy(Reader value)
{
    Buffer copy = {0};
    buffer_append(&copy, value.at, (size_t)(value.end - value.at));
    Reader r = reader_over(copy.data, copy.len);
    PyObject *result = copy.failed ? PyErr_NoMemory() : decode_value(&r);
    buffer_free(&copy);
    return result;
}

static PyObject *value_of(const Span *span, const Attribute *entry)
{
    if (entry == NULL) {
        Py_RETURN_NONE;
    }
    return decode_copy(attribute_value(&span->attributes, entry));
}

static PyObject *get_attribute(Span *span, PyObject *key)
{
    if (!PyUnicode_Check(key)) {
        Py_RETURN_NONE;
    }
    Buffer encoded = {0};
    encode_str(&encoded, key);
    PyObject *result =
        encoded.failed
            ? PyErr_NoMemory()
            : value_of(span, attributes_find(&span->attributes, key_of(encoded.data, encoded.len)));
    buffer_free(&encoded);
    return result;
}

/* The getter of attributes that have a property: `key` is a KnownKey. */
static PyObject *get_known(Span *span, void *key)
{
    return value_of(span, attributes_find(&span->attributes, known_keys[(size_t)key]));
}

/* The attributes as a dict: their values, or the JSON texts of them. */
static PyObject *attributes_dict(const Span *span, bool as_json)
{
    Buffer copy = {0}; /* see decode_copy() */
    attributes_append(&span->attributes, &copy);
    uint32_t count = span->attributes.count;
    Reader r = reader_over(copy.data, copy.len);
    PyObject *result = copy.failed ? PyErr_NoMemory() : PyDict_New();
    for (uint32_t i = 0; result != NULL && i < count; i++) {
        PyObject *key = decode_value(&r);
        PyObject *value = key == NULL ? NULL
                          : as_json   ? decode_json_text(&r, false)
                                      : decode_value(&r);
        if (value == NULL || PyDict_SetItem(result, key, value) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    buffer_free(&copy);
    return result;
}

static PyObject *get_attributes(Span *span, void *unused)
{
    (void)unused;
    return attributes_dict(span, false);
}

static PyObject *get_attribute_texts(Span *span, void *unused)
{
    (void)unused;
    return attributes_dict(span, true);
}

/* [(name, time in ns, attributes)]: Python makes SpanEvents of them. */
static PyObject *get_event_tuples(Span *span, void *unused)
{
    (void)unused;
    Buffer copy = {0}; /* see decode_copy() */
    buffer_append(&copy, span->events.data, span->events.len);
    uint32_t count = span->event_count;
    Reader r = reader_over(copy.data, copy.len);
    PyObject *result = copy.failed ? PyErr_NoMemory() : PyList_New(0);
    for (uint32_t i = 0; result != NULL && i < count; i++) {
        PyObject *event = decode_value(&r);
        if (event == NULL || PyList_Append(result, event) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(event);
    }
    buffer_free(&copy);
    return result;
}

static PyObject *get_trace_id(Span *span, void *unused)
{
    (void)unused;
    return trace_id_str(span->trace);
}

static PyObject *id_text(uint64_t id)
{
    char hex[SPAN_ID_HEX_SIZE];
    span_id_hex(hex, id);
    return PyUnicode_DecodeUTF8(hex, sizeof hex, NULL);
}

static PyObject *get_span_id(Span *span, void *unused)
{
    (void)unused;
    return id_text(span->id);
}

static PyObject *close_span(Span *span, PyObject *time)
{
    uint64_t end_ns = 0;
    if (time != Py_None) {
        end_ns = PyLong_AsUnsignedLongLong(time);
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    span_close(span, end_ns);
    return leave_core_with_none(span->state);
}

static PyObject *move_span(Span *span, PyObject *id)
{
    uint64_t parent_id = PyLong_AsUnsignedLongLong(id);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (span->end_ns == 0) {
        span->parent_id = parent_id;
    }
    Py_RETURN_NONE;
}

static PyObject *set_twin(Span *span, PyObject *object)
{
    PyObject *dict = slot_dict(&span->dict);
    if (dict == NULL || PyDict_SetItemString(dict, "_twin", object) < 0) {
        return NULL;
    }
    span->has_twin = true;
    span_track(span);
    Py_RETURN_NONE;
}

static PyObject *get_parent_id(Span *span, void *unused)
{
    (void)unused;
    if (span->parent_id == 0) {
        Py_RETURN_NONE;
    }
    return id_text(span->parent_id);
}

static PyObject *get_name(Span *span, void *unused)
{
    (void)unused;
    Py_INCREF(span->name);
    return span->name;
}

static PyObject *get_start(Span *span, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(span->start_ns);
}

static PyObject *get_end(Span *span, void *unused)
{
    (void)unused;
    if (span->end_ns == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(span->end_ns);
}

/* (code, message): Python makes a SpanStatus of it. */
static PyObject *get_status_pair(Span *span, void *unused)
{
    (void)unused;
    const char *code = status_names[span->status];
    PyObject *message = span->status_message; /* it may be replaced meanwhile */
    if (message == NULL) {
        return Py_BuildValue("(ss)", code, "");
    }
    Py_INCREF(message);
    return Py_BuildValue("(sN)", code, message);
}

/* A SpanLogLevel or its name; anything else raises MLflow's exception. */
static PyObject *set_log_level(Span *span, PyObject *level)
{
    PyObject *number = python_call(SPANS_ENTITIES, "log_level_number", level, NULL);
    if (number == NULL) {
        return NULL;
    }
    span_set(span, KEY_LOG_LEVEL, number);
    Py_DECREF(number);
    Py_RETURN_NONE;
}

static PyObject *get_status(Span *span, void *unused)
{
    (void)unused;
    return from_entities(span, "status");
}

static PyObject *get_events(Span *span, void *unused)
{
    (void)unused;
    return from_entities(span, "events");
}

static PyObject *get_log_level(Span *span, void *unused)
{
    (void)unused;
    return from_entities(span, "log_level");
}

/* isinstance(span, LiveSpan) holds once MLflow is loaded; the getter never loads it. */
static PyObject *get_class(Span *span, void *unused)
{
    (void)unused;
    PyObject *modules = span->state->modules;
    PyObject *module = modules ? PyDict_GetItemString(modules, "mlflow.entities.span") : NULL;
    Py_XINCREF(module);
    PyObject *live = module ? attribute_named(module, "LiveSpan") : NULL;
    Py_XDECREF(module);
    if (live == NULL) {
        swallow_exception(span->state);
        live = (PyObject *)Py_TYPE(span);
        Py_INCREF(live);
    }
    return live;
}

static PyObject *span_repr(Span *span)
{
    PyObject *trace_id = trace_id_str(span->trace), *span_id = id_text(span->id);
    PyObject *parent_id = get_parent_id(span, NULL), *name = get_name(span, NULL), *result = NULL;
    if (trace_id != NULL && span_id != NULL && parent_id != NULL) {
        result = PyUnicode_FromFormat("LiveSpan(name=%R, trace_id=%R, span_id=%R, parent_id=%R)",
                                      name, trace_id, span_id, parent_id);
    }
    Py_DECREF(name);
    Py_XDECREF(trace_id);
    Py_XDECREF(span_id);
    Py_XDECREF(parent_id);
    return result;
}

static PyObject *get_link_list(Span *span, void *unused)
{
    (void)unused;
    PyObject *links = slot_list(&span->link_list);
    Py_XINCREF(links);
    span_track(span);
    return links;
}

static PyObject *get_attachments(Span *span, void *unused)
{
    (void)unused;
    PyObject *attachments = slot_dict(&span->attachments);
    Py_XINCREF(attachments);
    span_track(span);
    return attachments;
}

static PyObject *get_trace(Span *span, void *unused)
{
    (void)unused;
    Py_INCREF((PyObject *)span->trace);
    return (PyObject *)span->trace;
}

/* Python checks the link and calls _append_link. */
static PyObject *add_link(Span *span, PyObject *link)
{
    if (span->end_ns != 0) {
        Py_RETURN_NONE;
    }
    return python_call(SPANS_ENTITIES, "add_link", (PyObject *)span, link);
}

static PyObject *append_link(Span *span, PyObject *args)
{
    PyObject *trace_id, *span_id, *attributes;
    if (!PyArg_ParseTuple(args, "UUO:_append_link", &trace_id, &span_id, &attributes)) {
        return NULL;
    }
    Buffer *out = scratch_acquire(span->state);
    if (out == NULL) {
        return PyErr_NoMemory();
    }
    wire_pack_array(out, 3);
    encode_str(out, trace_id);
    encode_str(out, span_id);
    if (!PyDict_Check(attributes) || encode_try(span->state, out, attributes) != ENCODED) {
        wire_pack_map(out, 0);
    }
    bool failed = out->failed;
    if (!failed && span->end_ns == 0) {
        buffer_append(&span->links, out->data, out->len);
        failed = span->links.failed;
        span->link_count += !failed;
        span->links.failed = false;
    }
    scratch_release(span->state, out);
    if (failed) {
        value_has_no_room(span->state);
    }
    return leave_core_with_none(span->state);
}

#define FROM_ENTITIES(function)                                                                    \
    static PyObject *entities_##function(Span *span, PyObject *unused)                             \
    {                                                                                              \
        (void)unused;                                                                              \
        return from_entities(span, #function);                                                     \
    }

FROM_ENTITIES(to_dict)

FROM_ENTITIES(to_immutable_span)

FROM_ENTITIES(to_otel_proto)

FROM_ENTITIES(no_pickle)

FROM_ENTITIES(no_deepcopy)

static PyObject *entities_attribute(Span *span, void *function)
{
    return from_entities(span, (const char *)function);
}

/* from_dict(), from_dict_v2() and from_otel_proto() are the immutable Span's. */
static PyObject *not_supported(PyObject *type, PyObject *data)
{
    (void)type;
    (void)data;
    PyErr_SetString(PyExc_NotImplementedError,
                    "The `from_dict` method is not supported for the LiveSpan class.");
    return NULL;
}

static PyObject *from_immutable_span(PyObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type;
    return python_call_with(SPANS_COPIES, "clone_span", args, kwargs);
}

static PyObject *subscript(Span *span, PyObject *item)
{
    return python_call(SPANS_ENTITIES, "no_subscript", (PyObject *)span, item);
}

/* hasattr(span, "get") is false, and the message says what to use. */
static PyObject *get_get(Span *span, void *unused)
{
    (void)span;
    (void)unused;
    PyErr_SetString(PyExc_AttributeError,
                    "'LiveSpan' object has no attribute 'get'; a span is not a dict. Use attribute "
                    "access such as `span.name`, `span.inputs`, `span.outputs`, or "
                    "`span.attributes`, or `span.get_attribute(key)` for a span attribute.");
    return NULL;
}

static PyObject *itself(PyObject *span, PyObject *unused)
{
    (void)unused;
    Py_INCREF(span);
    return span;
}

static PyObject *get_remote(Span *span, void *unused)
{
    (void)unused;
    return PyBool_FromLong(span->remote);
}

static PyObject *get_kind(Span *span, void *unused)
{
    (void)unused;
    return PyLong_FromLong(span->kind);
}

static int set_kind(Span *span, PyObject *value, void *unused)
{
    (void)unused;
    long kind = value != NULL ? PyLong_AsLong(value) : -1;
    if (kind < SPAN_KIND_INTERNAL || kind > SPAN_KIND_LAST) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a span's kind is a number from 0 to 4");
        }
        return -1;
    }
    span->kind = (unsigned char)kind;
    return 0;
}

static PyObject *get_otel_trace_id(Span *span, void *unused)
{
    (void)unused;
    return PyUnicode_DecodeUTF8(span->trace->id_text + 3, TRACE_ID_TEXT_SIZE - 3, NULL);
}

static PyObject *is_recording(Span *span, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(span->end_ns == 0);
}

static PyObject *rename_span(Span *span, PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a span's name is a str");
        return NULL;
    }
    Py_INCREF(name);
    set_owned(&span->name, name);
    Py_RETURN_NONE;
}

static PyObject *remove_attribute(Span *span, PyObject *key)
{
    if (!PyUnicode_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "an attribute's key is a str");
        return NULL;
    }
    Buffer encoded = {0};
    encode_str(&encoded, key);
    bool removed = !encoded.failed && span->end_ns == 0 &&
                   attributes_remove(&span->attributes, key_of(encoded.data, encoded.len));
    buffer_free(&encoded);
    if (!removed) {
        PyErr_SetObject(PyExc_KeyError, key);
        return NULL;
    }
    Py_RETURN_NONE;
}

ONE_ARGUMENT(add_link, "link")

ONE_ARGUMENT(set_inputs, "inputs")

ONE_ARGUMENT(set_outputs, "outputs")

ONE_ARGUMENT(set_attributes, "attributes")

ONE_ARGUMENT(set_span_type, "span_type")

ONE_ARGUMENT(set_description, "description")

ONE_ARGUMENT(set_log_level, "level")

ONE_ARGUMENT(set_status, "status")

ONE_ARGUMENT(add_event, "event")

ONE_ARGUMENT(record_exception, "exception")

ONE_ARGUMENT(get_attribute, "key")

#define METHOD(function)                                                                           \
    (PyCFunction)(void (*)(void)) method_##function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef span_methods[] = {
    {"set_inputs", METHOD(set_inputs),
     "set_inputs($self, inputs)\n--\n\n"
     "Set the inputs, which are copied now.\n\n"
     "Args:\n"
     "    inputs: Any value. What JSON does not have becomes what MLflow makes of it."},
    {"set_outputs", METHOD(set_outputs),
     "set_outputs($self, outputs)\n--\n\n"
     "Set the outputs, which are copied now.\n\n"
     "Args:\n"
     "    outputs: Any value. What JSON does not have becomes what MLflow makes of it."},
    {"set_attribute", METHOD(set_attribute),
     "set_attribute($self, key, value)\n--\n\n"
     "Set an attribute, which is copied now. A span that has ended takes none: there is a log "
     "line.\n\n"
     "Args:\n"
     "    key: A string that is not empty. Anything else costs a log line.\n"
     "    value: Any value. What JSON does not have becomes what MLflow makes of it."},
    {"set_attributes", METHOD(set_attributes),
     "set_attributes($self, attributes)\n--\n\n"
     "Set several attributes, each as by ``set_attribute``.\n\n"
     "Args:\n"
     "    attributes: The values by their keys. Anything but a dictionary costs a log line."},
    {"set_span_type", METHOD(set_span_type),
     "set_span_type($self, span_type)\n--\n\n"
     "Set the type.\n\n"
     "Args:\n"
     "    span_type: A name of ``SpanType``, any other string, or None."},
    {"set_description", METHOD(set_description),
     "set_description($self, description)\n--\n\n"
     "Set the description: what the span is there for.\n\n"
     "Args:\n"
     "    description: A text for people."},
    {"set_log_level", METHOD(set_log_level),
     "set_log_level($self, level)\n--\n\n"
     "Set the log level. From MLflow 3.13 on.\n\n"
     "Args:\n"
     "    level: A ``SpanLogLevel``, or its name.\n\n"
     "Raises:\n"
     "    MlflowException: it is neither."},
    {"set_status", METHOD(set_status),
     "set_status($self, status)\n--\n\n"
     "Set the status. Without it the span ends as OK, or as ERROR where an exception leaves it.\n\n"
     "Args:\n"
     "    status: ``OK``, ``ERROR`` or ``UNSET``, or a ``SpanStatus``, which may have a text.\n\n"
     "Raises:\n"
     "    MlflowException: it is none of these."},
    {"add_event", METHOD(add_event),
     "add_event($self, event)\n--\n\n"
     "Add an event: something that happened at a point in time.\n\n"
     "Args:\n"
     "    event: A ``SpanEvent``, or another object with its ``name``, ``timestamp`` (nanoseconds "
     "since the\n"
     "        Unix epoch) and ``attributes``.\n\n"
     "Raises:\n"
     "    AttributeError: the object lacks one of them."},
    {"record_exception", METHOD(record_exception),
     "record_exception($self, exception)\n--\n\n"
     "Add an exception as an event, and set the status to ERROR.\n\n"
     "Args:\n"
     "    exception: The exception, or a text in its place.\n\n"
     "Raises:\n"
     "    MlflowException: it is neither."},
    {"get_attribute", METHOD(get_attribute),
     "get_attribute($self, key)\n--\n\n"
     "The value of an attribute.\n\n"
     "Args:\n"
     "    key: Key of the attribute.\n\n"
     "Returns:\n"
     "    A copy of its value; None where it is not set."},
    {"end", (PyCFunction)(void (*)(void))span_py_end, METH_VARARGS | METH_KEYWORDS,
     "end($self, outputs=None, attributes=None, status=None, end_time_ns=None)\n--\n\n"
     "End the span. Nothing happens where it has ended already.\n\n"
     "Args:\n"
     "    outputs: Its outputs; None leaves those that were set.\n"
     "    attributes: More attributes.\n"
     "    status: ``OK``, ``ERROR`` or ``UNSET``, or a ``SpanStatus``. Anything else costs a log "
     "line.\n"
     "    end_time_ns: Nanoseconds since the Unix epoch; by default now."},
    {"add_link", METHOD(add_link),
     "add_link($self, link)\n--\n\n"
     "Add a link to another span, of this trace or of another one. From MLflow 3.13 on.\n\n"
     "Args:\n"
     "    link: The link, which is copied.\n\n"
     "Raises:\n"
     "    MlflowException: it is no ``Link``, or one of its ids is none."},
    {"to_dict", (PyCFunction)entities_to_dict, METH_NOARGS,
     "to_dict($self, /)\n--\n\n"
     "The span as a dictionary that JSON can hold.\n\n"
     "Returns:\n"
     "    What ``mlflow.entities.Span.to_dict()`` makes: ids in base64, times in nanoseconds since "
     "the Unix epoch,\n"
     "    attributes as JSON texts."},
    {"to_immutable_span", (PyCFunction)entities_to_immutable_span, METH_NOARGS,
     "to_immutable_span($self, /)\n--\n\n"
     "A copy that stays as it is, and can be pickled.\n\n"
     "Returns:\n"
     "    A span that holds what this one holds now."},
    {"to_otel_proto", (PyCFunction)entities_to_otel_proto, METH_NOARGS,
     "to_otel_proto($self, /)\n--\n\n"
     "The span as a message of OTLP.\n\n"
     "Returns:\n"
     "    An ``opentelemetry.proto.trace.v1.trace_pb2.Span``."},
    {"from_dict", not_supported, METH_O | METH_CLASS,
     "from_dict($type, data, /)\n--\n\n"
     "Not supported, as in MLflow: ``mlflow.entities.Span.from_dict`` reads a span that has "
     "ended.\n\n"
     "Args:\n"
     "    data: Anything.\n\n"
     "Raises:\n"
     "    NotImplementedError: always."},
    {"from_dict_v2", not_supported, METH_O | METH_CLASS,
     "from_dict_v2($type, data, /)\n--\n\n"
     "Not supported, as in MLflow: ``mlflow.entities.Span.from_dict_v2`` reads a span that has "
     "ended.\n\n"
     "Args:\n"
     "    data: Anything.\n\n"
     "Raises:\n"
     "    NotImplementedError: always."},
    {"from_otel_proto", not_supported, METH_O | METH_CLASS,
     "from_otel_proto($type, data, /)\n--\n\n"
     "Not supported, as in MLflow: ``mlflow.entities.Span.from_otel_proto`` reads a span that has "
     "ended.\n\n"
     "Args:\n"
     "    data: Anything.\n\n"
     "Raises:\n"
     "    NotImplementedError: always."},
    {"from_immutable_span", (PyCFunction)(void (*)(void))from_immutable_span,
     METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "from_immutable_span($type, span, parent_span_id=None, trace_id=None, experiment_id=None, "
     "otel_trace_id=None)\n--\n\n"
     "An open span that holds what another one holds: id, name, start, attributes, status and "
     "events, not links.\n\n"
     "Args:\n"
     "    span: The span that is copied.\n"
     "    parent_span_id: Id of the span that it goes under, in the trace of ``trace_id``.\n"
     "    trace_id: Id of the trace of this process, in flight, that it joins. Without it, it "
     "begins one.\n"
     "    experiment_id: Id of the experiment of the trace that it begins.\n"
     "    otel_trace_id: Taken as MLflow takes it; ``trace_id`` decides.\n\n"
     "Returns:\n"
     "    The span, to be ended by ``end()``; a ``NoOpSpan`` where nothing is recorded."},
    {"_is_recording", (PyCFunction)is_recording, METH_NOARGS,
     "_is_recording($self, /)\n--\n\nWhether it has not ended."},
    {"_append_link", (PyCFunction)append_link, METH_VARARGS,
     "_append_link($self, trace_id, span_id, attributes, /)\n--\n\nRecord a link that was "
     "checked."},
    {"_end_at", (PyCFunction)close_span, METH_O,
     "_end_at($self, end_time_ns, /)\n--\n\n"
     "End it as OpenTelemetry ends a span: with no status, log level or processors."},
    {"_move", (PyCFunction)move_span, METH_O,
     "_move($self, parent_id, /)\n--\n\nPut it under another parent, of that id; 0: none."},
    {"_set_twin", (PyCFunction)set_twin, METH_O,
     "_set_twin($self, span, /)\n--\n\nSet the span that the program knows it by."},
    {"_remove_attribute", (PyCFunction)remove_attribute, METH_O,
     "_remove_attribute($self, key, /)\n--\n\nRemove an attribute; KeyError where it is not set."},
    {"_rename", (PyCFunction)rename_span, METH_O,
     "_rename($self, name, /)\n--\n\nGive it another name."},
    {"__copy__", itself, METH_NOARGS, NULL},
    {"__deepcopy__", (PyCFunction)entities_no_deepcopy, METH_O, NULL},
    {"__reduce__", (PyCFunction)entities_no_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef span_getset[] = {
    {"trace_id", (getter)get_trace_id, NULL,
     "The id of the trace, ``tr-`` and 32 hexadecimal digits.", NULL},
    {"request_id", (getter)get_trace_id, NULL,
     "The former name of ``trace_id``. Deprecated in MLflow.", NULL},
    {"span_id", (getter)get_span_id, NULL, "The id of the span, 16 hexadecimal digits.", NULL},
    {"parent_id", (getter)get_parent_id, NULL, "The id of the span above it; None of a root.",
     NULL},
    {"name", (getter)get_name, NULL, "The name of the span.", NULL},
    {"start_time_ns", (getter)get_start, NULL,
     "When it started, in nanoseconds since the Unix epoch.", NULL},
    {"end_time_ns", (getter)get_end, NULL,
     "When it ended, in nanoseconds since the Unix epoch; None while it is open.", NULL},
    {"inputs", (getter)get_known, NULL,
     "The inputs, as they were when they were set; None where there are none.", (void *)KEY_INPUTS},
    {"outputs", (getter)get_known, NULL,
     "The outputs, as they were when they were set; None where there are none.",
     (void *)KEY_OUTPUTS},
    {"span_type", (getter)get_known, NULL, "The type, a name of ``SpanType`` or any other string.",
     (void *)KEY_TYPE},
    {"description", (getter)get_known, NULL, "The description; None where there is none.",
     (void *)KEY_DESCRIPTION},
    {"attributes", (getter)get_attributes, NULL,
     "A copy of all attributes, those of MLflow (``mlflow.spanInputs``, ...) among them.", NULL},
    {"status", (getter)get_status, NULL,
     "A copy of the status; its code is UNSET while the span is open and nobody has set one.",
     NULL},
    {"events", (getter)get_events, NULL,
     "Copies of the events, in the order in which they were added.", NULL},
    {"log_level", (getter)get_log_level, NULL,
     "The log level; None where there is none. From MLflow 3.13 on.", NULL},
    {"links", (getter)entities_attribute, NULL, "Copies of the links. From MLflow 3.13 on.",
     "links"},
    {"model_name", (getter)get_known, NULL,
     "The name of the language model (``mlflow.llm.model``); None where nobody has set it.",
     (void *)KEY_MODEL},
    {"llm_cost", (getter)get_known, NULL,
     "What the call of a language model cost, in US dollars: ``input_cost``, ``output_cost``, "
     "``total_cost``; None where\n"
     "nobody has set it.",
     (void *)KEY_COST},
    {"get", (getter)get_get, NULL,
     "Absent, as in MLflow: ``hasattr`` is False, and the ``AttributeError`` says what to use.",
     NULL},
    {"_span", (getter)entities_attribute, NULL, "A view as an OpenTelemetry span.", "otel_span"},
    {"_attributes", (getter)entities_attribute, NULL, NULL, "attribute_registry"},
    {"_links", (getter)get_link_list, NULL, NULL, NULL},
    {"_attachments", (getter)get_attachments, NULL, NULL, NULL},
    {"_trace", (getter)get_trace, NULL, NULL, NULL},
    {"_trace_id", (getter)get_otel_trace_id, NULL, NULL, NULL},
    {"_original_name", (getter)get_name, NULL, NULL, NULL},
    {"_remote", (getter)get_remote, NULL, NULL, NULL},
    {"_kind", (getter)get_kind, (setter)set_kind, NULL, NULL},
    {"_attribute_texts", (getter)get_attribute_texts, NULL, NULL, NULL},
    {"_status_pair", (getter)get_status_pair, NULL, NULL, NULL},
    {"_event_tuples", (getter)get_event_tuples, NULL, NULL, NULL},
    {"__class__", (getter)get_class, NULL, NULL, NULL},
    {"__dict__", (getter)get_dict, (setter)set_dict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef span_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Span, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot span_slots[] = {
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_clear, span_clear},
    {Py_tp_setattro, span_setattr},
    {Py_tp_repr, span_repr},
    {Py_mp_subscript, subscript},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {Py_tp_members, span_members},
    {Py_tp_doc,
     "A span that is being recorded. Made by ``start_span`` and ``@trace``, never by its class.\n\n"
     "Its methods are those of ``mlflow.entities.LiveSpan``. None of them raises into the program "
     "but where ``Raises``\n"
     "says so."},
    {0, NULL},
};

static PyType_Spec span_spec = {
    .name = "mlflow_fasttrace._core.LiveSpan",
    .basicsize = sizeof(Span),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};

int live_span_add_type(PyObject *module, CoreState *state)
{
    if (state_add_type(module, &span_spec, &state->types.live_span, "LiveSpan") < 0) {
        return -1;
    }
    /* With __getitem__ alone, iter(span) would seem to work. */
    return PyObject_SetAttrString((PyObject *)state->types.live_span, "__iter__", Py_None);
}
