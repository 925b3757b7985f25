/* ring.c: how an ended span leaves the agent.
 *
 * A ring is a file that agent and sender map, on tmpfs where there is one. The file belongs to the
 * kernel, not to either process: what was appended outlives `kill -9` of both. The agent appends
 * with two memcpys and a release store: no system call, no lock, no wake-up. The GIL makes the
 * producer single; the sender that holds the spool folder's lock is the only consumer.
 *
 *   header page | data, capacity bytes, used round and round
 *
 *   head       all that was ever appended, in bytes          written by the agent
 *   tail       all whose space may be used again              written by the sender
 *   delivered  all that the server has acknowledged           written by the sender
 *
 * Invariants: delivered <= head, tail <= head, head - tail <= capacity, positions are multiples of
 * 8. A record is visible once head has passed it; a record that was being copied when the agent
 * died is not, and costs nothing.
 *
 * When the ring is full the record goes to a spill segment of the agent's own (spill.c). The first
 * append that finds a quarter of the ring free again ends that segment. Where nothing can be
 * spilled, no new traces are admitted, and the last eighth of the ring is for those that have
 * begun: a trace is refused as a whole, not in parts.
 *
 * The agent holds flock() on its ring for as long as it lives; the sender learns of its death by
 * getting that lock. A forked child unmaps nothing and touches nothing: the pages are advised
 * not to be inherited, and a generation count tells it that the ring is its parent's. */
#include "ring.h"

#include "ids.h"
#include "segment.h"
#include "spill.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_HEADER_SIZE 4096
#define RING_VERSION 1
#define RING_MIN_CAPACITY ((uint64_t)64 << 10)
#define RING_MAX_CAPACITY ((uint64_t)1 << 30)

/* A sender that has not looked at a ring for so long may be gone. */
#define ATTENDED_NS ((uint64_t)3000000000u)

/* How often an agent looks whether that is so. */
#define LOOK_NS ((uint64_t)500000000u)

/* A server state: perhaps this process has fresh credentials. */
#define SERVER_DENIES 3

static const char RING_MAGIC[8] = "MFTRING1";

/* What both processes see. Counters written by different processes stand on different cache
 * lines. */
typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t header_size;
    uint64_t capacity;
    uint64_t pid;
    uint64_t created_ns;
    char reserved0[24];

    /* Written by the agent. */
    uint64_t head;
    uint64_t spill_sequence; /* number of the spill segment being written; lower ones are ended */
    uint64_t spilled;        /* records spilled so far */
    uint64_t flush_request;  /* counts requests to deliver now */
    uint64_t closed;         /* 1 when the agent is done with it */
    uint64_t refused;        /* records that found no place */
    uint64_t refused_traces; /* traces that were not begun for want of place */
    char reserved1[8];

    /* Written by the sender. */
    uint64_t tail;
    uint64_t delivered;
    uint64_t spill_delivered; /* records of spill segments that are delivered */
    uint64_t server_state;    /* 0 not known yet, 1 answering, 2 away, 3 does not let in */
    uint64_t flush_seen;      /* the flush request last acted on */
    uint64_t heartbeat_ns;    /* when a sender last looked at this ring (steady_ns); 0 never */
    uint64_t spool_is_full;   /* 1: no new traces, what waits has reached the spool's bound */
    char reserved2[8];
} RingHeader;

/* Counts forks, so that a child knows its rings for its parent's. Set by the one handler that
 * also sees forks from C. */
static unsigned fork_generation;

static void count_fork(void) { fork_generation++; }

static int install_fork_handler(void)
{
    static bool installed;
    if (!installed) {
        if (pthread_atfork(NULL, NULL, count_fork) != 0) {
            return -1;
        }
        installed = true;
    }
    return 0;
}

struct Ring {
    PyObject_HEAD RingHeader *header; /* mapped; NULL once closed */
    char *data;
    uint64_t capacity;
    uint64_t head;
    uint64_t known_tail; /* never ahead of the header's */
    int fd;              /* holds the flock */
    unsigned generation;
    uint64_t looked_ns;         /* when it was last asked whether there is a sender */
    uint64_t attended_until_ns; /* the answer is known until then (steady_ns) */
    Spill spill;
};

