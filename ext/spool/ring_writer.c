/* ring_writer.c: how an ended span leaves the program.
 *
 * A ring is a file that program and sender map, on tmpfs where there is one. The file belongs to
 * the kernel, not to either process: what was appended outlives `kill -9` of both. The program
 * writes records in place, or copies them there, and shows them with a release store: no system
 * call, no lock, no wake-up. The GIL makes the producer single; the sender that holds the spool
 * folder's lock is the only consumer. A record that was being copied when the program died is not
 * visible, and costs nothing.
 *
 * When the ring is full the record goes to a spill segment of the program's own (spill_segments.c).
 * The first append that finds a quarter of the ring free again ends that segment. Where nothing can
 * be spilled, no new traces are admitted, and the last eighth of the ring is for those that have
 * begun: a trace is refused as a whole, not in parts.
 *
 * The program holds flock() on its ring, and on the segment that it spills to, for as long as it
 * lives; the sender learns of its death by getting that lock. A forked child unmaps nothing and
 * touches nothing: the pages are advised not to be inherited, and a generation count tells the
 * child that the ring is its parent's. It closes the descriptors that it inherits, at once: with
 * one of them it would hold its parent's locks for as long as it lives itself. */
#include "spool/ring_writer.h"

#include "base/clock.h"
#include "record/frame.h"
#include "spool/paths.h"
#include "spool/ring_layout.h"
#include "spool/spill_segments.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A sender whose heartbeat is older may be gone. */
#define HEARTBEAT_OLD_NS ((uint64_t)3000000000u)

/* How often a program looks at the heartbeat. */
#define HEARTBEAT_LOOK_NS ((uint64_t)500000000u)

struct Ring {
    PyObject_HEAD RingHeader *header; /* mapped; NULL once closed */
    char *data;
    uint64_t capacity;
    uint64_t head;
    uint64_t at;         /* where `head` is in `data` */
    uint64_t known_tail; /* never ahead of the header's */
    uint64_t unchecked;  /* `head` may grow up to here, whatever the sender does meanwhile */
    int fd;              /* holds the flock; -1 where the ring is no file */
    unsigned generation;
    uint64_t heartbeat_looked_ns;     /* when the heartbeat was last looked at */
    uint64_t heartbeat_good_until_ns; /* steady_ns; there is a sender until then */
    Spill spill;
    Ring *next, *before; /* in the list of all rings */
};

/* All rings of this process, and what counts forks, so that a child knows its rings for its
 * parent's. The handlers see forks by C code too. Nothing but the list and the descriptors of its
 * rings is touched while the mutex is held, and nothing is waited for. */
static pthread_mutex_t rings_mutex = PTHREAD_MUTEX_INITIALIZER;
static Ring *all_rings;
static unsigned fork_generation;

static void before_fork(void) { pthread_mutex_lock(&rings_mutex); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&rings_mutex); }

static void after_fork_in_child(void)
{
    fork_generation++;
    for (Ring *ring = all_rings; ring != NULL; ring = ring->next) {
        if (ring->fd >= 0) {
            close(ring->fd);
            ring->fd = -1;
        }
        spill_after_fork(&ring->spill);
    }
    pthread_mutex_unlock(&rings_mutex);
}

static int install_fork_handler(void)
{
    static bool installed;
    if (!installed) {
        if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
            return -1;
        }
        installed = true;
    }
    return 0;
}

static void note_ring(Ring *ring)
{
    pthread_mutex_lock(&rings_mutex);
    ring->next = all_rings;
    if (all_rings != NULL) {
        all_rings->before = ring;
    }
    all_rings = ring;
    pthread_mutex_unlock(&rings_mutex);
}

static void forget_ring(Ring *ring)
{
    pthread_mutex_lock(&rings_mutex);
    if (ring->next != NULL) {
        ring->next->before = ring->before;
    }
    if (ring->before != NULL) {
        ring->before->next = ring->next;
    }
    else if (all_rings == ring) {
        all_rings = ring->next;
    }
    pthread_mutex_unlock(&rings_mutex);
}

/* What is left of the ring when records begin to be spilled, for the traces that have begun. */
static uint64_t ring_reserve(const Ring *ring) { return ring->capacity / 8; }

bool ring_is_ours(const Ring *ring)
{
    return ring != NULL && ring->header != NULL && ring->generation == fork_generation;
}

