/* fuzz.c: libFuzzer's way into the readers of the core: what other processes wrote, and what nobody
 * wrote.
 *
 * The program is Python with the core built in, all of it instrumented. FUZZ_TARGET names the
 * target to run, of those at the end of this file. Besides crashes, a target looks for broken
 * promises: what a reader refuses is a ValueError and no other exception, and what it accepts means
 * the same to all that read it.
 *
 * A broken promise prints what it is and aborts, so that libFuzzer keeps the input. */
#define FASTTRACE_TEST_PROGRAM
#include "record/frame.h"
#include "record/record.h"
#include "spool/ring_layout.h"
#include "spool/segment_format.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

PyMODINIT_FUNC PyInit__core(void);

/* The variable that names the folder for the files that readers are given. */
#define FOLDER_VARIABLE "FUZZ_FOLDER"

static struct {
    PyObject *module, *loads;
    PyObject *decode, *encode, *json_text;
    PyObject *span_json, *span_summary, *otlp_request, *collector_request;
    PyObject *ring_reader, *segment_reader, *write_segment;
} core;

/* The file that a reader of files is given; of this process alone. */
static char work_path[4096], second_path[4096 + 16];
static int work_fd;
static char *ring_map; /* the smallest ring, in the work file */

/* ---- promises ---- */

static void broken(const char *promise)
{
    fprintf(stderr, "broken promise: %s\n", promise);
    if (PyErr_Occurred()) {
        PyErr_Print();
    }
    abort();
}

static void promise(bool kept, const char *what)
{
    if (!kept) {
        broken(what);
    }
}

/* A new reference that must be there. */
static PyObject *made(PyObject *object)
{
    promise(object != NULL, "no exception where none is due");
    return object;
}

/* The result of a call that may refuse its input: NULL, and no exception, where it raised
 * ValueError. Takes over the reference to `args`. */
static PyObject *call(PyObject *function, PyObject *args)
{
    PyObject *result = PyObject_CallObject(function, made(args));
    Py_DECREF(args);
    if (result == NULL) {
        promise(PyErr_Occurred() != NULL, "NULL comes with an exception");
        promise(PyErr_ExceptionMatches(PyExc_ValueError), "what is refused is a ValueError");
        PyErr_Clear();
    }
    promise(PyErr_Occurred() == NULL, "a result comes without an exception");
    return result;
}

static PyObject *call_one(PyObject *function, PyObject *argument)
{
    return call(function, PyTuple_Pack(1, argument));
}

static bool same_bytes(PyObject *a, PyObject *b)
{
    return PyBytes_Size(a) == PyBytes_Size(b) &&
           memcmp(PyBytes_AsString(a), PyBytes_AsString(b), (size_t)PyBytes_Size(a)) == 0;
}

static bool is_equal(PyObject *a, PyObject *b)
{
    int equal = PyObject_RichCompareBool(a, b, Py_EQ);
    promise(equal >= 0, "what was read can be compared");
    return equal == 1;
}

/* Reads the next byte of the input, which says how the rest is to be used. */
static unsigned take_byte(const uint8_t **data, size_t *size)
{
    if (*size == 0) {
        return 0;
    }
    *size -= 1;
    return *(*data)++;
}

static PyObject *bytes_of(const uint8_t *data, size_t size)
{
    return made(PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size));
}

/* ---- values ---- */

/* A value that decodes is one that can be kept: encoded, decoded and encoded again it is the same.
 */
static void fuzz_decode(const uint8_t *data, size_t size)
{
    PyObject *bytes = bytes_of(data, size), *value = call_one(core.decode, bytes);
    if (value != NULL) {
        PyObject *once = made(call_one(core.encode, value));
        PyObject *again = made(call_one(core.decode, once));
        PyObject *twice = made(call_one(core.encode, again));
        promise(same_bytes(once, twice), "decode() gives what encode() was given");
        Py_DECREF(twice);
        Py_DECREF(again);
        Py_DECREF(once);
        Py_DECREF(value);
    }
    Py_DECREF(bytes);
}

