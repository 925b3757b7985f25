/* segment.c: what outgrows a ring.
 *
 *   segment  head, then frames
 *   head     "MFTSEG1\0", u32 version, u32 zero
 *   frame    u32 size of the content, u32 size as stored, u32 codec (0 as it is, 1 zstd),
 *            u32 records, u64 checksum of the stored bytes, the stored bytes
 *   content  records, each behind its 8-byte head (record.h)
 *
 * Integers are little-endian. A frame stands for itself: damage yields what precedes it, and a
 * frame that is still being written simply is not there yet: the file ends, or there are zeros. */
#include "segment.h"

#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define SEGMENT_VERSION 1
#define FRAME_CONTENT_TARGET ((size_t)256 << 10)

static const char SEGMENT_MAGIC[8] = "MFTSEG1";

enum { CODEC_RAW = 0, CODEC_ZSTD = 1 };

typedef struct {
    uint32_t content_size;
    uint32_t stored_size;
    uint32_t codec;
    uint32_t records;
    uint64_t checksum;
} FrameHead;

void segment_head(char *head)
{
    uint32_t words[2] = {SEGMENT_VERSION, 0};
    memcpy(head, SEGMENT_MAGIC, sizeof SEGMENT_MAGIC);
    memcpy(head + sizeof SEGMENT_MAGIC, words, sizeof words);
}

bool segment_raw_frame(Buffer *out, const Buffer *record)
{
    size_t content = RECORD_FRAME_SIZE(record->len);
    FrameHead head = {.content_size = (uint32_t)content,
                      .stored_size = (uint32_t)content,
                      .codec = CODEC_RAW,
                      .records = 1};
    buffer_append(out, &head, sizeof head);
    size_t start = out->len;
    frame_append(out, record->data, record->len);
    if (out->failed) {
        return false;
    }
    head.checksum = checksum64(out->data + start, content);
    memcpy(out->data + start - sizeof head, &head, sizeof head);
    return true;
}

bool write_whole(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
    }
    return true;
}

/* ---- writing, by the sender ---- */

static bool put_frame(int fd, const Buffer *content, uint32_t records, Buffer *stored, int level)
{
    size_t bound = ZSTD_compressBound(content->len);
    buffer_clear(stored);
    if (!buffer_reserve(stored, bound)) {
        errno = ENOMEM;
        return false;
    }
    size_t size = ZSTD_compress(stored->data, stored->cap, content->data, content->len, level);
    FrameHead head = {.content_size = (uint32_t)content->len, .records = records};
    const char *bytes = stored->data;
    head.codec = CODEC_ZSTD;
    if (ZSTD_isError(size) || size >= content->len) {
        head.codec = CODEC_RAW;
        bytes = content->data;
        size = content->len;
    }
    head.stored_size = (uint32_t)size;
    head.checksum = checksum64(bytes, size);
    return write_whole(fd, &head, sizeof head) && write_whole(fd, bytes, size);
}

/* Writes under another name and renames: a segment is there whole or not at all. */
static int write_records(const char *path, PyObject *records, int level, unsigned long long *size)
{
    char fresh[4096];
    Buffer content = {0}, stored = {0};
    int fd = -1, result = -1;
    uint32_t count = 0;

    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh) {
        errno = ENAMETOOLONG;
        goto done;
    }
    /* O_NONBLOCK: a pipe under this name is an error, not waited for. */
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        goto done;
    }
    char head[SEGMENT_HEAD_SIZE];
    segment_head(head);
    if (!write_whole(fd, head, sizeof head)) {
        goto done;
    }
    Py_ssize_t total = PyList_Size(records);
    for (Py_ssize_t i = 0; i < total; i++) {
        char *record;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyList_GetItem(records, i), &record, &length) < 0) {
            goto done;
        }
        frame_append(&content, record, (size_t)length);
        count++;
        if (content.failed) {
            errno = ENOMEM;
            goto done;
        }
        if (content.len >= FRAME_CONTENT_TARGET || i == total - 1) {
            if (!put_frame(fd, &content, count, &stored, level)) {
                goto done;
            }
            buffer_clear(&content);
            count = 0;
        }
    }
    struct stat info;
    if (fstat(fd, &info) != 0 || rename(fresh, path) != 0) {
        goto done;
    }
    *size = (unsigned long long)info.st_size;
    result = 0;