/* For the traces that have begun: what is left of the ring when records begin to be spilled. */
static uint64_t ring_reserve(const Ring *ring) { return ring->capacity / 8; }

bool ring_is_ours(const Ring *ring)
{
    return ring->header != NULL && ring->generation == fork_generation;
}

void frame_append(Buffer *out, const char *record, size_t size)
{
    static const char zeros[8] = {0};
    RecordHead head = {.length = (uint32_t)size, .checksum = checksum32(record, size)};
    buffer_append(out, &head, sizeof head);
    buffer_append(out, record, size);
    buffer_append(out, zeros, RECORD_PADDING(size));
}

static void ring_copy_in(Ring *ring, uint64_t position, const void *bytes, size_t size)
{
    uint64_t at = position % ring->capacity;
    size_t first = size;
    if (first > ring->capacity - at) {
        first = ring->capacity - at;
    }
    memcpy(ring->data + at, bytes, first);
    memcpy(ring->data, (const char *)bytes + first, size - first);
}

static uint64_t ring_room(const Ring *ring)
{
    return ring->capacity - (ring->head - ring->known_tail);
}

/* Asks the header how far the sender is; what it says is believed only where it can be true. */
static void ring_refresh_room(Ring *ring)
{
    uint64_t tail = load_acquire(&ring->header->tail);
    if (tail <= ring->head && ring->head - tail <= ring->capacity) {
        ring->known_tail = tail;
    }
}

/* Whether this record is to go to a spill segment. Once one is open it takes all that comes until
 * a quarter of the ring is free again: or small records would slip into the ring between large
 * ones, each ending a segment. */
static bool must_spill(Ring *ring, uint64_t size)
{
    bool spilling = spill_is_open(&ring->spill);
    uint64_t needed = size + ring_reserve(ring);
    if (LIKELY(!spilling && needed <= ring_room(ring))) {
        return false;
    }
    ring_refresh_room(ring);
    return needed > ring_room(ring) || (spilling && ring_room(ring) < ring->capacity / 4);
}

bool ring_put(Ring *ring, const Buffer *record)
{
    if (UNLIKELY(!ring_is_ours(ring))) {
        return false;
    }
    RingHeader *header = ring->header;
    uint64_t size = RECORD_FRAME_SIZE((uint64_t)record->len);
    if (UNLIKELY(must_spill(ring, size))) {
        if (spill_write(&ring->spill, &header->spill_sequence, record)) {
            store_release(&header->spilled, header->spilled + 1);
            return true;
        }
        if (size > ring_room(ring)) {
            store_release(&header->refused, header->refused + 1);
            return false;
        }
    }
    else if (UNLIKELY(spill_is_open(&ring->spill))) {
        spill_end(&ring->spill, &header->spill_sequence);
    }
    RecordHead head = {.length = (uint32_t)record->len,
                       .checksum = checksum32(record->data, record->len)};
    ring_copy_in(ring, ring->head, &head, sizeof head);
    ring_copy_in(ring, ring->head + sizeof head, record->data, record->len);
    ring->head += size;
    return true;
}

void ring_publish(Ring *ring)
{
    if (LIKELY(ring_is_ours(ring))) {
        store_release(&ring->header->head, ring->head);
    }
}

bool ring_admits_trace(Ring *ring)
{
    if (UNLIKELY(!ring_is_ours(ring))) {
        return true;
    }
    RingHeader *header = ring->header;
    Spill *spill = &ring->spill;
    if (LIKELY(!spill->failing && !spill->nearly_full && !load_acquire(&header->spool_is_full))) {
        return true;
    }
    bool admits = !load_acquire(&header->spool_is_full) && !spill_is_nearly_full(spill);
    if (spill->failing) {
        ring_refresh_room(ring);
        admits = admits && ring_room(ring) > ring_reserve(ring);
    }
    if (!admits) {
        store_release(&header->refused_traces, header->refused_traces + 1);
    }
    return admits;
}