/* The text of a value that is read again: of json.loads(text), or of the value itself. */
static PyObject *text_again(PyObject *value, PyObject *text)
{
    PyObject *loaded = text != NULL ? made(call_one(core.loads, text)) : NULL;
    PyObject *encoded = made(call_one(core.encode, loaded != NULL ? loaded : value));
    PyObject *again = made(call_one(core.json_text, encoded));
    Py_DECREF(encoded);
    Py_XDECREF(loaded);
    return again;
}

/* Both texts of a value are JSON, and they are the texts of what decode() gives. */
static void fuzz_json_text(const uint8_t *data, size_t size)
{
    PyObject *bytes = bytes_of(data, size), *value = call_one(core.decode, bytes);
    PyObject *text = call_one(core.json_text, bytes);
    PyObject *ascii = call(core.json_text, PyTuple_Pack(2, bytes, Py_True));
    promise(text == NULL || ascii != NULL, "what has a text has one in ASCII");
    if (value != NULL && text != NULL) {
        PyObject *of_value = text_again(value, NULL);
        PyObject *of_text = text_again(NULL, text), *of_ascii = text_again(NULL, ascii);
        /* json.loads() joins the escapes of two halves of a surrogate pair; decode() leaves them
         * apart. Halves begin with 0xed. */
        bool may_have_halves = memchr(PyBytes_AsString(bytes), 0xed, size) != NULL;
        promise(may_have_halves || is_equal(of_text, of_ascii), "both texts mean the same");
        promise(is_equal(of_value, of_text), "json_text() is the text of what decode() gives");
        Py_DECREF(of_ascii);
        Py_DECREF(of_text);
        Py_DECREF(of_value);
    }
    Py_XDECREF(ascii);
    Py_XDECREF(text);
    Py_XDECREF(value);
    Py_DECREF(bytes);
}

/* ---- records ---- */

/* A record is refused by all that read it or by none; its dictionary is JSON. */
static void fuzz_record(const uint8_t *data, size_t size)
{
    SpanRecord span;
    const char *trace_id = NULL;
    PyObject *record = bytes_of(data, size);
    const char *at = PyBytes_AsString(record);
    bool is_span = span_record_parse(&span, at, size) == 0;
    int kind = record_kind(at, size, &trace_id);
    promise(is_span == (kind == RECORD_SPAN), "record_kind() knows a span record");
    promise(trace_id != NULL, "record_kind() gives an id, of zeros where there is none");

    PyObject *json = call_one(core.span_json, record);
    PyObject *summary = call_one(core.span_summary, record);
    promise(is_span || (json == NULL && summary == NULL), "what is no span record is refused");
    promise(json != NULL || summary == NULL, "a span with a summary has a dictionary");
    if (json != NULL) {
        PyObject *value = call_one(core.decode, record); /* NULL where it is too deep */
        PyObject *loaded = value != NULL ? call_one(core.loads, json) : NULL;
        promise(value == NULL || loaded != NULL, "span_json() makes JSON");
        Py_XDECREF(value);
        Py_XDECREF(loaded);
    }
    Py_XDECREF(json);
    Py_XDECREF(summary);
    Py_DECREF(record);
}

/* ---- requests: protobuf ---- */

/* What a length-delimited field holds. */
typedef enum {
    CONTENT_BYTES,
    CONTENT_REQUEST,
    CONTENT_RESOURCE_SPANS,
    CONTENT_RESOURCE,
    CONTENT_SCOPE_SPANS,
    CONTENT_SCOPE,
    CONTENT_SPAN,
    CONTENT_EVENT,
    CONTENT_LINK,
    CONTENT_STATUS,
    CONTENT_KEY_VALUE,
    CONTENT_ANY_VALUE,
    CONTENT_ARRAY,
    CONTENT_KEY_VALUE_LIST,
} Content;