done:
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        if (result != 0) {
            unlink(fresh);
        }
        errno = saved;
    }
    buffer_free(&content);
    buffer_free(&stored);
    return result;
}

PyObject *segment_write(PyObject *module, PyObject *args)
{
    (void)module;
    const char *path;
    PyObject *records;
    int level;
    unsigned long long size = 0;
    if (!PyArg_ParseTuple(args, "sO!i:write_segment", &path, &PyList_Type, &records, &level)) {
        return NULL;
    }
    if (write_records(path, records, level, &size) != 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
        }
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(size);
}

/* ---- reading ---- */

typedef struct {
    PyObject_HEAD int fd;
    uint64_t offset; /* of the next frame */
    bool damaged;
} SegmentReader;

static PyObject *segment_reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", NULL};
    const char *path;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:SegmentReader", names, &path)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    SegmentReader *reader = (SegmentReader *)alloc(type, 0);
    if (reader == NULL) {
        return NULL;
    }
    struct stat info;
    /* O_NONBLOCK: a pipe under this name is refused, not waited for. */
    reader->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (reader->fd < 0 || fstat(reader->fd, &info) != 0) {
        goto error;
    }
    if (!S_ISREG(info.st_mode) || info.st_uid != geteuid()) {
        errno = EPERM;
        goto error;
    }
    return (PyObject *)reader;
error:
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    Py_DECREF(reader);
    return NULL;
}

static void segment_reader_dealloc(SegmentReader *reader)
{
    PyTypeObject *type = Py_TYPE(reader);
    if (reader->fd >= 0) {
        close(reader->fd);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(reader);
    Py_DECREF(type);
}

/* 1 when read, 0 when the file ends before, -1 on an error. */
static int get(int fd, uint64_t offset, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -1 : 0;
        }
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 1;
}

/* Whether the file holds nothing but zeros from there on: place for frames to come. 1, 0, or -1
 * with errno. */
static int only_zeros_follow(int fd, uint64_t offset)
{
    char bytes[4096];
    for (;;) {
        ssize_t n = pread(fd, bytes, sizeof bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -1 : 1;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] != 0) {
                return 0;
            }
        }
        offset += (uint64_t)n;
    }
}

