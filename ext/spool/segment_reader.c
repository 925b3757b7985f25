/* segment_reader.c: a segment, frame by frame. The file is somebody else's: nothing in it is
 * believed. */
#include "spool/segment_reader.h"

#include "record/frame.h"
#include "spool/paths.h"
#include "spool/segment_format.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

typedef struct {
    PyObject_HEAD int fd;
    uint64_t offset; /* of the next frame */
    PyObject *path;  /* owned; bytes */
    bool damaged;
    bool reused; /* the pages are, or may become, another segment's */
} SegmentReader;

static PyObject *segment_reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", NULL};
    PyObject *path = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&:SegmentReader", names, PyUnicode_FSConverter,
                                     &path)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    SegmentReader *reader = (SegmentReader *)alloc(type, 0);
    if (reader == NULL) {
        goto done;
    }
    reader->fd = -1;
    reader->path = Py_NewRef(path);
    if (open_private(path, O_RDONLY, &reader->fd) < 0) {
        Py_CLEAR(reader);
    }
done:
    Py_DECREF(path);
    return (PyObject *)reader;
}

static void segment_reader_dealloc(SegmentReader *reader)
{
    PyTypeObject *type = Py_TYPE(reader);
    if (reader->fd >= 0) {
        close(reader->fd);
    }
    Py_XDECREF(reader->path);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(reader);
    Py_DECREF(type);
}

/* ---- frames ---- */

/* A failure to read as an exception. */
static ReadResult checked(ReadResult result)
{
    if (result == READ_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return result;
}

/* Bytes of the file behind the last whole frame; 0 where all of them are zeros, which are room for
 * frames to come, or SEGMENT_END stands there. -1 with an exception. */
static int64_t bytes_that_follow(const SegmentReader *reader, uint64_t file_size)
{
    char bytes[4096];
    uint64_t offset = reader->offset;
    char end_mark[SEGMENT_END_SIZE];
    ReadResult got = checked(read_at(reader->fd, offset, end_mark, sizeof end_mark));
    if (got == READ_FAILED) {
        return -1;
    }
    if (got == READ_WHOLE && memcmp(end_mark, SEGMENT_END, sizeof end_mark) == 0) {
        return 0;
    }
    for (uint64_t at = offset; at < file_size;) {
        ssize_t n = pread(reader->fd, bytes, sizeof bytes, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (n == 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] != 0) {
                return (int64_t)(file_size - offset);
            }
        }
        at += (uint64_t)n;
    }
    return 0;
}

typedef enum {
    FRAME_READ,    /* its records are in the list */
    FRAME_MISSING, /* there is none, or not yet */
    FRAME_DAMAGED,
    FRAME_FAILED, /* an exception is set */
} FrameResult;

/* Reads the head of the next frame, as far as it can be one. */
static FrameResult read_head(const SegmentReader *reader, SegmentFrame *frame)
{
    ReadResult got = checked(read_at(reader->fd, reader->offset, frame, sizeof *frame));
    if (got != READ_WHOLE) {
        return got == READ_ENDS ? FRAME_MISSING : FRAME_FAILED;
    }
    if (frame->content_size == 0 && frame->stored_size == 0) {
        return FRAME_MISSING; /* not written yet: these come last (mapped.c) */
    }
    if (frame->content_size > BUFFER_MAX || frame->stored_size > BUFFER_MAX ||
        frame->codec > CODEC_ZSTD ||
        (frame->codec == CODEC_RAW && frame->stored_size != frame->content_size)) {
        return FRAME_DAMAGED;
    }
    struct stat info;
    if (fstat(reader->fd, &info) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return FRAME_FAILED;
    }
    if ((uint64_t)info.st_size < reader->offset + sizeof *frame + frame->stored_size) {
        return FRAME_MISSING; /* still being written, or cut off */
    }
    return FRAME_READ;
}