/* The fields of OTLP's messages that the core writes. */
static const struct {
    Content message;
    unsigned field, wire;
    Content content;
} fields[] = {
    {CONTENT_REQUEST, 1, 2, CONTENT_RESOURCE_SPANS},
    {CONTENT_RESOURCE_SPANS, 1, 2, CONTENT_RESOURCE},
    {CONTENT_RESOURCE_SPANS, 2, 2, CONTENT_SCOPE_SPANS},
    {CONTENT_RESOURCE, 1, 2, CONTENT_KEY_VALUE},
    {CONTENT_SCOPE_SPANS, 1, 2, CONTENT_SCOPE},
    {CONTENT_SCOPE_SPANS, 2, 2, CONTENT_SPAN},
    {CONTENT_SCOPE, 1, 2, CONTENT_BYTES},
    {CONTENT_SPAN, 1, 2, CONTENT_BYTES},
    {CONTENT_SPAN, 2, 2, CONTENT_BYTES},
    {CONTENT_SPAN, 4, 2, CONTENT_BYTES},
    {CONTENT_SPAN, 5, 2, CONTENT_BYTES},
    {CONTENT_SPAN, 6, 0, CONTENT_BYTES},
    {CONTENT_SPAN, 7, 1, CONTENT_BYTES},
    {CONTENT_SPAN, 8, 1, CONTENT_BYTES},
    {CONTENT_SPAN, 9, 2, CONTENT_KEY_VALUE},
    {CONTENT_SPAN, 11, 2, CONTENT_EVENT},
    {CONTENT_SPAN, 13, 2, CONTENT_LINK},
    {CONTENT_SPAN, 15, 2, CONTENT_STATUS},
    {CONTENT_SPAN, 16, 5, CONTENT_BYTES},
    {CONTENT_EVENT, 1, 1, CONTENT_BYTES},
    {CONTENT_EVENT, 2, 2, CONTENT_BYTES},
    {CONTENT_EVENT, 3, 2, CONTENT_KEY_VALUE},
    {CONTENT_LINK, 1, 2, CONTENT_BYTES},
    {CONTENT_LINK, 2, 2, CONTENT_BYTES},
    {CONTENT_LINK, 4, 2, CONTENT_KEY_VALUE},
    {CONTENT_LINK, 6, 5, CONTENT_BYTES},
    {CONTENT_STATUS, 2, 2, CONTENT_BYTES},
    {CONTENT_STATUS, 3, 0, CONTENT_BYTES},
    {CONTENT_KEY_VALUE, 1, 2, CONTENT_BYTES},
    {CONTENT_KEY_VALUE, 2, 2, CONTENT_ANY_VALUE},
    {CONTENT_ANY_VALUE, 1, 2, CONTENT_BYTES},
    {CONTENT_ANY_VALUE, 2, 0, CONTENT_BYTES},
    {CONTENT_ANY_VALUE, 3, 0, CONTENT_BYTES},
    {CONTENT_ANY_VALUE, 4, 1, CONTENT_BYTES},
    {CONTENT_ANY_VALUE, 5, 2, CONTENT_ARRAY},
    {CONTENT_ANY_VALUE, 6, 2, CONTENT_KEY_VALUE_LIST},
    {CONTENT_ARRAY, 1, 2, CONTENT_ANY_VALUE},
    {CONTENT_KEY_VALUE_LIST, 1, 2, CONTENT_KEY_VALUE},
};

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

/* Checks a message: its fields are OTLP's, their lengths add up, and no decoder finds it too deep.
 * Returns the number of spans. */
static size_t check_message(const uint8_t *at, const uint8_t *end, Content message, int depth)
{
    size_t spans = message == CONTENT_SPAN;
    promise(depth <= 100, "messages lie in each other no deeper than decoders read");
    while (at < end) {
        uint64_t tag, value;
        size_t i = 0, known = sizeof fields / sizeof *fields;
        promise(read_varint(&at, end, &tag), "a tag is whole");
        while (i < known && (fields[i].message != message || fields[i].field != tag >> 3 ||
                             fields[i].wire != (tag & 7))) {
            i++;
        }
        promise(i < known, "a field is one of OTLP's");
        size_t fixed = fields[i].wire == 1 ? 8 : fields[i].wire == 5 ? 4 : 0;
        if (fixed == 0) {
            promise(read_varint(&at, end, &value), "a number or a length is whole");
            fixed = fields[i].wire == 2 ? value : 0;
        }
        promise(fixed <= (size_t)(end - at), "a field lies in its message");
        if (fields[i].content != CONTENT_BYTES) {
            spans += check_message(at, at + fixed, fields[i].content, depth + 1);
        }
        at += fixed;
    }
    return spans;
}

