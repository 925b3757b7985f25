/* encode.c: a snapshot of a Python value, taken when it is set.
 *
 * The tokens are those of the text that MLflow's json.dumps(value, cls=TraceJSONEncoder) makes:
 * the same order, duplicate keys kept, dictionary keys made strings in the same way, subclasses of
 * the builtins read as their base, and everything else through one Python hook that plays
 * JSONEncoder.default. Where json.dumps raises (a cycle, a key that is no JSON key) MLflow stores
 * the repr of the whole value, and so does this. Where json.dumps or that repr would break the
 * caller (depth, a raising __str__) it does not follow: the part that fails is replaced by a text
 * that says so.
 *
 * Containers that are being read stand in an array and not on the C stack: a thread may have a
 * small one. */
#include "value/encode.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "base/python_side.h"
#include "value/content.h"

#include <stdio.h>

/* Python's own json.loads reads 1,000 levels, some of which its caller has in use. */
#define MAX_DEPTH 900

/* json.dumps follows a list that grows while it is read; one that grows with every item would never
 * end. */
#define MAX_GROWTH 10000

#define INLINE_LEVELS 16

typedef enum {
    LEVEL_LIST,
    LEVEL_TUPLE,
    LEVEL_ITERATED, /* what a list's or tuple's own __iter__ gave */
    LEVEL_DICT,     /* read in place: no code of the program has run since it was opened */
    LEVEL_PAIRS,    /* a dict's items, taken beforehand */
    LEVEL_STAND_IN, /* what the hook returned for the value */
} LevelKind;

/* A container that is being read. */
typedef struct {
    PyObject *container; /* owned: hooks may take it from where it was found */
    PyObject *content;   /* owned: the items, the pairs or the stand-in; or NULL */
    Py_ssize_t at;       /* the next item; the position of PyDict_Next for LEVEL_DICT */
    size_t head;         /* where its head stands in the output */
    size_t promised;     /* the count in that head */
    size_t written;
    LevelKind kind;
} Level;

typedef struct {
    CoreState *state;
    Buffer *out;
    Level *levels; /* owned once it is not inline_levels */
    int depth;
    size_t room;
    bool payload;  /* stop where binary content may be found */
    bool tolerant; /* what json.dumps would raise for is replaced where it stands */
    Level inline_levels[INLINE_LEVELS];
} Encoder;

/* A text's UTF-8, borrowed from the text; NULL, and 0 bytes of it, where the text has none. */
typedef struct {
    const char *bytes;
    size_t size;
} Utf8;

PyObject *encode_surrogates(PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (bytes == NULL) {
        PyErr_Clear();
    }
    return bytes;
}

/* Appends a text that UTF-8 cannot hold; the exception that says so is pending. */
static void append_surrogates(Buffer *out, PyObject *text)
{
    PyErr_Clear();
    PyObject *bytes = encode_surrogates(text);
    if (bytes == NULL) {
        out->failed = true;
        return;
    }
    size_t size = (size_t)PyBytes_Size(bytes);
    wire_pack_ext(out, size, EXT_SURROGATES);
    buffer_append(out, PyBytes_AsString(bytes), size);
    Py_DECREF(bytes);
}

/* encode_str(), and the text's UTF-8. */
static inline __attribute__((always_inline)) Utf8 encode_utf8(Buffer *out, PyObject *text)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (UNLIKELY(utf8 == NULL)) {
        append_surrogates(out, text);
        return (Utf8){0};
    }
    encode_text(out, utf8, (size_t)size);
    return (Utf8){.bytes = utf8, .size = (size_t)size};
}

void encode_str(Buffer *out, PyObject *text) { (void)encode_utf8(out, text); }

/* The digits of any int; int's own, whatever a subclass says. Hexadecimal ones where there are more
 * than Python converts (sys.get_int_max_str_digits()). `decimal` may be NULL. NULL, without an
 * exception, where there is no memory. */
static PyObject *digits_of(CoreState *state, PyObject *value, bool *decimal)
{
    PyObject *digits = PyNumber_ToBase(value, 10);
    if (decimal != NULL) {
        *decimal = digits != NULL;
    }
    if (digits == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        swallow_exception(state); /* converting many digits looks for signals */
        digits = PyNumber_ToBase(value, 16);
    }
    if (digits == NULL) {
        swallow_exception(state);
    }
    return digits;
}