/* One try of read_frame. */
static int try_frame(SegmentReader *reader, PyObject *list)
{
    FrameHead head;
    char *stored = NULL, *content = NULL;
    int result = -1;

    int got = get(reader->fd, reader->offset, &head, sizeof head);
    if (got <= 0) {
        if (got < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        return got;
    }
    if (head.content_size == 0 && head.stored_size == 0) {
        return 0; /* not written yet: these come last (mapped.c) */
    }
    if (head.content_size > BUFFER_MAX || head.stored_size > BUFFER_MAX ||
        head.codec > CODEC_ZSTD ||
        (head.codec == CODEC_RAW && head.stored_size != head.content_size)) {
        reader->damaged = true;
        return 0;
    }
    struct stat info;
    if (fstat(reader->fd, &info) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    uint64_t after = reader->offset + sizeof head + head.stored_size;
    if ((uint64_t)info.st_size < after) {
        return 0; /* still being written, or cut off */
    }
    stored = malloc(head.stored_size + 1u);
    if (stored == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    got = get(reader->fd, reader->offset + sizeof head, stored, head.stored_size);
    if (got < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto done;
    }
    if (got == 0) {
        result = 0;
        goto done;
    }
    result = 0;
    if (checksum64(stored, head.stored_size) != head.checksum) {
        reader->damaged = true;
        goto done;
    }
    const char *bytes = stored;
    if (head.codec == CODEC_ZSTD) {
        if (ZSTD_getFrameContentSize(stored, head.stored_size) != head.content_size) {
            reader->damaged = true; /* it is not unpacked to find that out */
            goto done;
        }
        content = malloc(head.content_size + 1u);
        if (content == NULL) {
            result = -1;
            PyErr_NoMemory();
            goto done;
        }
        size_t size = ZSTD_decompress(content, head.content_size, stored, head.stored_size);
        if (ZSTD_isError(size) || size != head.content_size) {
            reader->damaged = true;
            goto done;
        }
        bytes = content;
    }
    size_t used;
    int framed = frames_to_list(list, bytes, head.content_size, reader->offset, &used);
    if (framed < 0) {
        result = -1;
        goto done;
    }
    if (framed > 0 || used != head.content_size) {
        reader->damaged = true;
    }
    reader->offset = after;
    result = 1;
done:
    free(stored);
    free(content);
    return result;
}

/* The next frame's records, appended to the list. 1 when there was one, 0 when there is none (or
 * not yet), -1 with an exception; damage is noted in the reader. */
static int read_frame(SegmentReader *reader, PyObject *list)
{
    int got = try_frame(reader, list);
    if (got == 0 && reader->damaged) {
        /* Or an agent was just writing it: it was there before its first bytes were. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        reader->damaged = false;
        got = try_frame(reader, list);
    }
    return got;
}

/* read(limit): records of whole frames, about `limit` bytes of file, as
 * (position, kind, trace id, record). */
static PyObject *segment_reader_read(SegmentReader *reader, PyObject *arg)
{
    unsigned long long limit = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    if (reader->offset == 0 && !reader->damaged) {
        char head[SEGMENT_HEAD_SIZE], expected[SEGMENT_HEAD_SIZE];
        segment_head(expected);
        int got = get(reader->fd, 0, head, sizeof head);
        if (got < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            Py_DECREF(list);
            return NULL;
        }
        if (got == 0) {
            return list;
        }
        if (memcmp(head, expected, sizeof head) != 0) {
            reader->damaged = true;
        }
        else {
            reader->offset = sizeof head;
        }
    }
    uint64_t start = reader->offset;
    while (!reader->damaged && reader->offset - start < limit) {
        int got = read_frame(reader, list);
        if (got < 0) {
            reader->offset = start; /* what the list held is read again */
            Py_DECREF(list);
            return NULL;
        }
        if (got == 0) {
            break;
        }
    }
    return list;
}

static PyObject *segment_reader_get_damaged(SegmentReader *reader, void *unused)
{
    (void)unused;
    return PyBool_FromLong(reader->damaged);
}

static PyObject *segment_reader_get_offset(SegmentReader *reader, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(reader->offset);
}

/* Whether something behind the last whole frame is not one: a frame cut off or being written. */
static PyObject *segment_reader_get_rest(SegmentReader *reader, void *unused)
{
    (void)unused;
    struct stat info;
    if (fstat(reader->fd, &info) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    uint64_t size = (uint64_t)info.st_size;
    int free = size > reader->offset ? only_zeros_follow(reader->fd, reader->offset) : 1;
    if (free < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromUnsignedLongLong(free ? 0 : size - reader->offset);
}

static PyMethodDef segment_reader_methods[] = {
    {"read", (PyCFunction)segment_reader_read, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef segment_reader_getset[] = {
    {"damaged", (getter)segment_reader_get_damaged, NULL, NULL, NULL},
    {"offset", (getter)segment_reader_get_offset, NULL, NULL, NULL},
    {"rest", (getter)segment_reader_get_rest, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot segment_reader_slots[] = {
    {Py_tp_new, segment_reader_new},
    {Py_tp_dealloc, segment_reader_dealloc},
    {Py_tp_methods, segment_reader_methods},
    {Py_tp_getset, segment_reader_getset},
    {Py_tp_doc, "Reads a segment frame by frame: SegmentReader(path)."},
    {0, NULL},
};

static PyType_Spec segment_reader_spec = {
    .name = "mlflow_fasttrace._core.SegmentReader",
    .basicsize = sizeof(SegmentReader),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = segment_reader_slots,
};

int segment_add_types(PyObject *module, CoreState *state)
{
    return state_add_type(module, &segment_reader_spec, &state->segment_reader_type,
                          "SegmentReader");
}
