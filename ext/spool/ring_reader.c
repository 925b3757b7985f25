/* ring_reader.c: the sender's end of a ring. The file is another process's: nothing in it is
 * believed.
 */
#include "spool/ring_reader.h"

#include "base/clock.h"
#include "record/frame.h"
#include "spool/paths.h"
#include "spool/ring_layout.h"
#include "spool/ring_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD RingHeader *header;
    const char *data;
    uint64_t capacity;
    uint64_t cursor; /* read so far; tail <= cursor <= head, of a sender */
    int fd;          /* asks whether the program lives; -1 where that is this process */
    bool damaged;
} RingReader;

/* Lets the reader begin with a ring that is mapped. */
static void reader_begin(RingReader *reader, void *map, uint64_t capacity)
{
    reader->header = map;
    reader->data = (const char *)map + RING_HEADER_SIZE;
    reader->capacity = capacity;
    reader->cursor = load_acquire(&reader->header->tail);
}

/* Whether the head of a file of that size is a ring's. */
static bool is_ring(const RingHeader *head, int64_t size)
{
    return memcmp(head->magic, RING_MAGIC, RING_MAGIC_SIZE) == 0 && head->version == RING_VERSION &&
           head->header_size == RING_HEADER_SIZE && head->capacity >= RING_MIN_CAPACITY &&
           head->capacity <= RING_MAX_CAPACITY &&
           (uint64_t)size == RING_HEADER_SIZE + head->capacity;
}

/* Maps what claims to be a ring. 0, or -1 with an exception. */
static int reader_open(RingReader *reader, PyObject *path)
{
    RingHeader head;
    int64_t size = open_private(path, O_RDWR, &reader->fd);
    if (size < 0) {
        return -1;
    }
    ReadResult got = read_at(reader->fd, 0, &head, sizeof head);
    if (got == READ_FAILED) {
        path_error(path, errno, NULL);
        return -1;
    }
    if (got == READ_ENDS || !is_ring(&head, size)) {
        path_error(path, EINVAL, "it is not a ring, or its header is damaged");
        return -1;
    }
    void *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, reader->fd, 0);
    if (map == MAP_FAILED) {
        path_error(path, errno, NULL);
        return -1;
    }
    reader_begin(reader, map, head.capacity);
    return 0;
}

/* Maps a ring of this process. 0, or -1 with an exception. */
static int reader_share(RingReader *reader, Ring *ring)
{
    uint64_t capacity;
    void *map = ring_map_again(ring, &capacity);
    if (map == NULL) {
        return -1;
    }
    reader_begin(reader, map, capacity);
    return 0;
}

static PyObject *ring_reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ring", NULL};
    PyObject *ring, *path = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:RingReader", names, &ring)) {
        return NULL;
    }
    bool in_process = PyObject_TypeCheck(ring, state_of_type(type)->types.ring_writer);
    if (!in_process && !PyUnicode_FSConverter(ring, &path)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    RingReader *reader = (RingReader *)alloc(type, 0);
    if (reader == NULL) {
        goto done;
    }
    reader->fd = -1;
    if ((in_process ? reader_share(reader, (Ring *)ring) : reader_open(reader, path)) != 0) {
        Py_CLEAR(reader);
    }
done:
    Py_XDECREF(path);
    return (PyObject *)reader;
}

static void reader_close(RingReader *reader)
{
    if (reader->header != NULL) {
        munmap(reader->header, RING_HEADER_SIZE + (size_t)reader->capacity);
        reader->header = NULL;
    }
    if (reader->fd >= 0) {
        close(reader->fd);
        reader->fd = -1;
    }
}

static void ring_reader_dealloc(RingReader *reader)
{
    PyTypeObject *type = Py_TYPE(reader);
    reader_close(reader);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(reader);
    Py_DECREF(type);
}

static bool reader_usable(RingReader *reader)
{
    if (reader->header == NULL) {
        PyErr_SetString(PyExc_ValueError, "the ring is closed");
        return false;
    }
    return true;
}

static PyObject *ring_reader_close(RingReader *reader, PyObject *unused)
{
    (void)unused;
    reader_close(reader);
    Py_RETURN_NONE;
}

