/* delivery.c: the functions for the sender and for readers of a spool: values, records, requests,
 * segments. */
#include "api/delivery.h"

#include "base/errors.h"
#include "record/otlp.h"
#include "record/record.h"
#include "record/span_json.h"
#include "spool/paths.h"
#include "spool/segment_format.h"
#include "spool/segment_writer.h"
#include "trace/attributes.h"
#include "value/decode.h"
#include "value/encode.h"
#include "value/json.h"
#include "value/messages.h"

/* ---- what a buffer holds, as objects: it is used up by that, and large ones get smaller meanwhile
 * ---- */

/* One bytes object; NULL with a MemoryError. */
static PyObject *into_bytes(Buffer *buffer)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)buffer->len);
    char *to = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
    while (to != NULL && buffer->len > 0) {
        size_t size = buffer->len < BUFFER_LARGE ? buffer->len : BUFFER_LARGE;
        buffer->len -= size;
        memcpy(to + buffer->len, buffer->data + buffer->len, size);
        buffer_shrink(buffer);
    }
    return bytes;
}

/* A list of bytes objects, each of BUFFER_LARGE bytes but for the last; NULL with a MemoryError. */
static PyObject *into_pieces(Buffer *buffer)
{
    PyObject *pieces = PyList_New(0);
    while (pieces != NULL && buffer->len > 0) {
        size_t size = (buffer->len - 1) % BUFFER_LARGE + 1;
        buffer->len -= size;
        PyObject *piece = PyBytes_FromStringAndSize(buffer->data + buffer->len, (Py_ssize_t)size);
        if (piece == NULL || PyList_Append(pieces, piece) < 0) {
            Py_CLEAR(pieces);
        }
        Py_XDECREF(piece);
        buffer_shrink(buffer);
    }
    if (pieces != NULL && PyList_Reverse(pieces) < 0) {
        Py_CLEAR(pieces);
    }
    return pieces;
}

/* ---- values ---- */

static PyObject *core_encode(PyObject *module, PyObject *value)
{
    CoreState *state = state_of_module(module);
    return leave_core(state, encode_to_bytes(state, value));
}

static PyObject *core_decode(PyObject *module, PyObject *arg)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(arg, &bytes, &size) < 0) {
        return NULL;
    }
    Reader whole = reader_over(bytes, (size_t)size), value = whole;
    if (!reader_skip(&whole) || whole.at != whole.end) {
        PyErr_SetString(PyExc_ValueError, "not one msgpack value");
        return NULL;
    }
    return decode_value(&value);
}

static PyObject *core_json_text(PyObject *module, PyObject *args)
{
    (void)module;
    const char *bytes;
    Py_ssize_t size;
    int ascii = 0;
    if (!PyArg_ParseTuple(args, "y#|p:json_text", &bytes, &size, &ascii)) {
        return NULL;
    }
    Reader value = reader_over(bytes, (size_t)size);
    return decode_json_text(&value, ascii);
}

/* ---- records ---- */

/* Takes a record apart; 0, or -1 with an exception. */
static int parse_span(SpanRecord *span, PyObject *record)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(record, &bytes, &size) < 0) {
        return -1;
    }
    if (span_record_parse(span, bytes, (size_t)size) < 0) {
        PyErr_SetString(PyExc_ValueError, "not a span record");
        return -1;
    }
    return 0;
}

static bool find_attribute(const SpanRecord *span, const char *name, Reader *value)
{
    Reader r = span->attributes_at;
    size_t size = strlen(name);
    for (uint32_t i = 0; i < span->attributes; i++) {
        Token key = reader_next(&r);
        if (key.kind == TOKEN_STR && key.size == size && memcmp(key.bytes, name, size) == 0) {
            *value = r;
            return true;
        }
        reader_skip(&r);
    }
    return false;
}

static PyObject *attribute_object(const SpanRecord *span, const char *name)
{
    Reader value;
    if (!find_attribute(span, name, &value)) {
        Py_RETURN_NONE;
    }
    return decode_value(&value);
}

/* Of a large text so many bytes are kept: 1,001 characters at least, which show that it goes on. */
#define BEGINNING_BYTES ((size_t)4 * 1002)

/* A drain() that keeps the beginning. */
static void keep_beginning(Sink *sink)
{
    Buffer *beginning = sink->to;
    size_t missing = BEGINNING_BYTES - beginning->len;
    buffer_append(beginning, sink->buffer.data,
                  sink->buffer.len < missing ? sink->buffer.len : missing);
    convert_inherit_failure(&sink->buffer, beginning);
    sink_count(sink);
}