/* The content of a compressed frame in *content, which the caller frees. */
static FrameResult decompress(const SegmentFrame *frame, const char *stored, char **content)
{
    /* What claims another size is not unpacked to find that out. */
    if (ZSTD_getFrameContentSize(stored, frame->stored_size) != frame->content_size) {
        return FRAME_DAMAGED;
    }
    *content = malloc(frame->content_size + 1u);
    if (*content == NULL) {
        PyErr_NoMemory();
        return FRAME_FAILED;
    }
    size_t size = ZSTD_decompress(*content, frame->content_size, stored, frame->stored_size);
    if (ZSTD_isError(size) && ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation) {
        PyErr_NoMemory();
        return FRAME_FAILED;
    }
    return ZSTD_isError(size) || size != frame->content_size ? FRAME_DAMAGED : FRAME_READ;
}

/* Reads a large frame that a program has spilled, which holds one record, straight into the object
 * that the record becomes. FRAME_DAMAGED also where it is no such frame. */
static FrameResult read_one_record(SegmentReader *reader, const SegmentFrame *frame, PyObject *list)
{
    RecordHead head;
    char rest[8];
    uint64_t at = reader->offset + sizeof *frame;
    ReadResult got = checked(read_at(reader->fd, at, &head, sizeof head));
    if (got != READ_WHOLE) {
        return got == READ_ENDS ? FRAME_MISSING : FRAME_FAILED;
    }
    if (RECORD_FRAME_SIZE((uint64_t)head.length) != frame->stored_size) {
        return FRAME_DAMAGED;
    }
    PyObject *record = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)head.length);
    if (record == NULL) {
        return FRAME_FAILED;
    }
    char *bytes = PyBytes_AsString(record);
    FrameResult result = FRAME_FAILED;
    size_t padding = RECORD_PADDING(head.length);
    got = checked(read_at(reader->fd, at + sizeof head, bytes, head.length));
    if (got == READ_WHOLE) {
        got = checked(read_at(reader->fd, at + sizeof head + head.length, rest, padding));
    }
    if (got != READ_WHOLE) {
        result = got == READ_ENDS ? FRAME_MISSING : FRAME_FAILED;
        goto done;
    }
    Checksum checksum;
    checksum_begin(&checksum, frame->stored_size);
    checksum_add(&checksum, &head, sizeof head);
    checksum_add(&checksum, bytes, head.length);
    checksum_add(&checksum, rest, padding);
    if (checksum_end(&checksum) != frame->checksum ||
        checksum32(bytes, head.length) != head.checksum) {
        result = FRAME_DAMAGED;
        goto done;
    }
    if (frames_add(list, reader->offset + frame->stored_size, record) == 0) {
        reader->offset += sizeof *frame + frame->stored_size;
        result = FRAME_READ;
    }
done:
    Py_DECREF(record);
    return result;
}

/* Reads the next frame once: its records are appended to the list. */
static FrameResult try_frame(SegmentReader *reader, PyObject *list)
{
    SegmentFrame frame;
    char *stored = NULL, *content = NULL;
    size_t used;

    FrameResult result = read_head(reader, &frame);
    if (result != FRAME_READ) {
        return result;
    }
    if (frame.codec == CODEC_RAW && frame.records == 1 && frame.stored_size > BUFFER_LARGE) {
        result = read_one_record(reader, &frame, list);
        if (result != FRAME_DAMAGED) {
            return result;
        }
    }
    stored = malloc(frame.stored_size + 1u);
    if (stored == NULL) {
        PyErr_NoMemory();
        return FRAME_FAILED;
    }
    ReadResult got =
        checked(read_at(reader->fd, reader->offset + sizeof frame, stored, frame.stored_size));
    if (got != READ_WHOLE) {
        result = got == READ_ENDS ? FRAME_MISSING : FRAME_FAILED;
        goto done;
    }
    if (checksum64(stored, frame.stored_size) != frame.checksum) {
        result = FRAME_DAMAGED;
        goto done;
    }
    if (frame.codec == CODEC_ZSTD) {
        result = decompress(&frame, stored, &content);
        if (result != FRAME_READ) {
            goto done;
        }
        free(stored);
        stored = NULL;
    }
    FramesResult framed = frames_to_list(list, content != NULL ? content : stored,
                                         frame.content_size, reader->offset, &used);
    if (framed == FRAMES_FAILED) {
        result = FRAME_FAILED;
        goto done;
    }
    /* The frame's checksum is right, so its content was written damaged: the records behind the
     * damage are lost, and the segment is read no further. */
    reader->damaged = framed == FRAMES_DAMAGED || used != frame.content_size;
    reader->offset += sizeof frame + frame.stored_size;
done:
    free(stored);
    free(content);
    return result;
}