static PyObject *ring_reader_drain(RingReader *reader, PyObject *arg)
{
    unsigned long long limit = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred() || !reader_usable(reader)) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    uint64_t head = load_acquire(&reader->header->head);
    if (head < reader->cursor || head - reader->cursor > reader->capacity) {
        reader->damaged = true;
    }
    if (reader->damaged || head == reader->cursor) {
        return list;
    }
    uint64_t size = head - reader->cursor, appended = size;
    if (size > limit) {
        /* A record that is larger than the limit is read all the same. */
        RecordHead first = {0};
        for (size_t i = 0; i < sizeof first; i++) {
            ((char *)&first)[i] = reader->data[(reader->cursor + i) % reader->capacity];
        }
        uint64_t least = RECORD_FRAME_SIZE((uint64_t)first.length);
        size = limit > least ? limit : least < size ? least : size;
    }
    uint64_t at = reader->cursor % reader->capacity;
    const char *bytes = reader->data + at;
    char *copy = NULL;
    if (size > reader->capacity - at) {
        copy = malloc((size_t)size);
        if (copy == NULL) {
            Py_DECREF(list);
            return PyErr_NoMemory();
        }
        size_t first = (size_t)(reader->capacity - at);
        memcpy(copy, bytes, first);
        memcpy(copy + first, reader->data, (size_t)size - first);
        bytes = copy;
    }
    size_t used;
    FramesResult result = frames_to_list(list, bytes, (size_t)size, reader->cursor, &used);
    free(copy);
    if (result == FRAMES_FAILED) {
        Py_DECREF(list);
        return NULL;
    }
    /* The program publishes whole records, so a record that passes the head has a damaged length.
     */
    reader->damaged = result == FRAMES_DAMAGED || (size == appended && used < size);
    reader->cursor += used;
    return list;
}

static PyObject *ring_reader_skip_damage(RingReader *reader, PyObject *unused)
{
    (void)unused;
    if (!reader_usable(reader)) {
        return NULL;
    }
    uint64_t head = load_acquire(&reader->header->head);
    uint64_t lost = head > reader->cursor ? head - reader->cursor : 0;
    reader->cursor = head;
    reader->damaged = false;
    return PyLong_FromUnsignedLongLong(lost);
}

static int position_from(RingReader *reader, PyObject *arg, uint64_t *position)
{
    *position = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred() || !reader_usable(reader)) {
        return -1;
    }
    if (*position > reader->cursor) {
        PyErr_Format(PyExc_ValueError, "position %llu has not been read yet: the reader is at %llu",
                     (unsigned long long)*position, (unsigned long long)reader->cursor);
        return -1;
    }
    return 0;
}

static PyObject *ring_reader_rewind(RingReader *reader, PyObject *arg)
{
    uint64_t position;
    if (position_from(reader, arg, &position) < 0) {
        return NULL;
    }
    uint64_t tail = load_acquire(&reader->header->tail);
    if (position < tail) {
        return PyErr_Format(PyExc_ValueError, "position %llu is given back: the tail is at %llu",
                            (unsigned long long)position, (unsigned long long)tail);
    }
    reader->cursor = position;
    Py_RETURN_NONE;
}

static PyObject *ring_reader_look_back(RingReader *reader, PyObject *unused)
{
    (void)unused;
    if (!reader_usable(reader)) {
        return NULL;
    }
    /* Behind the first round nobody knows where among the delivered records one begins. What the
     * program writes over while it is read shows in the checksums. */
    uint64_t head = load_acquire(&reader->header->head);
    if (head > reader->capacity) {
        Py_RETURN_FALSE;
    }
    reader->cursor = 0;
    Py_RETURN_TRUE;
}

static PyObject *ring_reader_release(RingReader *reader, PyObject *arg)
{
    uint64_t position;
    if (position_from(reader, arg, &position) < 0) {
        return NULL;
    }
    if (position > reader->header->tail) {
        store_release(&reader->header->tail, position);
    }
    Py_RETURN_NONE;
}

static PyObject *ring_reader_set_delivered(RingReader *reader, PyObject *arg)
{
    uint64_t position;
    if (position_from(reader, arg, &position) < 0) {
        return NULL;
    }
    if (position > reader->header->delivered) {
        store_release(&reader->header->delivered, position);
    }
    Py_RETURN_NONE;
}