static void check_request(PyObject *request, size_t spans)
{
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(request);
    size_t size = (size_t)PyBytes_Size(request);
    promise(check_message(bytes, bytes + size, CONTENT_REQUEST, 1) == spans,
            "a request has the spans that were not refused");
}

/* A span that can always be encoded. */
static const char usable_record[] = "\x9c\x01\xc4\x10"
                                    "0123456789abcdef"
                                    "\xc4\x08"
                                    "01234567"
                                    "\xc0\xa1n\x01\x02\x01\xa0\x81\xa1k\x92\x01\xc3\x90\x90";

/* Whether the first of the two records of a request was refused; the second never is. */
static bool check_refused(PyObject *result)
{
    PyObject *refused = PyTuple_GetItem(result, 1);
    Py_ssize_t count = PyList_Size(refused);
    promise(count <= 1, "a record behind a refused one is not refused");
    if (count == 1) {
        promise(PyLong_AsLong(PyList_GetItem(refused, 0)) == 0, "it is the first that is refused");
    }
    check_request(PyTuple_GetItem(result, 0), count == 1 ? 1 : 2);
    return count == 1;
}

/* Requests never fail for what a record holds: they go without it, and are whole. What is no span
 * record is refused. What of the input lies before the record are a collector's further attributes
 * and its resource. */
static void fuzz_otlp(const uint8_t *data, size_t size)
{
    unsigned options = take_byte(&data, &size), extra_size = take_byte(&data, &size);
    extra_size = extra_size < size ? extra_size : (unsigned)size;
    PyObject *extra = bytes_of(data, extra_size);
    PyObject *record = bytes_of(data + extra_size, size - extra_size);
    PyObject *usable = bytes_of((const uint8_t *)usable_record, sizeof usable_record - 1);
    PyObject *no_pairs = bytes_of((const uint8_t *)"\x80", 1);
    SpanRecord span;
    bool is_span =
        span_record_parse(&span, PyBytes_AsString(record), (size_t)PyBytes_Size(record)) == 0;

    PyObject *result = made(call(core.otlp_request, Py_BuildValue("([OO])", record, usable)));
    promise(check_refused(result) || is_span, "what is no span record is refused");
    Py_DECREF(result);

    PyObject *name = options & 2 ? bytes_of((const uint8_t *)"name", 4) : Py_None;
    PyObject *resource = options & 4 ? extra : no_pairs;
    result = call(core.collector_request,
                  Py_BuildValue("([(OiOO)(OiOO)]Oi)", record, 1, options & 8 ? extra : no_pairs,
                                name, usable, 3, no_pairs, Py_None, resource, (int)(options & 1)));
    if (result != NULL) {
        promise(check_refused(result) || is_span, "what is no span record is refused");
    }
    else {
        promise(options & 4, "only a resource makes a request fail");
    }
    Py_XDECREF(result);
    if (name != Py_None) {
        Py_DECREF(name);
    }
    Py_DECREF(no_pairs);
    Py_DECREF(usable);
    Py_DECREF(record);
    Py_DECREF(extra);
}

/* ---- files ---- */

static void write_work_file(const void *bytes, size_t size)
{
    promise(ftruncate(work_fd, 0) == 0 && pwrite(work_fd, bytes, size, 0) == (ssize_t)size,
            "the work file can be written");
}

/* Makes the checksums of the records in a run right, as far as their lengths are. */
static void mend_records(uint8_t *at, size_t size)
{
    RecordHead head;
    while (size >= sizeof head) {
        memcpy(&head, at, sizeof head);
        uint64_t frame = RECORD_FRAME_SIZE((uint64_t)head.length);
        if (frame > size) {
            return;
        }
        head.checksum = checksum32(at + sizeof head, head.length);
        memcpy(at, &head, sizeof head);
        at += frame;
        size -= frame;
    }
}