/* Copies the bytes of a record to its place behind the record's head, around the ring's end. */
static void ring_copy_in(Ring *ring, const void *bytes, size_t size)
{
    uint64_t at = ring->at + sizeof(RecordHead), behind = ring->capacity - at;
    size_t first = size < behind ? size : behind;
    memcpy(ring->data + at, bytes, first);
    memcpy(ring->data, (const char *)bytes + first, size - first);
}

/* Adds the record that lies behind its head's place. A head, of 8 bytes as all is padded to, is
 * never cut in two by the ring's end. */
static inline void ring_add(Ring *ring, RecordHead head)
{
    memcpy(ring->data + ring->at, &head, sizeof head);
    uint64_t size = RECORD_FRAME_SIZE((uint64_t)head.length);
    ring->head += size;
    ring->at += size;
    if (UNLIKELY(ring->at >= ring->capacity)) {
        ring->at -= ring->capacity;
    }
}

static uint64_t ring_room(const Ring *ring)
{
    return ring->capacity - (ring->head - ring->known_tail);
}

/* Reads how far the sender is; the header is believed only where it can be true. */
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
    if (LIKELY(!spilling && ring->head + size <= ring->unchecked)) {
        return false;
    }
    ring_refresh_room(ring);
    uint64_t room = ring_room(ring), half = ring->capacity / 2, kept = ring_reserve(ring);
    if (room > half) {
        kept = half; /* at which it is looked at again */
    }
    else if (!spilling) {
        spill_prepare(&ring->spill);
    }
    ring->unchecked = ring->head + (room > kept ? room - kept : 0);
    return size + ring_reserve(ring) > room || (spilling && room < ring->capacity / 4);
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
    ring_copy_in(ring, record->data, record->len);
    ring_add(ring, record_head(record->data, record->len));
    return true;
}

char *ring_place(Ring *ring, size_t size)
{
    uint64_t frame = RECORD_FRAME_SIZE((uint64_t)size);
    if (UNLIKELY(!ring_is_ours(ring) || frame > ring->capacity - ring->at ||
                 spill_is_open(&ring->spill) || must_spill(ring, frame))) {
        return NULL;
    }
    return ring->data + ring->at + sizeof(RecordHead);
}

void ring_add_written(Ring *ring, size_t size)
{
    ring_add(ring, record_head(ring->data + ring->at + sizeof(RecordHead), size));
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

bool ring_lacks_sender(Ring *ring, uint64_t now_ns)
{
    /* `now_ns` is the end of a span and may be wrong (the clock was set, or the program gave it):
     * it only decides when to look. Ages are measured by steady_ns(). */
    if (LIKELY(now_ns - ring->heartbeat_looked_ns < HEARTBEAT_LOOK_NS) || !ring_is_ours(ring)) {
        return false;
    }
    ring->heartbeat_looked_ns = now_ns;
    uint64_t now = steady_ns();
    if (now <= ring->heartbeat_good_until_ns) {
        return false;
    }
    uint64_t seen = load_acquire(&ring->header->heartbeat_ns);
    bool fresh = seen <= now && now - seen < HEARTBEAT_OLD_NS;
    ring->heartbeat_good_until_ns = (fresh ? seen : now) + HEARTBEAT_OLD_NS;
    return !fresh || load_acquire(&ring->header->server_state) == SERVER_FORBIDS;
}

/* Fills the memory of a new ring, all of it, so that no append ever faults. */
static void ring_begin(Ring *ring, void *map, uint64_t capacity)
{
    compat_populate(map, RING_HEADER_SIZE + (size_t)capacity);
    memset(map, 0, RING_HEADER_SIZE + (size_t)capacity);
    RingHeader *header = map;
    memcpy(header->magic, RING_MAGIC, RING_MAGIC_SIZE);
    header->version = RING_VERSION;
    header->header_size = RING_HEADER_SIZE;
    header->capacity = capacity;
    header->pid = (uint64_t)getpid();
    header->created_ns = clock_ns();
    ring->header = header;
    ring->data = (char *)map + RING_HEADER_SIZE;
    ring->capacity = capacity;
    ring->heartbeat_looked_ns = header->created_ns;
    ring->heartbeat_good_until_ns = steady_ns() + HEARTBEAT_OLD_NS;
}

/* Makes a ring that is no file: the last place, where none can be made. 0, or -1 and errno. */
static int ring_create_in_memory(Ring *ring, uint64_t capacity)
{
    void *map = compat_map_memory(RING_HEADER_SIZE + (size_t)capacity);
    if (map == NULL) {
        return -1;
    }
    ring_begin(ring, map, capacity);
    return 0;
}

/* Creates, fills and locks the file under another name first: a sender never sees half a ring. 0,
 * or -1 and errno. */
static int ring_create(Ring *ring, const char *path, uint64_t capacity)
{
    char fresh[4096];
    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh) {
        errno = ENAMETOOLONG;
        return -1;
    }
    size_t size = RING_HEADER_SIZE + (size_t)capacity;
    int saved;
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -1;
    }
    void *map = NULL;
    /* Reserved now: a page that tmpfs cannot give later would be a SIGBUS in the program. */
    int failed = compat_reserve(fd, 0, size);
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
    ring_begin(ring, map, capacity);
    if (rename(fresh, path) != 0) {
        ring->header = NULL;
        goto error;
    }
    ring->fd = fd;
    return 0;
