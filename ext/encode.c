/* encode.c: a snapshot of a Python value, taken when it is set.
 *
 * The tokens are those of the text that MLflow's json.dumps(value, cls=TraceJSONEncoder) makes:
 * the same order, duplicate keys kept, dictionary keys made strings in the same way, subclasses of
 * the builtins read as their base, and everything else through one Python hook that plays
 * JSONEncoder.default. Where json.dumps raises (a cycle, a key that is no JSON key) MLflow stores
 * the repr of the whole value, and so does this. Where json.dumps or that repr would break the
 * caller (depth, a raising __str__) it does not follow: the part that fails is replaced by a text
 * that says so. */
#include "encode.h"

#include <stdio.h>

/* Beyond this the C stack of a small thread would be at risk. */
#define MAX_DEPTH 512

typedef struct {
    CoreState *state;
    Buffer *out;
    bool payload; /* stop where binary content may be found */
    int depth;
    PyObject *path[MAX_DEPTH]; /* borrowed: the containers around the value, to find cycles */
} Encoder;

static EncodeResult encode_any(Encoder *e, PyObject *value);

void swallow_exception(void)
{
    if (PyErr_Occurred() == NULL) {
        return;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    }
    PyErr_Clear();
}

void take_exception(PyObject **type, PyObject **value, PyObject **traceback)
{
    PyErr_Fetch(type, value, traceback);
    PyErr_NormalizeException(type, value, traceback);
    if (*value != NULL && *traceback != NULL) {
        PyException_SetTraceback(*value, *traceback);
    }
}

void warn(CoreState *state, const char *message)
{
    if (state->warn == NULL) {
        return;
    }
    PyObject *done = PyObject_CallFunction(state->warn, "s", message);
    if (done == NULL) {
        swallow_exception();
    }
    Py_XDECREF(done);
}

void encode_str(Buffer *out, PyObject *text)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (LIKELY(utf8 != NULL)) {
        wire_pack_str(out, (size_t)size);
        buffer_append(out, utf8, (size_t)size);
        return;
    }
    PyErr_Clear();
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (bytes == NULL) {
        PyErr_Clear();
        out->failed = true;
        return;
    }
    size = PyBytes_Size(bytes);
    wire_pack_ext(out, (size_t)size, EXT_SURROGATES);
    buffer_append(out, PyBytes_AsString(bytes), (size_t)size);
    Py_DECREF(bytes);
}

/* Decimal digits of any int; int's own, whatever a subclass says. */
static PyObject *digits_of(PyObject *value) { return PyNumber_ToBase(value, 10); }

static EncodeResult encode_int(Buffer *out, PyObject *value)
{
    int overflow;
    long long small = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (LIKELY(!overflow)) {
        if (small >= 0) {
            wire_pack_uint64(out, (uint64_t)small);
        }
        else {
            wire_pack_int64(out, small);
        }
        return ENCODED;
    }
    if (overflow > 0) {
        unsigned long long large = PyLong_AsUnsignedLongLong(value);
        if (!PyErr_Occurred()) {
            wire_pack_uint64(out, large);
            return ENCODED;
        }
        PyErr_Clear();
    }
    PyObject *digits = digits_of(value);
    if (digits == NULL) { /* beyond sys.get_int_max_str_digits() */
        swallow_exception();
        return NEEDS_REPR;
    }
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(digits, &size);
    if (utf8 != NULL) {
        wire_pack_ext(out, (size_t)size, EXT_BIG_INTEGER);
        buffer_append(out, utf8, (size_t)size);
    }
    else {
        PyErr_Clear();
        out->failed = true;
    }
    Py_DECREF(digits);
    return ENCODED;
}