bool ring_is_unattended(Ring *ring, uint64_t now_ns)
{
    /* `now_ns` costs nothing but may be anything: the clock may have been set, and the program may
     * have said when its span ended. */
    if (LIKELY(now_ns - ring->looked_ns < LOOK_NS) || !ring_is_ours(ring)) {
        return false;
    }
    ring->looked_ns = now_ns;
    uint64_t now = steady_ns();
    if (now <= ring->attended_until_ns) {
        return false;
    }
    uint64_t seen = load_acquire(&ring->header->heartbeat_ns);
    bool attended = seen <= now && now - seen < ATTENDED_NS;
    ring->attended_until_ns = (attended ? seen : now) + ATTENDED_NS;
    return !attended || load_acquire(&ring->header->server_state) == SERVER_DENIES;
}

/* ---- RingWriter: the Python handle of the agent's end ---- */

/* Creates, fills and locks the file under another name first: a sender never sees half a ring.
 * Without a path it is memory without a name. */
static int ring_create(Ring *ring, const char *path, uint64_t capacity)
{
    char fresh[4096] = "";
    int n = path != NULL ? snprintf(fresh, sizeof fresh, "%s.new", path) : 0;
    if (n < 0 || (size_t)n >= sizeof fresh) {
        errno = ENAMETOOLONG;
        return -1;
    }
    size_t size = RING_HEADER_SIZE + (size_t)capacity;
    int saved;
    int fd = path != NULL ? open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)
                          : compat_unnamed_memory();
    if (fd < 0) {
        return -1;
    }
    void *map = NULL;
    /* Reserved now: a page that tmpfs cannot give later would be a SIGBUS in the agent. */
    int failed = posix_fallocate(fd, 0, (off_t)size);
    if (failed) {
        errno = failed;
        goto error;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        goto error;
    }
    map = compat_map_unforked(fd, size);
    if (map == NULL) {
        goto error;
    }
    memset(map, 0, size); /* touched once, so that no append ever faults */

    RingHeader *header = map;
    memcpy(header->magic, RING_MAGIC, sizeof header->magic);
    header->version = RING_VERSION;
    header->header_size = RING_HEADER_SIZE;
    header->capacity = capacity;
    header->pid = (uint64_t)getpid();
    header->created_ns = clock_ns();
    if (path != NULL && rename(fresh, path) != 0) {
        goto error;
    }
    ring->header = header;
    ring->data = (char *)map + RING_HEADER_SIZE;
    ring->capacity = capacity;
    ring->fd = fd;
    ring->looked_ns = header->created_ns;
    ring->attended_until_ns = steady_ns() + ATTENDED_NS;
    return 0;
error:
    saved = errno;
    if (map != NULL) {
        munmap(map, size);
    }
    close(fd);
    if (path != NULL) {
        unlink(fresh);
    }
    errno = saved;
    return -1;
}

static void ring_close(Ring *ring)
{
    if (ring_is_ours(ring)) {
        spill_end(&ring->spill, &ring->header->spill_sequence);
        store_release(&ring->header->closed, 1);
        munmap(ring->header, RING_HEADER_SIZE + (size_t)ring->capacity);
    }
    ring->header = NULL;
    if (ring->fd >= 0) {
        close(ring->fd);
        ring->fd = -1;
    }
}

static PyObject *ring_writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",          "capacity", "spill_prefix", "spool_max_bytes",
                            "memory_prefix", NULL};
    const char *path, *prefix, *memory_prefix = NULL;
    unsigned long long capacity, spool_max_bytes = 1u << 30;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "zKs|Kz:RingWriter", names, &path, &capacity,
                                     &prefix, &spool_max_bytes, &memory_prefix)) {
        return NULL;
    }
    if (capacity < RING_MIN_CAPACITY || capacity > RING_MAX_CAPACITY || capacity % 4096) {
        return PyErr_Format(PyExc_ValueError,
                            "a ring holds 64 KiB to 1 GiB in whole pages, not %llu bytes",
                            capacity);
    }
    if (install_fork_handler() != 0) {
        return PyErr_NoMemory();
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Ring *ring = (Ring *)alloc(type, 0);
    if (ring == NULL) {
        return NULL;
    }
    ring->fd = -1;
    ring->generation = fork_generation;
    if (!spill_init(&ring->spill, prefix, path != NULL ? spool_max_bytes : 0, memory_prefix,
                    capacity)) {
        Py_DECREF(ring);
        return PyErr_NoMemory();
    }
    if (ring_create(ring, path, capacity) != 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path != NULL ? path : "memory");
        Py_DECREF(ring);
        return NULL;
    }
    return (PyObject *)ring;
}