/* Makes the checksums of frames right, and of the records in those that are not compressed. */
static void mend_frames(uint8_t *at, size_t size)
{
    SegmentFrame frame;
    while (size >= sizeof frame) {
        memcpy(&frame, at, sizeof frame);
        if (frame.stored_size > size - sizeof frame) {
            return;
        }
        if (frame.codec == CODEC_RAW) {
            mend_records(at + sizeof frame, frame.stored_size);
        }
        frame.checksum = checksum64(at + sizeof frame, frame.stored_size);
        memcpy(at, &frame, sizeof frame);
        at += sizeof frame + frame.stored_size;
        size -= sizeof frame + frame.stored_size;
    }
}

/* Appends the items of one read; returns how many there were. */
static Py_ssize_t add_items(PyObject *all, PyObject *read)
{
    Py_ssize_t count = PyList_Size(made(read));
    promise(PyList_SetSlice(all, PyList_Size(all), PyList_Size(all), read) == 0, "a list grows");
    Py_DECREF(read);
    return count;
}

/* Items are what the core says of their records. */
static void check_items(PyObject *items)
{
    for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
        PyObject *item = PyList_GetItem(items, i);
        PyObject *record = PyTuple_GetItem(item, 3), *id = PyTuple_GetItem(item, 2);
        const char *trace_id;
        int kind = record_kind(PyBytes_AsString(record), (size_t)PyBytes_Size(record), &trace_id);
        promise(PyLong_AsLong(PyTuple_GetItem(item, 1)) == kind, "an item has its record's kind");
        promise(PyBytes_Size(id) == TRACE_ID_SIZE &&
                    memcmp(PyBytes_AsString(id), trace_id, TRACE_ID_SIZE) == 0,
                "an item has its record's trace");
    }
}

static uint64_t number_of(PyObject *object, const char *name)
{
    PyObject *number = made(PyObject_GetAttrString(object, name));
    uint64_t value = PyLong_AsUnsignedLongLong(number);
    promise(PyErr_Occurred() == NULL, "a getter gives a number");
    Py_DECREF(number);
    return value;
}

static bool is_damaged(PyObject *reader)
{
    PyObject *damaged = made(PyObject_GetAttrString(reader, "damaged"));
    Py_DECREF(damaged);
    return damaged == Py_True;
}

/* All records of the work file, read with that limit until there is nothing more. */
static PyObject *read_segment(const char *path, long limit, bool *damaged)
{
    PyObject *reader = made(PyObject_CallFunction(core.segment_reader, "s", path));
    PyObject *all = made(PyList_New(0));
    struct stat info;
    uint64_t before;
    promise(stat(path, &info) == 0, "the work file is there");
    do {
        before = number_of(reader, "offset");
        add_items(all, PyObject_CallMethod(reader, "read", "l", limit));
    } while (number_of(reader, "offset") != before);
    promise(before <= (uint64_t)info.st_size, "no more is read than there is");
    promise(number_of(reader, "rest") <= (uint64_t)info.st_size - before,
            "the rest is of the file");
    *damaged = is_damaged(reader);
    Py_DECREF(reader);
    return all;
}

/* A segment read frame by frame is the segment read at once, and its records can be written again.
 */