static EncodeResult encode_key(Encoder *e, PyObject *key)
{
    Buffer *out = e->out;

    if (LIKELY(PyUnicode_Check(key))) {
        encode_str(out, key);
        return ENCODED;
    }
    if (PyFloat_Check(key)) {
        double value = PyFloat_AsDouble(key);
        if (value != value) {
            encode_text(out, "NaN", 3);
        }
        else if (value - value != 0) {
            encode_text(out, value > 0 ? "Infinity" : "-Infinity", value > 0 ? 8 : 9);
        }
        else {
            char *repr = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
            if (repr == NULL) {
                PyErr_Clear();
                out->failed = true;
                return ENCODED;
            }
            encode_text(out, repr, strlen(repr));
            PyMem_Free(repr);
        }
        return ENCODED;
    }
    if (key == Py_True) {
        encode_text(out, "true", 4);
        return ENCODED;
    }
    if (key == Py_False) {
        encode_text(out, "false", 5);
        return ENCODED;
    }
    if (key == Py_None) {
        encode_text(out, "null", 4);
        return ENCODED;
    }
    if (PyLong_Check(key)) {
        PyObject *digits = digits_of(key);
        if (digits == NULL) {
            swallow_exception();
            return NEEDS_REPR;
        }
        encode_str(out, digits);
        Py_DECREF(digits);
        return ENCODED;
    }
    return NEEDS_REPR;
}

/* The count in a container's head, corrected where the container changed while it was read. */
static void correct_count(Buffer *out, size_t head, bool map, size_t promised, size_t written)
{
    if (promised == written || out->failed) {
        return;
    }
    size_t old_size = promised < 16 ? 1 : promised < 65536 ? 3 : 5;
    size_t body = out->len - head - old_size;
    Buffer fixed = {0};
    if (map) {
        wire_pack_map(&fixed, written);
    }
    else {
        wire_pack_array(&fixed, written);
    }
    if (fixed.failed || !buffer_reserve(out, fixed.len)) {
        out->failed = true;
    }
    else {
        memmove(out->data + head + fixed.len, out->data + head + old_size, body);
        memcpy(out->data + head, fixed.data, fixed.len);
        out->len = head + fixed.len + body;
    }
    buffer_free(&fixed);
}