static PyObject *ring_reader_add_spill_delivered(RingReader *reader, PyObject *arg)
{
    unsigned long long count = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred() || !reader_usable(reader)) {
        return NULL;
    }
    store_release(&reader->header->spill_delivered, reader->header->spill_delivered + count);
    Py_RETURN_NONE;
}

static PyObject *ring_reader_set_server_state(RingReader *reader, PyObject *arg)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred() || !reader_usable(reader)) {
        return NULL;
    }
    store_release(&reader->header->server_state, value);
    Py_RETURN_NONE;
}

static PyObject *ring_reader_heartbeat(RingReader *reader, PyObject *arg)
{
    int spool_is_full = PyObject_IsTrue(arg);
    if (spool_is_full < 0 || !reader_usable(reader)) {
        return NULL;
    }
    store_release(&reader->header->sender_pid, (uint64_t)getpid());
    store_release(&reader->header->heartbeat_ns, steady_ns());
    store_release(&reader->header->spool_is_full, (uint64_t)spool_is_full);
    Py_RETURN_NONE;
}

static PyObject *ring_reader_take_flush(RingReader *reader, PyObject *unused)
{
    (void)unused;
    if (!reader_usable(reader)) {
        return NULL;
    }
    uint64_t request = load_acquire(&reader->header->flush_request);
    bool fresh = request != reader->header->flush_seen;
    reader->header->flush_seen = request;
    return PyBool_FromLong(fresh);
}

static PyObject *ring_reader_alive(RingReader *reader, PyObject *unused)
{
    (void)unused;
    if (!reader_usable(reader)) {
        return NULL;
    }
    if (reader->fd < 0) {
        return PyBool_FromLong(!load_acquire(&reader->header->closed));
    }
    return PyBool_FromLong(is_locked(reader->fd));
}

#define READER_GETTER(name, expression)                                                            \
    static PyObject *ring_reader_##name(RingReader *reader, void *unused)                          \
    {                                                                                              \
        (void)unused;                                                                              \
        return reader_usable(reader) ? PyLong_FromUnsignedLongLong(expression) : NULL;             \
    }

READER_GETTER(head, load_acquire(&reader->header->head))

READER_GETTER(tail, load_acquire(&reader->header->tail))

READER_GETTER(cursor, reader->cursor)

READER_GETTER(capacity, reader->capacity)

READER_GETTER(pid, reader->header->pid)

READER_GETTER(spill_sequence, load_acquire(&reader->header->spill_sequence))

READER_GETTER(refused, load_acquire(&reader->header->refused))

READER_GETTER(refused_traces, load_acquire(&reader->header->refused_traces))

READER_GETTER(delivered, load_acquire(&reader->header->delivered))

READER_GETTER(heartbeat_ns, load_acquire(&reader->header->heartbeat_ns))

READER_GETTER(spilled, load_acquire(&reader->header->spilled))

READER_GETTER(spill_delivered, load_acquire(&reader->header->spill_delivered))

READER_GETTER(server_state, load_acquire(&reader->header->server_state))

static PyObject *ring_reader_damaged(RingReader *reader, void *unused)
{
    (void)unused;
    return PyBool_FromLong(reader->damaged);
}