static void ring_writer_dealloc(Ring *ring)
{
    PyTypeObject *type = Py_TYPE(ring);
    ring_close(ring);
    spill_free(&ring->spill);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(ring);
    Py_DECREF(type);
}

static PyObject *ring_writer_close(Ring *ring, PyObject *unused)
{
    (void)unused;
    ring_close(ring);
    Py_RETURN_NONE;
}

static PyObject *ring_writer_request_flush(Ring *ring, PyObject *unused)
{
    (void)unused;
    if (!ring_is_ours(ring)) {
        return PyLong_FromLong(0);
    }
    if (spill_is_in_memory(&ring->spill)) {
        spill_end(&ring->spill, &ring->header->spill_sequence); /* it may be moved to disk now */
    }
    uint64_t request = ring->header->flush_request + 1;
    store_release(&ring->header->flush_request, request);
    return PyLong_FromUnsignedLongLong(request);
}

/* (head, tail, delivered, spilled, spill_delivered, server_state, refused, refused_traces), or None
 * when the ring is closed or the parent's. */
static PyObject *ring_writer_progress(Ring *ring, PyObject *unused)
{
    (void)unused;
    if (!ring_is_ours(ring)) {
        Py_RETURN_NONE;
    }
    RingHeader *h = ring->header;
    return Py_BuildValue(
        "(KKKKKKKK)", (unsigned long long)ring->head, (unsigned long long)load_acquire(&h->tail),
        (unsigned long long)load_acquire(&h->delivered), (unsigned long long)h->spilled,
        (unsigned long long)load_acquire(&h->spill_delivered),
        (unsigned long long)load_acquire(&h->server_state), (unsigned long long)h->refused,
        (unsigned long long)h->refused_traces);
}

static PyObject *ring_writer_fileno(Ring *ring, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(ring->fd);
}