static void encode_int(CoreState *state, Buffer *out, PyObject *value)
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
        return;
    }
    if (overflow > 0) {
        unsigned long long large = PyLong_AsUnsignedLongLong(value);
        if (!PyErr_Occurred()) {
            wire_pack_uint64(out, large);
            return;
        }
        PyErr_Clear();
    }
    bool decimal;
    Py_ssize_t size;
    PyObject *digits = digits_of(state, value, &decimal);
    const char *utf8 = digits ? PyUnicode_AsUTF8AndSize(digits, &size) : NULL;
    if (utf8 == NULL) {
        PyErr_Clear();
        out->failed = true;
    }
    else if (decimal) {
        wire_pack_ext(out, (size_t)size, EXT_BIG_INTEGER);
        buffer_append(out, utf8, (size_t)size);
    }
    else {
        encode_text(out, utf8, (size_t)size);
    }
    Py_XDECREF(digits);
}

static void encode_unprintable(CoreState *state, Buffer *out, PyObject *value)
{
    PyObject *name = attribute_named((PyObject *)Py_TYPE(value), "__name__");
    PyObject *text = name ? PyUnicode_FromFormat("<unprintable %S object>", name) : NULL;
    if (text != NULL) {
        encode_str(out, text);
    }
    else {
        swallow_exception(state);
        encode_text(out, SIZED("<unprintable object>"));
    }
    Py_XDECREF(name);
    Py_XDECREF(text);
}

/* Takes the items of the dicts that are being read, before code of the program runs that may change
 * them: json.dumps has taken them already. */
static void settle_dicts(Encoder *e)
{
    for (int i = 0; i < e->depth; i++) {
        Level *level = &e->levels[i];
        if (level->kind == LEVEL_DICT) {
            level->content = PyDict_Items(level->container);
            if (level->content == NULL) {
                swallow_exception(e->state);
                continue;
            }
            level->kind = LEVEL_PAIRS;
            level->at = (Py_ssize_t)level->written;
        }
    }
}

/* Encodes a key that is no str. */
static EncodeResult encode_other_key(Encoder *e, PyObject *key)
{
    Buffer *out = e->out;

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
        PyObject *digits = digits_of(e->state, key, NULL);
        if (digits == NULL) {
            out->failed = true;
            return ENCODED;
        }
        encode_str(out, digits);
        Py_DECREF(digits);
        return ENCODED;
    }
    if (!e->tolerant) {
        return NEEDS_REPR;
    }
    settle_dicts(e);
    PyObject *repr = is_interrupted(e->state) ? NULL : PyObject_Repr(key);
    if (repr == NULL) {
        swallow_exception(e->state);
        encode_unprintable(e->state, out, key);
        return ENCODED;
    }
    encode_str(out, repr);
    Py_DECREF(repr);
    return ENCODED;
}

/* Corrects the count in a container's head, where the container changed while it was read. */
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

static const char *kind_of(PyObject *value)
{
    return PyList_Check(value)    ? "list"
           : PyTuple_Check(value) ? "tuple"
           : PyDict_Check(value)  ? "dict"
                                  : "object";
}

static void encode_too_deep(Buffer *out, PyObject *value)
{
    char text[128];
    int n = snprintf(text, sizeof text, "<%s nested more than %d levels deep>", kind_of(value),
                     MAX_DEPTH);
    encode_text(out, text, (size_t)n);
}

static void encode_cycle(Buffer *out, PyObject *value)
{
    char text[64];
    int n = snprintf(text, sizeof text, "<circular reference to the %s>", kind_of(value));
    encode_text(out, text, (size_t)n);
}

/* Opens the new innermost level, with a reference of its own; NULL without memory (shows in
 * out->failed). */
static Level *level_open(Encoder *e, LevelKind kind, PyObject *container)
{
    if (UNLIKELY((size_t)e->depth == e->room)) {
        Level *levels = array_grow(e->levels, e->inline_levels, &e->room, sizeof *levels);
        if (levels == NULL) {
            e->out->failed = true;
            return NULL;
        }
        e->levels = levels;
    }
    Level *level = &e->levels[e->depth++];
    Py_INCREF(container);
    level->container = container;
    level->content = NULL;
    level->at = 0;
    level->head = e->out->len;
    level->promised = level->written = 0;
    level->kind = kind;
    return level;
}

static void level_close(Encoder *e)
{
    Level *level = &e->levels[--e->depth];
    if (level->kind != LEVEL_STAND_IN) {
        bool map = level->kind == LEVEL_DICT || level->kind == LEVEL_PAIRS;
        correct_count(e->out, level->head, map, level->promised, level->written);
    }
    PyObject *container = level->container, *content = level->content;
    Py_XDECREF(content);
    Py_DECREF(container);
}