/* Reads the next frame; damage is noted in the reader. A program may be writing the frame: its
 * first eight bytes appear last (mapped.c), but the read may have copied the others before. A frame
 * that seems damaged is therefore read once more. */
static FrameResult read_frame(SegmentReader *reader, PyObject *list)
{
    FrameResult result = try_frame(reader, list);
    if (result == FRAME_DAMAGED) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        result = try_frame(reader, list);
    }
    reader->damaged |= result == FRAME_DAMAGED;
    return result;
}

/* Reads the segment's own head, where that has not been done. */
static FrameResult begin(SegmentReader *reader)
{
    char head[SEGMENT_HEAD_SIZE], expected[SEGMENT_HEAD_SIZE];
    if (reader->offset > 0) {
        return FRAME_READ;
    }
    segment_head(expected);
    ReadResult got = checked(read_at(reader->fd, 0, head, sizeof head));
    if (got != READ_WHOLE) {
        return got == READ_ENDS ? FRAME_MISSING : FRAME_FAILED;
    }
    if (memcmp(head, expected, sizeof head) != 0) {
        reader->damaged = true;
        return FRAME_DAMAGED;
    }
    reader->offset = sizeof head;
    return FRAME_READ;
}

/* Looks whether what was read before this call belongs to the segment. Memory gets another name
 * before it is used again, so it does while the file has the segment's name, or no name at all. */