/* Whether the text that was appended last is a data URI with base64 content. */
static bool ends_with_data_uri(const Buffer *out, size_t start)
{
    static const char mark[] = ";base64,";
    if (out->failed) {
        return false;
    }
    Reader r = reader_over(out->data + start, out->len - start);
    Token text = reader_next(&r);
    if (text.kind != TOKEN_STR || text.size < 5 || memcmp(text.bytes, "data:", 5) != 0) {
        return false;
    }
    for (size_t i = 5; i + sizeof mark - 1 <= text.size; i++) {
        if (text.bytes[i] == ';' && memcmp(text.bytes + i, mark, sizeof mark - 1) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether an item of a dictionary is one that providers put binary content into, as far as it can
 * be told cheaply. */
static bool may_hold_content(PyObject *dict, PyObject *key, PyObject *value)
{
    static const struct {
        const char *key;
        bool text;        /* otherwise a dictionary */
        const char *kind; /* what "type" must be, in the dictionary or in the value; or NULL */
    } known[] = {
        {"image", false, NULL},       {"audio", false, NULL},
        {"source", false, "base64"},  {"result", true, "image_generation_call"},
        {"b64_json", true, NULL},     {"input_audio", false, NULL},
        {"inline_data", false, NULL},
    };
    Py_ssize_t size = PyUnicode_GetLength(key);
    if (LIKELY(size < 5 || size > 11)) {
        return false;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((size_t)size != strlen(known[i].key) ||
            PyUnicode_CompareWithASCIIString(key, known[i].key) != 0) {
            continue;
        }
        if (known[i].text ? !PyUnicode_Check(value) : !PyDict_Check(value)) {
            return false;
        }
        if (known[i].kind == NULL) {
            return true;
        }
        PyObject *kind = PyDict_GetItemString(known[i].text ? dict : value, "type");
        return kind != NULL && PyUnicode_Check(kind) &&
               PyUnicode_CompareWithASCIIString(kind, known[i].kind) == 0;
    }
    return false;
}

static EncodeResult encode_dict(Encoder *e, PyObject *dict)
{
    Buffer *out = e->out;
    size_t head = out->len, promised, written = 0;
    EncodeResult result = ENCODED;

    if (LIKELY(PyDict_CheckExact(dict))) {
        promised = (size_t)PyDict_Size(dict);
        wire_pack_map(out, promised);
        Py_ssize_t at = 0;
        PyObject *key, *value;
        while (result == ENCODED && PyDict_Next(dict, &at, &key, &value)) {
            Py_INCREF(key);
            Py_INCREF(value);
            result = encode_key(e, key);
            if (UNLIKELY(e->payload) && PyUnicode_Check(key) &&
                may_hold_content(dict, key, value)) {
                result = HAS_CONTENT;
            }
            if (result == ENCODED) {
                result = encode_any(e, value);
            }
            written++;
            Py_DECREF(key);
            Py_DECREF(value);
        }
        correct_count(out, head, true, promised, written);
        return result;
    }

    /* A subclass is read as json reads it: by its items(). */
    if (PyDict_Size(dict) == 0) {
        wire_pack_map(out, 0);
        return ENCODED;
    }
    PyObject *items = PyMapping_Items(dict);
    if (items == NULL) {
        swallow_exception();
        return NEEDS_REPR;
    }
    promised = (size_t)PyList_Size(items);
    wire_pack_map(out, promised);
    for (size_t i = 0; result == ENCODED && i < promised; i++) {
        PyObject *pair = PyList_GetItem(items, (Py_ssize_t)i);
        if (pair == NULL || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            PyErr_Clear();
            result = NEEDS_REPR;
            break;
        }
        result = encode_key(e, PyTuple_GetItem(pair, 0));
        if (e->payload && PyUnicode_Check(PyTuple_GetItem(pair, 0)) &&
            may_hold_content(dict, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1))) {
            result = HAS_CONTENT;
        }
        if (result == ENCODED) {
            result = encode_any(e, PyTuple_GetItem(pair, 1));
        }
    }
    Py_DECREF(items);
    return result;
}

static EncodeResult encode_list(Encoder *e, PyObject *list)
{
    size_t head = e->out->len, promised = (size_t)PyList_Size(list), written = 0;
    wire_pack_array(e->out, promised);
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        PyObject *item = PyList_GetItem(list, i);
        Py_INCREF(item);
        EncodeResult result = encode_any(e, item);
        Py_DECREF(item);
        if (result != ENCODED) {
            return result;
        }
        written++;
    }
    correct_count(e->out, head, false, promised, written);
    return ENCODED;
}

static EncodeResult encode_tuple(Encoder *e, PyObject *tuple)
{
    Py_ssize_t size = PyTuple_Size(tuple);
    wire_pack_array(e->out, (size_t)size);
    for (Py_ssize_t i = 0; i < size; i++) {
        EncodeResult result = encode_any(e, PyTuple_GetItem(tuple, i));
        if (result != ENCODED) {
            return result;
        }
    }
    return ENCODED;
}

static void encode_too_deep(Buffer *out, PyObject *value)
{
    char text[128];
    const char *kind = PyList_Check(value)    ? "list"
                       : PyTuple_Check(value) ? "tuple"
                       : PyDict_Check(value)  ? "dict"
                                              : "object";
    int n = snprintf(text, sizeof text, "<%s nested more than %d levels deep>", kind, MAX_DEPTH);
    encode_text(out, text, (size_t)n);
}

/* JSONEncoder.default: what the hook returns stands for the value. */
static EncodeResult encode_other(Encoder *e, PyObject *value)
{
    PyObject *stand_in = PyObject_CallFunctionObjArgs(e->state->encode_default, value, NULL);
    if (stand_in == NULL) {
        swallow_exception();
        return NEEDS_REPR;
    }
    EncodeResult result;
    if (UNLIKELY(stand_in == (PyObject *)e->state->span_type)) {
        /* The hook's word for an attachment: a reference to it goes into inputs and outputs, its
         * text everywhere else. */
        Py_DECREF(stand_in);
        if (e->payload) {
            return HAS_CONTENT;
        }
        stand_in = PyObject_Str(value);
        if (stand_in == NULL) {
            swallow_exception();
            return NEEDS_REPR;
        }
    }
    result = encode_any(e, stand_in);
    Py_DECREF(stand_in);
    return result;
}

static EncodeResult encode_container(Encoder *e, PyObject *value)
{
    if (UNLIKELY(e->depth == MAX_DEPTH)) {
        encode_too_deep(e->out, value);
        return ENCODED;
    }
    for (int i = e->depth; i-- > 0;) {
        if (e->path[i] == value) {
            return NEEDS_REPR; /* "Circular reference detected" */
        }
    }
    e->path[e->depth++] = value;
    EncodeResult result = PyDict_Check(value)    ? encode_dict(e, value)
                          : PyList_Check(value)  ? encode_list(e, value)
                          : PyTuple_Check(value) ? encode_tuple(e, value)
                                                 : encode_other(e, value);
    e->depth--;
    return result;
}

static EncodeResult encode_any(Encoder *e, PyObject *value)
{
    Buffer *out = e->out;

    if (PyUnicode_Check(value)) {
        size_t start = out->len;
        encode_str(out, value);
        return UNLIKELY(e->payload && ends_with_data_uri(out, start)) ? HAS_CONTENT : ENCODED;
    }
    if (value == Py_None) {
        wire_pack_nil(out);
        return ENCODED;
    }
    if (value == Py_True) {
        wire_pack_true(out);
        return ENCODED;
    }
    if (value == Py_False) {
        wire_pack_false(out);
        return ENCODED;
    }
    if (PyLong_Check(value)) {
        return encode_int(out, value);
    }
    if (PyFloat_Check(value)) {
        wire_pack_double(out, PyFloat_AsDouble(value));
        return ENCODED;
    }
    return encode_container(e, value);
}

static EncodeResult encode_whole(CoreState *state, Buffer *out, PyObject *value, bool payload)
{
    Encoder encoder; /* not initialised: only path[0..depth) is read */
    encoder.state = state;
    encoder.out = out;
    encoder.payload = payload;
    encoder.depth = 0;
    size_t start = out->len;
    EncodeResult result = encode_any(&encoder, value);
    if (result != ENCODED) {
        out->len = start;
    }
    return result;
}

EncodeResult encode_try(CoreState *state, Buffer *out, PyObject *value)
{
    return encode_whole(state, out, value, false);
}

EncodeResult encode_payload(CoreState *state, Buffer *out, PyObject *value)
{
    return encode_whole(state, out, value, true);
}

void encode_value(CoreState *state, Buffer *out, PyObject *value)
{
    if (UNLIKELY(encode_try(state, out, value) != ENCODED)) {
        encode_repr(state, out, value, NULL);
    }
}

void encode_repr(CoreState *state, Buffer *out, PyObject *value, PyObject *make)
{
    (void)state;
    PyObject *repr = make ? PyObject_CallFunctionObjArgs(make, value, NULL) : PyObject_Repr(value);
    if (repr != NULL && !PyUnicode_Check(repr)) {
        Py_CLEAR(repr);
        PyErr_Clear();
    }
    if (repr == NULL) {
        swallow_exception();
        PyObject *type_name = PyObject_GetAttrString((PyObject *)Py_TYPE(value), "__name__");
        if (type_name != NULL) {
            repr = PyUnicode_FromFormat("<unprintable %U object>", type_name);
            Py_DECREF(type_name);
        }
    }
    if (repr == NULL) {
        PyErr_Clear();
        encode_text(out, "<unprintable object>", 20);
        return;
    }
    encode_str(out, repr);
    Py_DECREF(repr);
}