static PyMethodDef ring_reader_methods[] = {
    {"close", (PyCFunction)ring_reader_close, METH_NOARGS,
     "close($self, /)\n--\n\nLet go of the ring."},
    {"drain", (PyCFunction)ring_reader_drain, METH_O,
     "drain($self, limit, /)\n--\n\n"
     "The records appended since, about `limit` bytes of them at most, as (end position, kind,\n"
     "trace id, record)."},
    {"skip_damage", (PyCFunction)ring_reader_skip_damage, METH_NOARGS,
     "skip_damage($self, /)\n--\n\n"
     "Give up everything up to the program's head; the bytes passed over."},
    {"rewind", (PyCFunction)ring_reader_rewind, METH_O,
     "rewind($self, position, /)\n--\n\n"
     "Read again from a position where drain() began before. Raises ValueError where it has not\n"
     "been read or is given back."},
    {"look_back", (PyCFunction)ring_reader_look_back, METH_NOARGS,
     "look_back($self, /)\n--\n\n"
     "Begin with the program's first record, delivered or not; for readers that give nothing "
     "back.\n"
     "False where the program has written over it."},
    {"release", (PyCFunction)ring_reader_release, METH_O,
     "release($self, position, /)\n--\n\n"
     "Give the space up to there back to the program. Raises ValueError where it has not been "
     "read."},
    {"set_delivered", (PyCFunction)ring_reader_set_delivered, METH_O,
     "set_delivered($self, position, /)\n--\n\n"
     "Say that the server has acknowledged everything up to there. Raises ValueError where it has\n"
     "not been read."},
    {"add_spill_delivered", (PyCFunction)ring_reader_add_spill_delivered, METH_O,
     "add_spill_delivered($self, count, /)\n--\n\n"
     "Say that so many more records of spill segments are delivered."},
    {"set_server_state", (PyCFunction)ring_reader_set_server_state, METH_O,
     "set_server_state($self, state, /)\n--\n\n"
     "Tell the program about the server: 0 unknown, 1 answers, 2 unavailable, 3 forbids."},
    {"heartbeat", (PyCFunction)ring_reader_heartbeat, METH_O,
     "heartbeat($self, spool_is_full, /)\n--\n\n"
     "Tell the program that it has a sender, and whether new traces still find a place."},
    {"take_flush", (PyCFunction)ring_reader_take_flush, METH_NOARGS,
     "take_flush($self, /)\n--\n\nTrue once for every flush that the program asks for."},
    {"alive", (PyCFunction)ring_reader_alive, METH_NOARGS,
     "alive($self, /)\n--\n\nWhether the program still holds its end."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ring_reader_getset[] = {
    {"head", (getter)ring_reader_head, NULL, "Bytes ever appended.", NULL},
    {"tail", (getter)ring_reader_tail, NULL, "Space up to here may be used again.", NULL},
    {"cursor", (getter)ring_reader_cursor, NULL, "Bytes read so far.", NULL},
    {"capacity", (getter)ring_reader_capacity, NULL, "Bytes.", NULL},
    {"pid", (getter)ring_reader_pid, NULL, "Process id of the program.", NULL},
    {"spill_sequence", (getter)ring_reader_spill_sequence, NULL,
     "Number of the spill segment being written.", NULL},
    {"refused", (getter)ring_reader_refused, NULL, "Records that found no place.", NULL},
    {"refused_traces", (getter)ring_reader_refused_traces, NULL,
     "Traces that were not begun for want of place.", NULL},
    {"delivered", (getter)ring_reader_delivered, NULL, "Bytes that the server has acknowledged.",
     NULL},
    {"heartbeat_ns", (getter)ring_reader_heartbeat_ns, NULL,
     "When a sender last looked at the ring, by a clock that begins anywhere; 0: none has.", NULL},
    {"spilled", (getter)ring_reader_spilled, NULL, "Records spilled so far.", NULL},
    {"spill_delivered", (getter)ring_reader_spill_delivered, NULL,
     "Records of spill segments that are delivered.", NULL},
    {"server_state", (getter)ring_reader_server_state, NULL,
     "The server's state, as set_server_state() wrote it.", NULL},
    {"damaged", (getter)ring_reader_damaged, NULL, "Whether damage was found.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ring_reader_slots[] = {
    {Py_tp_new, ring_reader_new},
    {Py_tp_dealloc, ring_reader_dealloc},
    {Py_tp_methods, ring_reader_methods},
    {Py_tp_getset, ring_reader_getset},
    {Py_tp_doc, "RingReader(ring)\n--\n\n"
                "The sender's end of a ring.\n\n"
                "ring: the path of its file, or a RingWriter of this process.\n\n"
                "Raises OSError where the file is no ring, a symlink, or another user's; "
                "ValueError where the\n"
                "RingWriter is closed."},
    {0, NULL},
};

static PyType_Spec ring_reader_spec = {
    .name = "mlflow_fasttrace._core.RingReader",
    .basicsize = sizeof(RingReader),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_reader_slots,
};

int ring_reader_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &ring_reader_spec, &state->types.ring_reader, "RingReader");
}