/* A str of the beginning of a text: whole characters of it. */
static PyObject *decode_beginning(const char *bytes, size_t size)
{
    if (size > BEGINNING_BYTES) {
        size = BEGINNING_BYTES;
        while (size > 0 && ((unsigned char)bytes[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    return PyUnicode_Decode(bytes, (Py_ssize_t)size, "utf-8", "surrogatepass");
}

/* What is shown of a large value, for which neither it nor its JSON text is decoded: (beginning of
 * that text, beginning of the text of the message that counts, or None). */
static PyObject *large_json(Reader value, const char *role)
{
    Buffer beginning = {0};
    Sink sink = sink_into(keep_beginning, &beginning);
    Reader r = value;
    PyObject *text = NULL, *message = NULL, *result = NULL;
    Token found;
    ConvertResult converted = json_value(&sink.buffer, &r, false);
    keep_beginning(&sink);
    if (converted != CONVERT_WHOLE || beginning.failed) {
        convert_error(beginning.failed ? CONVERT_NO_MEMORY : converted, "value");
        goto done;
    }
    while (beginning.len > 0 && ((unsigned char)beginning.data[beginning.len - 1] & 0xc0) == 0x80) {
        beginning.len--; /* the last character may be cut off */
    }
    beginning.len -= beginning.len > 0 && (unsigned char)beginning.data[beginning.len - 1] >= 0xc0;
    text = decode_beginning(beginning.data, beginning.len);
    if (text == NULL) {
        goto done;
    }
    if (message_text(value, role, &found)) {
        message = decode_beginning(found.bytes, found.size);
        if (message == NULL) {
            goto done;
        }
    }
    result = PyTuple_Pack(2, text, message ? message : Py_None);
done:
    Py_XDECREF(text);
    Py_XDECREF(message);
    buffer_free(&sink.buffer);
    buffer_free(&beginning);
    return result;
}

/* The JSON text of an attribute, or what is shown of it where it is large. */
static PyObject *attribute_json(const SpanRecord *span, const char *name, const char *role)
{
    Reader value;
    if (!find_attribute(span, name, &value)) {
        Py_RETURN_NONE;
    }
    Reader behind = value;
    if (reader_skip(&behind) && (size_t)(behind.at - value.at) > BUFFER_LARGE) {
        return large_json(value, role);
    }
    return decode_json_text(&value, false);
}

/* The release of MLflow whose forms of a span are made. */
static uint32_t mlflow_of(PyObject *module) { return state_of_module(module)->mlflow; }

/* The bytes that span_json() makes of a record, without making them all at once. */
static ConvertResult json_size(const SpanRecord *span, uint32_t mlflow, size_t *size)
{
    Sink sink = sink_into(sink_count, NULL);
    ConvertResult converted = span_json(&sink.buffer, span, mlflow);
    sink_count(&sink);
    *size = sink.passed;
    buffer_free(&sink.buffer);
    return converted == CONVERT_WHOLE && *size > BUFFER_MAX ? CONVERT_TOO_LARGE : converted;
}

/* What core_span_summary() returns, of these parts. */
static PyObject *summary(const SpanRecord *span, size_t size, PyObject *usage, PyObject *cost,
                         PyObject *inputs, PyObject *outputs)
{
    PyObject *const fields[] = {
        PyBytes_FromStringAndSize(span->span_id, SPAN_ID_SIZE),
        span->parent_id ? PyBytes_FromStringAndSize(span->parent_id, SPAN_ID_SIZE)
                        : Py_NewRef(Py_None),
        PyLong_FromSize_t(size),
        Py_NewRef(usage),
        Py_NewRef(cost),
        Py_NewRef(inputs),
        Py_NewRef(outputs),
        PyLong_FromUnsignedLongLong(span->start_ns),
        PyLong_FromUnsignedLongLong(span->end_ns),
    };
    const size_t count = sizeof fields / sizeof fields[0];
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    bool whole = result != NULL;
    for (size_t i = 0; i < count; i++) {
        whole = whole && fields[i] != NULL;
        if (result != NULL) {
            PyTuple_SetItem(result, (Py_ssize_t)i, fields[i]); /* steals it, NULL too */
        }
        else {
            Py_XDECREF(fields[i]);
        }
    }
    if (!whole) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *core_span_summary(PyObject *module, PyObject *args)
{
    PyObject *record;
    const char *roots_under = NULL;
    Py_ssize_t size_under = 0;
    SpanRecord span;
    if (!PyArg_ParseTuple(args, "O|z#:span_summary", &record, &roots_under, &size_under) ||
        parse_span(&span, record) < 0) {
        return NULL;
    }
    bool is_root =
        span.parent_id == NULL ||
        (size_under == SPAN_ID_SIZE && memcmp(span.parent_id, roots_under, SPAN_ID_SIZE) == 0);
    size_t size;
    ConvertResult converted = json_size(&span, mlflow_of(module), &size);
    if (converted != CONVERT_WHOLE) {
        convert_error(converted, "span record");
        return NULL;
    }
    PyObject *usage = attribute_object(&span, "mlflow.chat.tokenUsage"), *cost = NULL;
    PyObject *inputs = NULL, *outputs = NULL, *result = NULL;
    if (usage == NULL) {
        goto done;
    }
    cost = attribute_object(&span, "mlflow.llm.cost");
    if (cost == NULL) {
        goto done;
    }
    if (is_root) {
        inputs = attribute_json(&span, ATTR_INPUTS, "user");
        outputs = inputs ? attribute_json(&span, ATTR_OUTPUTS, "assistant") : NULL;
        if (outputs == NULL) {
            goto done;
        }
    }
    result =
        summary(&span, size, usage, cost, inputs ? inputs : Py_None, outputs ? outputs : Py_None);
done:
    Py_XDECREF(usage);
    Py_XDECREF(cost);
    Py_XDECREF(inputs);
    Py_XDECREF(outputs);
    return result;
}

static PyObject *core_span_head(PyObject *module, PyObject *record)
{
    (void)module;
    SpanRecord span;
    if (parse_span(&span, record) < 0) {
        return NULL;
    }
    return Py_BuildValue("(KK)", (unsigned long long)span.start_ns,
                         (unsigned long long)span.status);
}

static PyObject *core_span_json(PyObject *module, PyObject *record)
{
    SpanRecord span;
    if (parse_span(&span, record) < 0) {
        return NULL;
    }
    Buffer json = {0};
    PyObject *text = NULL;
    ConvertResult converted = span_json(&json, &span, mlflow_of(module));
    if (converted == CONVERT_WHOLE) {
        text = PyUnicode_DecodeUTF8(json.data, (Py_ssize_t)json.len, NULL);
    }
    else {
        convert_error(converted, "span record");
    }
    buffer_free(&json);
    return text;
}

/* Where a sink's content is written to. */
typedef struct {
    int fd;
    int error; /* errno of what failed, or 0 */
} OpenFile;

/* A drain() that writes to a file. */
static void write_out(Sink *sink)
{
    OpenFile *file = sink->to;
    if (!write_whole(file->fd, sink->buffer.data, sink->buffer.len)) {
        file->error = errno;
        sink->buffer.failed = true;
    }
    sink_count(sink);
}

static PyObject *core_write_span_json(PyObject *module, PyObject *args)
{
    PyObject *record;
    OpenFile file = {0};
    SpanRecord span;
    if (!PyArg_ParseTuple(args, "iO:write_span_json", &file.fd, &record) ||
        parse_span(&span, record) < 0) {
        return NULL;
    }
    Sink sink = sink_into(write_out, &file);
    ConvertResult converted = span_json(&sink.buffer, &span, mlflow_of(module));
    if (converted == CONVERT_WHOLE) {
        write_out(&sink);
    }
    buffer_free(&sink.buffer);
    if (file.error != 0) {
        errno = file.error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (converted != CONVERT_WHOLE) {
        convert_error(converted, "span record");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether the pending exception says that a record is no span record, which is then forgotten;
 * false for others, a MemoryError say, which stay set. */
static bool forget_refusal(void)
{
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return false;
    }
    PyErr_Clear();
    return true;
}

/* Takes a record apart and appends it as OTLP, see otlp_span(). *refused: it cannot be encoded. 0,
 * or -1 with an exception. */
static int append_span(Buffer *out, PyObject *record, const CollectorForm *form, bool with_kind,
                       bool *refused, bool *inexact)
{
    SpanRecord span;
    *refused = parse_span(&span, record) < 0;
    if (*refused) {
        return forget_refusal() ? 0 : -1;
    }
    ConvertResult converted = otlp_span(out, &span, form, with_kind, inexact);
    if (converted == CONVERT_NO_MEMORY) {
        PyErr_NoMemory();
        return -1;
    }
    *refused = converted != CONVERT_WHOLE;
    return 0;
}

static int append_index(PyObject *list, Py_ssize_t i)
{
    PyObject *index = PyLong_FromSsize_t(i);
    int result = index ? PyList_Append(list, index) : -1;
    Py_XDECREF(index);
    return result;
}

static PyObject *core_otlp_request(PyObject *module, PyObject *records)
{
    if (!PyList_Check(records)) {
        PyErr_SetString(PyExc_TypeError, "otlp_request() takes a list of span records");
        return NULL;
    }
    PyObject *refused = PyList_New(0), *inexact = PyList_New(0), *body = NULL, *result = NULL;
    Buffer out = {0};
    if (refused == NULL || inexact == NULL) {
        goto done;
    }
    OtlpMarks marks;
    if (otlp_begin(&out, &marks, NULL) != CONVERT_WHOLE) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(records); i++) {
        bool is_refused, is_inexact = false;
        PyObject *record = PyList_GetItem(records, i);
        Py_INCREF(record);
        int failed = append_span(&out, record, NULL, mlflow_of(module) >= MLFLOW(3, 18),
                                 &is_refused, &is_inexact);
        Py_DECREF(record);
        if (failed < 0 || (is_refused && append_index(refused, i) < 0) ||
            (!is_refused && is_inexact && append_index(inexact, i) < 0)) {
            goto done;
        }
    }
    otlp_end(&out, marks);
    if (out.failed) {
        PyErr_NoMemory();
        goto done;
    }
    body = out.len > BUFFER_LARGE ? into_pieces(&out) : into_bytes(&out);
    result = body != NULL ? PyTuple_Pack(3, body, refused, inexact) : NULL;
done:
    Py_XDECREF(body);
    Py_XDECREF(refused);
    Py_XDECREF(inexact);
    buffer_free(&out);
    return result;
}

/* Appends one span as collector_request() takes it: (record, kind, further attributes, name).
 * *refused: its record cannot be encoded. 0, or -1 with an exception. */
static int append_collector_span(Buffer *out, PyObject *item, bool json, bool *refused)
{
    CollectorForm form = {.json_attributes = json};
    PyObject *record;
    unsigned long long kind;
    const char *extra;
    Py_ssize_t extra_size, name_size;
    bool inexact = false;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError,
                        "collector_request() takes a tuple for every span: (record, "
                        "kind, encoded map of attributes, name or None)");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "OKy#z#", &record, &kind, &extra, &extra_size, &form.name,
                          &name_size)) {
        return -1;
    }
    form.name_size = (size_t)name_size;
    form.kind = kind;
    form.extra = reader_over(extra, (size_t)extra_size);
    return append_span(out, record, &form, true, refused, &inexact);
}

static PyObject *core_collector_request(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *spans, *refused = NULL, *body = NULL, *result = NULL;
    const char *bytes;
    Py_ssize_t size;
    int json;
    Buffer out = {0};
    OtlpMarks marks;
    if (!PyArg_ParseTuple(args, "O!y#p:collector_request", &PyList_Type, &spans, &bytes, &size,
                          &json)) {
        return NULL;
    }
    Reader resource = reader_over(bytes, (size_t)size);
    ConvertResult begun = otlp_begin(&out, &marks, &resource);
    if (begun == CONVERT_NO_MEMORY) {
        PyErr_NoMemory();
        goto done;
    }
    if (begun != CONVERT_WHOLE) {
        PyErr_SetString(PyExc_ValueError, "the resource is not an encoded map");
        goto done;
    }
    refused = PyList_New(0);
    if (refused == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(spans); i++) {
        bool is_refused;
        PyObject *span = PyList_GetItem(spans, i);
        Py_INCREF(span);
        int failed = append_collector_span(&out, span, json, &is_refused);
        Py_DECREF(span);
        if (failed < 0 || (is_refused && append_index(refused, i) < 0)) {
            goto done;
        }
    }
    otlp_end(&out, marks);
    if (out.failed) {
        PyErr_NoMemory();
        goto done;
    }
    body = into_bytes(&out);
    result = body != NULL ? PyTuple_Pack(2, body, refused) : NULL;
done:
    Py_XDECREF(body);
    Py_XDECREF(refused);
    buffer_free(&out);
    return result;
}

/* ---- segments ---- */

static PyObject *core_write_segment(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *path = NULL, *records, *result = NULL;
    int level;
    unsigned long long size = 0;
    if (!PyArg_ParseTuple(args, "O&O!i:write_segment", PyUnicode_FSConverter, &path, &PyList_Type,
                          &records, &level)) {
        return NULL;
    }
    if (segment_write_file(path_bytes(path), records, level, &size) == 0) {
        result = PyLong_FromUnsignedLongLong(size);
    }
    else if (!PyErr_Occurred()) {
        path_error(path, errno, NULL);
    }
    Py_DECREF(path);
    return result;
}

/* ---- memory ---- */

static PyObject *core_give_memory_back(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyThreadState *thread = PyEval_SaveThread();
    compat_give_memory_back();
    PyEval_RestoreThread(thread);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"encode", core_encode, METH_O,
     "encode($module, value, /)\n--\n\n"
     "A value as the core stores it: msgpack tokens of the text that json.dumps would make."},
    {"decode", core_decode, METH_O,
     "decode($module, encoded, /)\n--\n\n"
     "An encoded value as json.loads of its text would make it; also a whole record.\n\n"
     "Raises ValueError where the bytes are not one value; MemoryError."},
    {"json_text", core_json_text, METH_VARARGS,
     "json_text($module, encoded, ascii=False, /)\n--\n\n"
     "The JSON text of an encoded value, as json.dumps would make it.\n\n"
     "encoded: bytes, as encode() gives them. ascii: whether other characters stand as \\u "
     "escapes\n"
     "(json.dumps's ensure_ascii).\n\n"
     "Raises ValueError where the bytes are damaged, or the text would pass 1 GiB; MemoryError."},
    {"span_summary", core_span_summary, METH_VARARGS,
     "span_summary($module, record, roots_under=None, /)\n--\n\n"
     "What finishing a trace needs of a span: (span id, parent id or None, size of span_json() in\n"
     "bytes, token usage, cost, JSON text of the inputs, JSON text of the outputs, start, end).\n"
     "The ids are bytes, usage and cost decoded, start and end nanoseconds since the epoch. What\n"
     "the span has not is None, as are the texts of a span that is no root. Of inputs or outputs\n"
     "larger than 1 MiB, not the text stands there but (its beginning, the beginning of the chat\n"
     "message in it that says most, or None).\n\n"
     "roots_under: the parent id of the trace's roots, where it has one.\n\n"
     "Raises ValueError where the record is no span's, is damaged, or its JSON would pass 1 GiB;\n"
     "MemoryError."},
    {"span_head", core_span_head, METH_O,
     "span_head($module, record, /)\n--\n\n"
     "(start in nanoseconds, status) of a span record, of which nothing else is decoded.\n\n"
     "Raises ValueError where it is no span's, or damaged."},
    {"span_json", core_span_json, METH_O,
     "span_json($module, record, /)\n--\n\n"
     "MLflow's dictionary of a span as JSON; the attributes are JSON texts in it. Times are\n"
     "nanoseconds since the epoch, ids base64.\n\n"
     "Raises ValueError where the record is no span's, is damaged, or its JSON would pass 1 GiB;\n"
     "MemoryError."},
    {"write_span_json", core_write_span_json, METH_VARARGS,
     "write_span_json($module, fd, record, /)\n--\n\n"
     "Write what span_json() makes of a record to a file descriptor, without making it all at "
     "once.\n\n"
     "Raises OSError, and ValueError where the record is no span's or is damaged; MemoryError."},
    {"otlp_request", core_otlp_request, METH_O,
     "otlp_request($module, records, /)\n--\n\n"
     "An ExportTraceServiceRequest for an MLflow server: (bytes or, where they are more than 1 "
     "MiB, a\n"
     "list of pieces of them, indexes of the records that cannot be encoded, indexes of those "
     "that\n"
     "JSON would carry better)."},
    {"collector_request", core_collector_request, METH_VARARGS,
     "collector_request($module, spans, resource, json_attributes, /)\n--\n\n"
     "An ExportTraceServiceRequest for a collector: (bytes, indexes of the records that cannot be\n"
     "encoded).\n\n"
     "spans: (record, kind or 0 for its own, encoded map of further attributes, name in UTF-8 or "
     "None) each."},
    {"write_segment", core_write_segment, METH_VARARGS,
     "write_segment($module, path, records, level, /)\n--\n\n"
     "Write a segment of records, compressed by zstd at that level; its size in bytes. The file "
     "is\n"
     "there whole or not at all.\n\n"
     "Raises OSError where it cannot be written."},
    {"give_memory_back", core_give_memory_back, METH_NOARGS,
     "give_memory_back($module, /)\n--\n\n"
     "Give the C library's free memory back to the system, where that does not do so by itself."},
    {NULL, NULL, 0, NULL},
};

int delivery_add_functions(PyObject *module) { return PyModule_AddFunctions(module, functions); }