error:
    saved = errno;
    if (map != NULL) {
        munmap(map, size);
    }
    close(fd);
    unlink(fresh);
    errno = saved;
    return -1;
}

static void ring_close(Ring *ring)
{
    if (ring_is_ours(ring)) {
        spill_close(&ring->spill, &ring->header->spill_sequence);
        store_release(&ring->header->closed, 1);
        munmap(ring->header, RING_HEADER_SIZE + (size_t)ring->capacity);
    }
    ring->header = NULL;
    if (ring->fd >= 0) {
        close(ring->fd);
        ring->fd = -1;
    }
}

void *ring_map_again(Ring *ring, uint64_t *capacity)
{
    if (!ring_is_ours(ring)) {
        PyErr_SetString(PyExc_ValueError, "the ring is closed, or a parent process's");
        return NULL;
    }
    size_t size = RING_HEADER_SIZE + (size_t)ring->capacity;
    void *map = ring->fd >= 0 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0)
                              : compat_map_again(ring->header, size);
    if (map == NULL || map == MAP_FAILED) {
        path_error(NULL, errno, NULL);
        return NULL;
    }
    *capacity = ring->capacity;
    return map;
}

/* A new ring of this process; NULL with an exception. Paths may be NULL but for `prefix`. */
static Ring *ring_new(PyTypeObject *type, PyObject *path, uint64_t capacity, PyObject *prefix,
                      uint64_t spool_max_bytes, PyObject *memory_prefix)
{
    if (capacity < RING_MIN_CAPACITY || capacity > RING_MAX_CAPACITY || capacity % 4096) {
        PyErr_Format(PyExc_ValueError,
                     "a ring holds 64 KiB to 1 GiB in whole pages, not %llu bytes",
                     (unsigned long long)capacity);
        return NULL;
    }
    if (install_fork_handler() != 0) {
        PyErr_NoMemory();
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Ring *ring = (Ring *)alloc(type, 0);
    if (ring == NULL) {
        return NULL;
    }
    ring->fd = -1;
    ring->generation = fork_generation;
    if (!spill_init(&ring->spill, path_bytes(prefix), path != NULL ? spool_max_bytes : 0,
                    path_bytes(memory_prefix), capacity)) {
        PyErr_NoMemory();
        goto error;
    }
    if ((path != NULL ? ring_create(ring, path_bytes(path), capacity)
                      : ring_create_in_memory(ring, capacity)) != 0) {
        path_error(path, errno, NULL);
        goto error;
    }
    note_ring(ring);
    return ring;
error:
    Py_DECREF(ring);
    return NULL;
}

static PyObject *ring_writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",          "capacity", "spill_prefix", "spool_max_bytes",
                            "memory_prefix", NULL};
    PyObject *path = NULL, *prefix = NULL, *memory_prefix = NULL; /* owned */
    unsigned long long capacity, spool_max_bytes = 1u << 30;
    Ring *ring = NULL;
    if (PyArg_ParseTupleAndKeywords(args, kwargs, "O&KO&|KO&:RingWriter", names, optional_path,
                                    &path, &capacity, PyUnicode_FSConverter, &prefix,
                                    &spool_max_bytes, optional_path, &memory_prefix)) {
        ring = ring_new(type, path, capacity, prefix, spool_max_bytes, memory_prefix);
        Py_XDECREF(path);
        Py_XDECREF(prefix);
        Py_XDECREF(memory_prefix);
    }
    return (PyObject *)ring;
}