static PyMethodDef ring_writer_methods[] = {
    {"fileno", (PyCFunction)ring_writer_fileno, METH_NOARGS, NULL},
    {"close", (PyCFunction)ring_writer_close, METH_NOARGS, NULL},
    {"request_flush", (PyCFunction)ring_writer_request_flush, METH_NOARGS, NULL},
    {"progress", (PyCFunction)ring_writer_progress, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_writer_slots[] = {
    {Py_tp_new, ring_writer_new},
    {Py_tp_dealloc, ring_writer_dealloc},
    {Py_tp_methods, ring_writer_methods},
    {Py_tp_doc, "The agent's end of a ring: RingWriter(path or None, capacity, spill_prefix, "
                "spool_max_bytes, memory_prefix)."},
    {0, NULL},
};

static PyType_Spec ring_writer_spec = {
    .name = "mlflow_fasttrace._core.RingWriter",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_writer_slots,
};

/* ---- RingReader: the sender's end ---- */

typedef struct {
    PyObject_HEAD RingHeader *header;
    const char *data;
    uint64_t capacity;
    uint64_t cursor; /* read so far; tail <= cursor <= head */
    int fd;
    bool damaged;
    bool in_process; /* of a ring in this process's memory: the agent lives as long as we do */
} RingReader;

/* Maps what claims to be a ring; the file is another process's, nothing in it is believed. Without
 * a path: the ring of this process that `fd` is open for. */
static int reader_open(RingReader *reader, const char *path, int fd)
{
    struct stat info;
    RingHeader head;

    reader->in_process = path == NULL;
    reader->fd =
        path != NULL ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (reader->fd < 0) {
        return -1;
    }
    if (fstat(reader->fd, &info) != 0) {
        return -1;
    }
    if (!S_ISREG(info.st_mode) || info.st_uid != geteuid()) {
        errno = EPERM;
        return -1;
    }
    if (pread(reader->fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.magic, RING_MAGIC, sizeof head.magic) != 0 || head.version != RING_VERSION ||
        head.header_size != RING_HEADER_SIZE || head.capacity < RING_MIN_CAPACITY ||
        head.capacity > RING_MAX_CAPACITY ||
        (uint64_t)info.st_size != RING_HEADER_SIZE + head.capacity) {
        errno = EINVAL;
        return -1;
    }
    void *map = mmap(NULL, RING_HEADER_SIZE + (size_t)head.capacity, PROT_READ | PROT_WRITE,
                     MAP_SHARED, reader->fd, 0);
    if (map == MAP_FAILED) {
        return -1;
    }
    reader->header = map;
    reader->data = (const char *)map + RING_HEADER_SIZE;
    reader->capacity = head.capacity;
    reader->cursor = load_acquire(&reader->header->tail);
    return 0;
}

static PyObject *ring_reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "fd", NULL};
    const char *path;
    int fd = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "z|i:RingReader", names, &path, &fd)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    RingReader *reader = (RingReader *)alloc(type, 0);
    if (reader == NULL) {
        return NULL;
    }
    reader->fd = -1;
    if (reader_open(reader, path, fd) != 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path != NULL ? path : "memory");
        Py_DECREF(reader);
        return NULL;
    }
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

int frames_to_list(PyObject *list, const char *bytes, size_t size, uint64_t base, size_t *used)
{
    size_t at = 0;
    int result = 0;

    while (size - at >= sizeof(RecordHead)) {
        RecordHead head;
        memcpy(&head, bytes + at, sizeof head);
        uint64_t frame = RECORD_FRAME_SIZE((uint64_t)head.length);
        if (head.length > BUFFER_MAX) {
            result = 1;
            break;
        }
        if (frame > size - at) {
            break;
        }
        const char *record = bytes + at + sizeof head, *trace_id;
        if (checksum32(record, head.length) != head.checksum) {
            result = 1;
            break;
        }
        /* What is written as it was meant and yet is no record costs itself, not what follows. */
        int kind = record_kind(record, head.length, &trace_id);
        at += frame;
        PyObject *item = Py_BuildValue("(Kiy#y#)", (unsigned long long)(base + at), kind, trace_id,
                                       (Py_ssize_t)TRACE_ID_SIZE, record, (Py_ssize_t)head.length);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_XDECREF(item);
            result = -1;
            break;
        }
        Py_DECREF(item);
    }
    *used = at;
    return result;
}

/* drain(limit): the records appended since, at most about `limit` bytes of them, as
 * (end position, kind, trace id, record). */
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
    uint64_t size = head - reader->cursor;
    if (size > limit) {
        /* At least one whole record has to fit. */
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
    int result = frames_to_list(list, bytes, (size_t)size, reader->cursor, &used);
    free(copy);
    if (result < 0) {
        Py_DECREF(list);
        return NULL;
    }
    reader->damaged = result > 0;
    reader->cursor += used;
    return list;
}

/* Damage: everything up to the agent's head is given up. Returns the bytes passed over. */
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
        PyErr_SetString(PyExc_ValueError, "position has not been read yet");
        return -1;
    }
    return 0;
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

/* Tells the agent that it has a sender, and whether new traces still find a place. */
static PyObject *ring_reader_heartbeat(RingReader *reader, PyObject *arg)
{
    int spool_is_full = PyObject_IsTrue(arg);
    if (spool_is_full < 0 || !reader_usable(reader)) {
        return NULL;
    }
    store_release(&reader->header->heartbeat_ns, steady_ns());
    store_release(&reader->header->spool_is_full, (uint64_t)spool_is_full);
    Py_RETURN_NONE;
}