static void fuzz_segment(const uint8_t *data, size_t size)
{
    unsigned options = take_byte(&data, &size);
    bool with_head = options & 1, mended = options & 2, compressed = options & 4;
    Buffer file = {0};
    if (with_head) {
        char head[SEGMENT_HEAD_SIZE];
        segment_head(head);
        buffer_append(&file, head, sizeof head);
    }
    size_t start = file.len;
    if (compressed) {
        /* The input is the content of one compressed frame. */
        size_t bound = ZSTD_compressBound(size);
        SegmentFrame frame = {.content_size = (uint32_t)size, .codec = CODEC_ZSTD, .records = 1};
        uint8_t *content = malloc(size + 1);
        char *stored = malloc(bound);
        promise(content != NULL && stored != NULL, "there is memory");
        memcpy(content, data, size);
        mend_records(content, size);
        frame.stored_size = (uint32_t)ZSTD_compress(stored, bound, content, size, 1);
        buffer_append(&file, &frame, sizeof frame);
        buffer_append(&file, stored, frame.stored_size);
        free(stored);
        free(content);
    }
    else {
        buffer_append(&file, data, size);
    }
    if (mended && file.len > start) {
        mend_frames((uint8_t *)file.data + start, file.len - start);
    }
    write_work_file(file.data, file.len);
    buffer_free(&file);

    bool damaged, damaged_too;
    PyObject *at_once = read_segment(work_path, 1 << 30, &damaged);
    PyObject *in_steps = read_segment(work_path, 1, &damaged_too);
    promise(is_equal(at_once, in_steps), "records do not depend on how they are read");
    promise(damaged == damaged_too, "damage does not depend on how it is read");
    check_items(at_once);
    Py_DECREF(in_steps);

    PyObject *records = made(PyList_New(0));
    for (Py_ssize_t i = 0; i < PyList_Size(at_once); i++) {
        PyList_Append(records, PyTuple_GetItem(PyList_GetItem(at_once, i), 3));
    }
    Py_XDECREF(made(PyObject_CallFunction(core.write_segment, "sOi", second_path, records, 1)));
    PyObject *written = read_segment(second_path, 1 << 30, &damaged);
    promise(!damaged && PyList_Size(written) == PyList_Size(records), "what is written is read");
    for (Py_ssize_t i = 0; i < PyList_Size(written); i++) {
        promise(
            is_equal(PyTuple_GetItem(PyList_GetItem(written, i), 3), PyList_GetItem(records, i)),
            "what is written is read");
    }
    Py_DECREF(written);
    Py_DECREF(records);
    Py_DECREF(at_once);
}

/* All records of the ring, read with that limit until there is nothing more. */
static PyObject *drain_ring(PyObject *reader, long limit)
{
    PyObject *all = made(PyList_New(0));
    uint64_t before;
    do {
        before = number_of(reader, "cursor");
        Py_ssize_t count = add_items(all, PyObject_CallMethod(reader, "drain", "l", limit));
        promise(count == 0 || number_of(reader, "cursor") > before, "a reader goes on");
    } while (number_of(reader, "cursor") != before);
    return all;
}

/* A program's ring whose header and content are anything: it is read as far as it is whole, and a
 * reader gets behind all damage. The input has the positions first. */
static void fuzz_ring(const uint8_t *data, size_t size)
{
    unsigned options = take_byte(&data, &size);
    RingHeader *header = (RingHeader *)(void *)ring_map;
    uint8_t content[RING_MIN_CAPACITY], words[32] = {0};
    size_t taken = size < sizeof words ? size : sizeof words;
    memcpy(words, data, taken);
    data += taken;
    size = size - taken < sizeof content ? size - taken : sizeof content;

    memset(ring_map, 0, RING_HEADER_SIZE);
    memcpy(header->magic, RING_MAGIC, RING_MAGIC_SIZE);
    header->version = RING_VERSION;
    header->header_size = RING_HEADER_SIZE;
    header->capacity = RING_MIN_CAPACITY;
    memcpy(&header->tail, words, 8);
    memcpy(&header->head, words + 8, 8);
    memcpy(&header->delivered, words + 16, 8);
    memcpy(&header->spill_sequence, words + 24, 8);
    if (options & 1) {
        header->head = header->tail + size;
    }
    memcpy(content, data, size);
    if (options & 2) {
        mend_records(content, size);
    }
    for (size_t i = 0; i < size; i++) {
        ring_map[RING_HEADER_SIZE + (header->tail + i) % RING_MIN_CAPACITY] = (char)content[i];
    }

    PyObject *reader = made(PyObject_CallFunction(core.ring_reader, "s", work_path));
    PyObject *other = made(PyObject_CallFunction(core.ring_reader, "s", work_path));
    PyObject *at_once = drain_ring(reader, 1 << 30), *in_steps = drain_ring(other, 1);
    promise(is_equal(at_once, in_steps), "records do not depend on how they are read");
    promise(is_damaged(reader) == is_damaged(other), "damage does not depend on how it is read");
    check_items(at_once);

    uint64_t cursor = number_of(reader, "cursor");
    promise(cursor >= header->tail, "a reader does not go back");
    promise(PyList_Size(at_once) == 0 || cursor <= header->head, "no more is read than there is");
    PyObject *refused = PyObject_CallMethod(reader, "release", "K", (unsigned long long)cursor + 1);
    promise(cursor == UINT64_MAX || refused == NULL, "what was not read is not given back");
    Py_XDECREF(refused);
    PyErr_Clear();
    Py_DECREF(made(PyObject_CallMethod(reader, "release", "K", (unsigned long long)cursor)));
    Py_DECREF(made(PyObject_CallMethod(reader, "set_delivered", "K", (unsigned long long)cursor)));
    Py_DECREF(made(PyObject_CallMethod(reader, "skip_damage", NULL)));
    promise(!is_damaged(reader) && number_of(reader, "cursor") == header->head,
            "a reader gets behind all damage");
    Py_DECREF(at_once);
    at_once = drain_ring(reader, 1 << 30);
    promise(PyList_Size(at_once) == 0, "behind all that there is, there is nothing");
    Py_DECREF(at_once);
    Py_DECREF(in_steps);
    Py_DECREF(other);
    Py_DECREF(reader);
}