static void ring_writer_dealloc(Ring *ring)
{
    PyTypeObject *type = Py_TYPE(ring);
    forget_ring(ring);
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

static PyObject *ring_writer_let_spares_go(Ring *ring, PyObject *unused)
{
    (void)unused;
    if (ring_is_ours(ring)) {
        spill_let_spares_go(&ring->spill);
    }
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

static PyObject *ring_writer_heartbeat(Ring *ring, PyObject *unused)
{
    (void)unused;
    if (!ring_is_ours(ring)) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(KK)", (unsigned long long)load_acquire(&ring->header->heartbeat_ns),
                         (unsigned long long)load_acquire(&ring->header->sender_pid));
}

static PyObject *ring_writer_append(Ring *ring, PyObject *records)
{
    Py_ssize_t count = PyList_Size(records), done = 0;
    if (count < 0) {
        return NULL;
    }
    for (; done < count; done++) {
        char *bytes;
        Py_ssize_t size;
        /* The list and its items are the caller's, and no Python code runs before the next. */
        if (PyBytes_AsStringAndSize(PyList_GetItem(records, done), &bytes, &size) < 0) {
            return NULL;
        }
        Buffer record = {.data = bytes, .len = (size_t)size};
        if (!ring_put(ring, &record)) {
            break;
        }
    }
    ring_publish(ring);
    return PyLong_FromSsize_t(done);
}

static PyMethodDef ring_writer_methods[] = {
    {"close", (PyCFunction)ring_writer_close, METH_NOARGS,
     "close($self, /)\n--\n\nSay that nothing more is appended, and let go of the ring."},
    {"let_spares_go", (PyCFunction)ring_writer_let_spares_go, METH_NOARGS,
     "let_spares_go($self, /)\n--\n\nLet go of memory that is kept for bursts."},
    {"request_flush", (PyCFunction)ring_writer_request_flush, METH_NOARGS,
     "request_flush($self, /)\n--\n\nAsk the sender to deliver now; the number of the request."},
    {"heartbeat", (PyCFunction)ring_writer_heartbeat, METH_NOARGS,
     "heartbeat($self, /)\n--\n\n"
     "When a sender last looked at the ring, in nanoseconds of a clock that begins anywhere, and "
     "its\n"
     "process id, both 0 where none has; None when the ring is closed or a parent process's."},
    {"append", (PyCFunction)ring_writer_append, METH_O,
     "append($self, records, /)\n--\n\n"
     "Append records of another ring of this process; how many found a place."},
    {"progress", (PyCFunction)ring_writer_progress, METH_NOARGS,
     "progress($self, /)\n--\n\n"
     "(head, tail, delivered, spilled, spill_delivered, server_state, refused records, refused\n"
     "traces); None when the ring is closed or a parent process's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_writer_slots[] = {
    {Py_tp_new, ring_writer_new},
    {Py_tp_dealloc, ring_writer_dealloc},
    {Py_tp_methods, ring_writer_methods},
    {Py_tp_doc,
     "RingWriter(path, capacity, spill_prefix, spool_max_bytes=1073741824, memory_prefix=None)\n"
     "--\n\n"
     "The program's end of a ring.\n\n"
     "path: of the ring's file, which must not exist. None: memory of this process alone, which "
     "is\n"
     "no file and spills nothing. capacity: bytes, 64 KiB to 1 GiB in whole pages. spill_prefix:\n"
     "the path of spill segments on disk, up to their number. spool_max_bytes: what their folder\n"
     "may hold, in bytes; 0: nothing is written there. memory_prefix: the path of spill segments\n"
     "on tmpfs, where eight times the capacity is spilled to first; None: on disk only.\n\n"
     "Raises ValueError for a capacity that no ring has, OSError where the ring cannot be made."},
    {0, NULL},
};

static PyType_Spec ring_writer_spec = {
    .name = "mlflow_fasttrace._core.RingWriter",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_writer_slots,
};

int ring_writer_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &ring_writer_spec, &state->types.ring_writer, "RingWriter");
}