/* Swallows the pending exception; true where json.dumps would have raised it and MLflow stored the
 * repr. */
static bool raised_for_json(const Encoder *e)
{
    bool known =
        PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError);
    swallow_exception(e->state);
    return known && !e->tolerant;
}

/* The items that iterating over a list or tuple gives, as a new list. */
static PyObject *iterated(PyObject *value)
{
    PyObject *items = PyList_New(0), *iterator = items ? PyObject_GetIter(value) : NULL;
    Py_ssize_t limit =
        MAX_GROWTH + (PyList_Check(value) ? PyList_Size(value) : PyTuple_Size(value));
    PyObject *item = NULL;
    int failed = iterator == NULL;
    while (!failed && PyList_Size(items) < limit && (item = PyIter_Next(iterator)) != NULL) {
        failed = PyList_Append(items, item);
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    if (failed || PyErr_Occurred()) {
        Py_CLEAR(items);
    }
    return items;
}

/* The items that a list or tuple holds, whatever its class says, as a new list. */
static PyObject *own_items(PyObject *value)
{
    if (PyList_Check(value)) {
        return PyList_GetSlice(value, 0, PyList_Size(value));
    }
    Py_ssize_t size = PyTuple_Size(value);
    PyObject *items = PyList_New(size);
    for (Py_ssize_t i = 0; items != NULL && i < size; i++) {
        PyObject *item = PyTuple_GetItem(value, i);
        Py_INCREF(item);
        PyList_SetItem(items, i, item); /* takes the reference over; the index is good */
    }
    return items;
}

/* A subclass is read as json reads it: by its __iter__. */
static EncodeResult open_sequence_subclass(Encoder *e, PyObject *value)
{
    settle_dicts(e);
    PyObject *items = is_interrupted(e->state) ? NULL : iterated(value);
    if (items == NULL) {
        if (PyErr_Occurred() && raised_for_json(e)) {
            return NEEDS_REPR;
        }
        items = own_items(value);
    }
    Level *level = items ? level_open(e, LEVEL_ITERATED, value) : NULL;
    if (level == NULL) {
        swallow_exception(e->state);
        Py_XDECREF(items);
        e->out->failed = true;
        return ENCODED;
    }
    level->content = items;
    level->promised = (size_t)PyList_Size(items);
    wire_pack_array(e->out, level->promised);
    return ENCODED;
}

/* A subclass is read as json reads it: by its items(). */
static EncodeResult open_dict_subclass(Encoder *e, PyObject *dict)
{
    if (PyDict_Size(dict) == 0) {
        wire_pack_map(e->out, 0);
        return ENCODED;
    }
    settle_dicts(e);
    PyObject *items = is_interrupted(e->state) ? NULL : PyMapping_Items(dict);
    if (items == NULL) {
        if (PyErr_Occurred() && raised_for_json(e)) {
            return NEEDS_REPR;
        }
        items = PyDict_Items(dict);
        if (items == NULL) {
            swallow_exception(e->state);
            e->out->failed = true;
            return ENCODED;
        }
    }
    Level *level = level_open(e, LEVEL_PAIRS, dict);
    if (level == NULL) {
        Py_DECREF(items);
        return ENCODED;
    }
    level->content = items;
    level->promised = (size_t)PyList_Size(items);
    wire_pack_map(e->out, level->promised);
    return ENCODED;
}

/* A text that is a value, or stands for one. */
static inline EncodeResult encode_text_value(Encoder *e, PyObject *text)
{
    Utf8 utf8 = encode_utf8(e->out, text);
    return UNLIKELY(e->payload && content_is_data_uri(utf8.bytes, utf8.size)) ? HAS_CONTENT
                                                                              : ENCODED;
}

/* JSONEncoder.default: what the hook returns stands for the value. */
static EncodeResult open_other(Encoder *e, PyObject *value)
{
    if (UNLIKELY(e->state->hooks.encode_default == NULL) || is_interrupted(e->state)) {
        encode_unprintable(e->state, e->out, value);
        return ENCODED;
    }
    settle_dicts(e);
    PyObject *stand_in = ask_hook(e->state->hooks.encode_default, value, NULL);
    if (stand_in == NULL) {
        swallow_exception(e->state);
        if (e->tolerant || is_interrupted(e->state)) {
            encode_unprintable(e->state, e->out, value);
            return ENCODED;
        }
        return NEEDS_REPR;
    }
    if (UNLIKELY(stand_in == (PyObject *)e->state->types.live_span)) {
        /* The hook's sign for an attachment: a reference to it goes into inputs and outputs, its
         * text everywhere else. */
        Py_DECREF(stand_in);
        if (e->payload) {
            return HAS_CONTENT;
        }
        stand_in = PyObject_Str(value);
        if (stand_in == NULL) {
            swallow_exception(e->state);
            encode_unprintable(e->state, e->out, value);
            return ENCODED;
        }
    }
    if (PyUnicode_Check(stand_in)) {
        EncodeResult result = encode_text_value(e, stand_in);
        Py_DECREF(stand_in);
        return result;
    }
    Level *level = level_open(e, LEVEL_STAND_IN, value);
    if (level == NULL) {
        Py_DECREF(stand_in);
        return ENCODED;
    }
    level->content = stand_in;
    return ENCODED;
}

static EncodeResult open_container(Encoder *e, PyObject *value)
{
    Level *level;

    for (int i = e->depth; i-- > 0;) {
        if (e->levels[i].container == value) {
            if (!e->tolerant) {
                return NEEDS_REPR; /* "Circular reference detected" */
            }
            encode_cycle(e->out, value);
            return ENCODED;
        }
    }
    if (UNLIKELY(e->depth == MAX_DEPTH)) {
        encode_too_deep(e->out, value);
        return ENCODED;
    }
    if (PyDict_CheckExact(value)) {
        level = level_open(e, LEVEL_DICT, value);
        if (LIKELY(level != NULL)) {
            level->promised = (size_t)PyDict_Size(value);
            wire_pack_map(e->out, level->promised);
        }
        return ENCODED;
    }
    if (LIKELY(PyList_CheckExact(value))) {
        level = level_open(e, LEVEL_LIST, value);
        if (LIKELY(level != NULL)) {
            level->promised = (size_t)PyList_Size(value);
            wire_pack_array(e->out, level->promised);
        }
        return ENCODED;
    }
    if (PyTuple_Check(value) &&
        (PyTuple_CheckExact(value) ||
         PyType_GetSlot(Py_TYPE(value), Py_tp_iter) == PyType_GetSlot(&PyTuple_Type, Py_tp_iter))) {
        level = level_open(e, LEVEL_TUPLE, value);
        if (LIKELY(level != NULL)) {
            level->promised = (size_t)PyTuple_Size(value);
            wire_pack_array(e->out, level->promised);
        }
        return ENCODED;
    }
    return PyDict_Check(value)                           ? open_dict_subclass(e, value)
           : PyList_Check(value) || PyTuple_Check(value) ? open_sequence_subclass(e, value)
                                                         : open_other(e, value);
}

static EncodeResult encode_one(Encoder *e, PyObject *value)
{
    Buffer *out = e->out;

    if (PyUnicode_Check(value)) {
        return encode_text_value(e, value);
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
    if (PyDict_CheckExact(value) || PyList_CheckExact(value)) { /* PyFloat_Check() is a call */
        return open_container(e, value);
    }
    if (PyLong_Check(value)) {
        encode_int(e->state, out, value);
        return ENCODED;
    }
    if (PyFloat_Check(value)) {
        wire_pack_double(out, PyFloat_AsDouble(value));
        return ENCODED;
    }
    return open_container(e, value);
}

/* Encodes the key of an item of a dictionary. */
static inline EncodeResult encode_key(Encoder *e, PyObject *dict, PyObject *key, PyObject *value)
{
    if (UNLIKELY(!PyUnicode_Check(key))) {
        return encode_other_key(e, key);
    }
    Utf8 utf8 = encode_utf8(e->out, key);
    bool has_content = e->payload && content_may_be_in_item(dict, utf8.bytes, utf8.size, value);
    return UNLIKELY(has_content) ? HAS_CONTENT : ENCODED;
}

/* Takes the next key (of a dict) and value of the innermost level, as new references. False when
 * there is none. */
static inline bool next_item(Level *level, PyObject **key, PyObject **value)
{
    switch (level->kind) {
    case LEVEL_DICT:
        if (!PyDict_Next(level->container, &level->at, key, value)) {
            return false;
        }
        break;
    case LEVEL_LIST:
        if (level->at >= PyList_Size(level->container) ||
            level->written >= level->promised + MAX_GROWTH) {
            return false;
        }
        *value = PyList_GetItem(level->container, level->at++);
        break;
    case LEVEL_TUPLE:
        if (level->at >= (Py_ssize_t)level->promised) {
            return false;
        }
        *value = PyTuple_GetItem(level->container, level->at++);
        break;
    case LEVEL_ITERATED:
        if (level->at >= (Py_ssize_t)level->promised) {
            return false;
        }
        *value = PyList_GetItem(level->content, level->at++);
        break;
    case LEVEL_STAND_IN:
        if (level->at++) {
            return false;
        }
        *value = level->content;
        break;
    case LEVEL_PAIRS: {
        if (level->at >= PyList_Size(level->content)) {
            return false;
        }
        PyObject *pair = PyList_GetItem(level->content, level->at++);
        if (PyTuple_Check(pair) && PyTuple_Size(pair) == 2) {
            *key = PyTuple_GetItem(pair, 0);
            *value = PyTuple_GetItem(pair, 1);
        }
        break;
    }
    }
    Py_XINCREF(*key);
    Py_XINCREF(*value);
    level->written++;
    return true;
}

/* Encodes the items of the innermost level, up to its end or to one that opens another level. */
static EncodeResult encode_items(Encoder *e)
{
    int depth = e->depth;
    Level *level = &e->levels[depth - 1];
    EncodeResult result = ENCODED;

    while (result == ENCODED && e->depth == depth && !e->out->failed) {
        PyObject *key = NULL, *value = NULL;
        if (!next_item(level, &key, &value)) {
            level_close(e);
            return ENCODED;
        }
        if (UNLIKELY(value == NULL)) { /* "items must return 2-tuples" */
            result = e->tolerant ? ENCODED : NEEDS_REPR;
            level->written--;
            continue;
        }
        if (key != NULL) {
            result = encode_key(e, level->container, key, value);
        }
        if (LIKELY(result == ENCODED)) {
            result = encode_one(e, value);
        }
        Py_XDECREF(key);
        Py_DECREF(value);
    }
    return result;
}

static EncodeResult encode(CoreState *state, Buffer *out, PyObject *value, bool payload,
                           bool tolerant)
{
    Encoder encoder; /* the inline levels are not initialised: only levels[0..depth) is read */
    encoder.state = state;
    encoder.out = out;
    encoder.levels = encoder.inline_levels;
    encoder.depth = 0;
    encoder.room = INLINE_LEVELS;
    encoder.payload = payload;
    encoder.tolerant = tolerant;
    size_t start = out->len;

    EncodeResult result = encode_one(&encoder, value);
    while (encoder.depth > 0 && result == ENCODED && !out->failed) {
        result = encode_items(&encoder);
    }
    if (result != ENCODED) {
        out->len = start;
    }
    while (encoder.depth > 0) { /* after a failure: what is still open has no counts to correct */
        Level *level = &encoder.levels[encoder.depth - 1];
        level->written = level->promised;
        level_close(&encoder);
    }
    if (UNLIKELY(encoder.levels != encoder.inline_levels)) {
        free(encoder.levels);
    }
    return result;
}

EncodeResult encode_try(CoreState *state, Buffer *out, PyObject *value)
{
    return encode(state, out, value, false, false);
}

EncodeResult encode_payload(CoreState *state, Buffer *out, PyObject *value)
{
    return encode(state, out, value, true, false);
}

void encode_value(CoreState *state, Buffer *out, PyObject *value)
{
    if (UNLIKELY(encode_try(state, out, value) != ENCODED)) {
        encode_repr(state, out, value, NULL);
    }
}

void encode_repr(CoreState *state, Buffer *out, PyObject *value, PyObject *make)
{
    PyObject *repr = NULL;
    if (!is_interrupted(state)) {
        repr = make ? ask_hook(make, value, NULL) : PyObject_Repr(value);
    }
    if (repr != NULL && PyUnicode_Check(repr)) {
        encode_str(out, repr);
        Py_DECREF(repr);
        return;
    }
    Py_XDECREF(repr);
    swallow_exception(state); /* (MLflow raises it into the caller.) */
    encode(state, out, value, false, true);
}

PyObject *encode_to_bytes(CoreState *state, PyObject *value)
{
    Buffer out = {0};
    encode_value(state, &out, value);
    PyObject *bytes =
        out.failed ? PyErr_NoMemory() : PyBytes_FromStringAndSize(out.data, (Py_ssize_t)out.len);
    buffer_free(&out);
    return bytes;
}