/* ---- the program ---- */

static const struct {
    const char *name;
    void (*run)(const uint8_t *data, size_t size);
} targets[] = {
    {"record", fuzz_record}, {"segment", fuzz_segment}, {"ring", fuzz_ring},
    {"decode", fuzz_decode}, {"otlp", fuzz_otlp},       {"json_text", fuzz_json_text},
};

static void (*target)(const uint8_t *data, size_t size);

static void remove_work_files(void)
{
    unlink(work_path);
    unlink(second_path);
}

static PyObject *function(const char *name)
{
    return made(PyObject_GetAttrString(core.module, name));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const char *wanted = getenv("FUZZ_TARGET");
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (wanted != NULL && strcmp(targets[i].name, wanted) == 0) {
            target = targets[i].run;
        }
    }
    promise(target != NULL, "FUZZ_TARGET names a target");
    promise(PyImport_AppendInittab("_core", PyInit__core) == 0, "the core is built in");
    Py_InitializeEx(0);
    Py_SetRecursionLimit(20000); /* json.loads() reads fewer levels than decode() otherwise */
    core.module = made(PyImport_ImportModule("_core"));
    core.decode = function("decode");
    core.encode = function("encode");
    core.json_text = function("json_text");
    core.span_json = function("span_json");
    core.span_summary = function("span_summary");
    core.otlp_request = function("otlp_request");
    core.collector_request = function("collector_request");
    core.ring_reader = function("RingReader");
    core.segment_reader = function("SegmentReader");
    core.write_segment = function("write_segment");
    PyObject *json = made(PyImport_ImportModule("json"));
    core.loads = made(PyObject_GetAttrString(json, "loads"));
    Py_DECREF(json);

    const char *folder = getenv(FOLDER_VARIABLE);
    promise(folder != NULL, FOLDER_VARIABLE " names a folder");
    snprintf(work_path, sizeof work_path, "%s/%d", folder, (int)getpid());
    snprintf(second_path, sizeof second_path, "%s-written", work_path);
    work_fd = open(work_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    promise(work_fd >= 0, "the work file can be made");
    atexit(remove_work_files);
    if (target == fuzz_ring) {
        size_t size = RING_HEADER_SIZE + RING_MIN_CAPACITY;
        promise(ftruncate(work_fd, (off_t)size) == 0, "the work file can grow");
        ring_map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, work_fd, 0);
        promise(ring_map != MAP_FAILED, "the work file can be mapped");
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    target(data, size);
    promise(PyErr_Occurred() == NULL, "no exception is left behind");
    return 0;
}