/* True once for every flush that an agent asks for. */
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

/* Whether the agent still holds its end. */
static PyObject *ring_reader_alive(RingReader *reader, PyObject *unused)
{
    (void)unused;
    if (!reader_usable(reader)) {
        return NULL;
    }
    if (reader->in_process) {
        return PyBool_FromLong(!load_acquire(&reader->header->closed));
    }
    if (flock(reader->fd, LOCK_SH | LOCK_NB) == 0) {
        flock(reader->fd, LOCK_UN);
        Py_RETURN_FALSE;
    }
    return PyBool_FromLong(errno == EWOULDBLOCK);
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
READER_GETTER(spilled, load_acquire(&reader->header->spilled))
READER_GETTER(spill_delivered, load_acquire(&reader->header->spill_delivered))
READER_GETTER(server_state, load_acquire(&reader->header->server_state))

static PyObject *ring_reader_damaged(RingReader *reader, void *unused)
{
    (void)unused;
    return PyBool_FromLong(reader->damaged);
}

static PyMethodDef ring_reader_methods[] = {
    {"close", (PyCFunction)ring_reader_close, METH_NOARGS, NULL},
    {"drain", (PyCFunction)ring_reader_drain, METH_O, NULL},
    {"skip_damage", (PyCFunction)ring_reader_skip_damage, METH_NOARGS, NULL},
    {"release", (PyCFunction)ring_reader_release, METH_O, NULL},
    {"set_delivered", (PyCFunction)ring_reader_set_delivered, METH_O, NULL},
    {"add_spill_delivered", (PyCFunction)ring_reader_add_spill_delivered, METH_O, NULL},
    {"set_server_state", (PyCFunction)ring_reader_set_server_state, METH_O, NULL},
    {"heartbeat", (PyCFunction)ring_reader_heartbeat, METH_O, NULL},
    {"take_flush", (PyCFunction)ring_reader_take_flush, METH_NOARGS, NULL},
    {"alive", (PyCFunction)ring_reader_alive, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ring_reader_getset[] = {
    {"head", (getter)ring_reader_head, NULL, NULL, NULL},
    {"tail", (getter)ring_reader_tail, NULL, NULL, NULL},
    {"cursor", (getter)ring_reader_cursor, NULL, NULL, NULL},
    {"capacity", (getter)ring_reader_capacity, NULL, NULL, NULL},
    {"pid", (getter)ring_reader_pid, NULL, NULL, NULL},
    {"spill_sequence", (getter)ring_reader_spill_sequence, NULL, NULL, NULL},
    {"refused", (getter)ring_reader_refused, NULL, NULL, NULL},
    {"refused_traces", (getter)ring_reader_refused_traces, NULL, NULL, NULL},
    {"delivered", (getter)ring_reader_delivered, NULL, NULL, NULL},
    {"spilled", (getter)ring_reader_spilled, NULL, NULL, NULL},
    {"spill_delivered", (getter)ring_reader_spill_delivered, NULL, NULL, NULL},
    {"server_state", (getter)ring_reader_server_state, NULL, NULL, NULL},
    {"damaged", (getter)ring_reader_damaged, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ring_reader_slots[] = {
    {Py_tp_new, ring_reader_new},
    {Py_tp_dealloc, ring_reader_dealloc},
    {Py_tp_methods, ring_reader_methods},
    {Py_tp_getset, ring_reader_getset},
    {Py_tp_doc,
     "The sender's end of a ring: RingReader(path), or RingReader(None, fd) for one that "
     "this process holds in memory."},
    {0, NULL},
};

static PyType_Spec ring_reader_spec = {
    .name = "mlflow_fasttrace._core.RingReader",
    .basicsize = sizeof(RingReader),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_reader_slots,
};

int ring_add_types(PyObject *module, CoreState *state)
{
    if (state_add_type(module, &ring_writer_spec, &state->ring_writer_type, "RingWriter") < 0) {
        return -1;
    }
    return state_add_type(module, &ring_reader_spec, &state->ring_reader_type, "RingReader");
}