static FrameResult look_at_name(SegmentReader *reader)
{
    struct stat file, named = {0};
    if (fstat(reader->fd, &file) != 0 ||
        (lstat(path_bytes(reader->path), &named) != 0 && errno != ENOENT)) {
        PyErr_SetFromErrno(PyExc_OSError); /* a network's folder may not answer now */
        return FRAME_FAILED;
    }
    reader->reused =
        file.st_nlink > 0 && (named.st_ino != file.st_ino || named.st_dev != file.st_dev);
    return FRAME_READ;
}

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
    if (reader->damaged || reader->reused) {
        return list;
    }
    FrameResult result = begin(reader);
    uint64_t start = reader->offset;
    while (result == FRAME_READ && !reader->damaged && reader->offset - start < limit) {
        result = read_frame(reader, list);
    }
    if (result != FRAME_FAILED) {
        result = look_at_name(reader);
    }
    if (result != FRAME_FAILED && reader->reused) {
        reader->damaged = false;
        result = PyList_SetSlice(list, 0, PyList_Size(list), NULL) == 0 ? FRAME_READ : FRAME_FAILED;
    }
    if (result == FRAME_FAILED) {
        reader->offset = start; /* what the list held is read again */
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *segment_reader_move(SegmentReader *reader, PyObject *arg)
{
    PyObject *path;
    int fd;
    if (!PyUnicode_FSConverter(arg, &path)) {
        return NULL;
    }
    if (open_private(path, O_RDONLY, &fd) < 0) {
        Py_DECREF(path);
        return NULL;
    }
    PyObject *before = reader->path;
    close(reader->fd);
    reader->fd = fd;
    reader->path = path;
    Py_DECREF(before);
    Py_RETURN_NONE;
}

static PyObject *segment_reader_rewind(SegmentReader *reader, PyObject *arg)
{
    unsigned long long offset = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (offset > reader->offset) {
        PyErr_Format(PyExc_ValueError, "offset %llu has not been read yet: the reader is at %llu",
                     offset, (unsigned long long)reader->offset);
        return NULL;
    }
    reader->offset = offset;
    reader->damaged = false;
    Py_RETURN_NONE;
}

static PyObject *segment_reader_get_damaged(SegmentReader *reader, void *unused)
{
    (void)unused;
    return PyBool_FromLong(reader->damaged);
}

static PyObject *segment_reader_get_reused(SegmentReader *reader, void *unused)
{
    (void)unused;
    return PyBool_FromLong(reader->reused);
}

static PyObject *segment_reader_get_offset(SegmentReader *reader, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(reader->offset);
}

static PyObject *segment_reader_get_rest(SegmentReader *reader, void *unused)
{
    (void)unused;
    struct stat info;
    if (fstat(reader->fd, &info) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    int64_t rest = bytes_that_follow(reader, (uint64_t)info.st_size);
    return rest < 0 ? NULL : PyLong_FromLongLong(rest);
}

static PyObject *segment_reader_is_written(SegmentReader *reader, PyObject *unused)
{
    (void)unused;
    struct stat info;
    if (is_locked(reader->fd)) {
        Py_RETURN_TRUE;
    }
    if (fstat(reader->fd, &info) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyBool_FromLong(info.st_size < SEGMENT_HEAD_SIZE);
}

static PyMethodDef segment_reader_methods[] = {
    {"is_written", (PyCFunction)segment_reader_is_written, METH_NOARGS,
     "is_written($self, /)\n--\n\n"
     "Whether a program still writes to it, or has just made it: it is locked, or has no head "
     "yet.\n\n"
     "Raises OSError."},
    {"read", (PyCFunction)segment_reader_read, METH_O,
     "read($self, limit, /)\n--\n\n"
     "The records of whole frames, about `limit` bytes of file, as (position, kind, trace id,\n"
     "record).\n\n"
     "Raises OSError or MemoryError; the reader stays where it was then."},
    {"move", (PyCFunction)segment_reader_move, METH_O,
     "move($self, path, /)\n--\n\n"
     "Go on in another file, which has the same frames. Raises OSError where it cannot be opened."},
    {"rewind", (PyCFunction)segment_reader_rewind, METH_O,
     "rewind($self, offset, /)\n--\n\n"
     "Read again from an offset where read() began before. Raises ValueError where it has not "
     "been\n"
     "read."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef segment_reader_getset[] = {
    {"damaged", (getter)segment_reader_get_damaged, NULL, "Whether damage was found.", NULL},
    {"reused", (getter)segment_reader_get_reused, NULL,
     "Whether the file has another name now: all of it is delivered, and its memory used again.",
     NULL},
    {"offset", (getter)segment_reader_get_offset, NULL, "Bytes read so far.", NULL},
    {"rest", (getter)segment_reader_get_rest, NULL,
     "Bytes of the file behind the last whole frame; 0 where all of them are zeros, or mean "
     "nothing.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot segment_reader_slots[] = {
    {Py_tp_new, segment_reader_new},
    {Py_tp_dealloc, segment_reader_dealloc},
    {Py_tp_methods, segment_reader_methods},
    {Py_tp_getset, segment_reader_getset},
    {Py_tp_doc, "SegmentReader(path)\n--\n\nA segment, read frame by frame."},
    {0, NULL},
};

static PyType_Spec segment_reader_spec = {
    .name = "mlflow_fasttrace._core.SegmentReader",
    .basicsize = sizeof(SegmentReader),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = segment_reader_slots,
};

int segment_reader_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &segment_reader_spec, &state->types.segment_reader,
                          "SegmentReader");
}
