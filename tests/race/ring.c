/* ring.c: a program and its sender at one ring, in two threads under ThreadSanitizer.
 *
 *     ring FOLDER SECONDS
 *
 * The first thread is the sender, and the only one that runs Python. The other is the program: it
 * appends by the C functions that the core appends by, which run no Python, and need no GIL while
 * nobody else appends. What the two share is the ring's file, which both map. They share one
 * mapping here, for ThreadSanitizer knows memory by its address (see __wrap_mmap64). A spilled
 * segment is read by pread(), behind which ThreadSanitizer does not see; that its records are whole
 * is checked.
 *
 * Every record holds its number and bytes that follow from it. Each that was taken must be read
 * once, whole, from the ring or from a segment; in either the numbers rise. */
#define FASTTRACE_TEST_PROGRAM
#include "base/clock.h"
#include "record/frame.h"
#include "spool/ring_writer.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPACITY ((uint64_t)64 << 10)
#define MAX_RECORD 6000
#define MAX_RECORDS (1 << 22)

PyMODINIT_FUNC PyInit__core(void);

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "not so: %s\n", what);
        if (PyErr_Occurred()) {
            PyErr_Print();
        }
        exit(1);
    }
}

static PyObject *made(PyObject *object)
{
    check(object != NULL, "no exception where none is due");
    return object;
}

static void done(PyObject *object) { Py_DECREF(made(object)); }

/* ---- one mapping of one file ---- */

/* mmap() under the name that it has where offsets are 64 bits wide, as Python's headers say. */
void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t size);

static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER;

/* The ring's mapping. */
static struct {
    void *at;
    dev_t device;
    ino_t inode;
} ring_mapping;

/* Maps a file; the ring's where it is mapped already. */
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0 || (uint64_t)info.st_size != size ||
        size != CAPACITY + 4096) {
        return __real_mmap64(at, size, protection, flags, fd, offset);
    }
    pthread_mutex_lock(&mappings_lock);
    if (ring_mapping.at == NULL) {
        ring_mapping.at = __real_mmap64(at, size, protection, flags, fd, offset);
        ring_mapping.device = info.st_dev;
        ring_mapping.inode = info.st_ino;
    }
    check(ring_mapping.device == info.st_dev && ring_mapping.inode == info.st_ino,
          "there is one ring");
    pthread_mutex_unlock(&mappings_lock);
    return ring_mapping.at;
}

/* Unmaps all but the ring. */
int __wrap_munmap(void *at, size_t size)
{
    return at == ring_mapping.at ? 0 : __real_munmap(at, size);
}

/* ---- records ---- */

static char taken[MAX_RECORDS]; /* by the ring or a segment; the program's until it has ended */
static char read_once[MAX_RECORDS];

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 31) * 0x9e3779b185ebca87u;
    return x ^ x >> 29;
}

/* The size of a record; some are larger than an eighth of the ring. */
static size_t size_of(uint32_t number)
{
    uint64_t bits = mixed(number + 1);
    return sizeof number + bits % (bits >> 32 & 31 ? 300 : MAX_RECORD);
}

static void make_record(Buffer *record, uint32_t number)
{
    size_t size = size_of(number);
    buffer_clear(record);
    buffer_append(record, &number, sizeof number);
    for (size_t i = sizeof number; i < size; i++) {
        buffer_byte(record, (char)mixed(number + i));
    }
}

/* Checks what was read, and that its numbers rise from `*last`. */
static void check_records(PyObject *items, int64_t *last)
{
    static Buffer expected;
    for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
        PyObject *bytes = PyTuple_GetItem(PyList_GetItem(items, i), 3);
        uint32_t number;
        check(PyBytes_Size(bytes) >= (Py_ssize_t)sizeof number, "a record has a number");
        memcpy(&number, PyBytes_AsString(bytes), sizeof number);
        check(number < MAX_RECORDS && !read_once[number], "a record is read once");
        read_once[number] = 1;
        check((int64_t)number > *last, "records are read in the order they were written");
        *last = number;
        make_record(&expected, number);
        check((size_t)PyBytes_Size(bytes) == expected.len &&
                  memcmp(PyBytes_AsString(bytes), expected.data, expected.len) == 0,
              "a record is read as it was written");
    }
}

/* ---- the program ---- */

typedef struct {
    Ring *ring;
    uint64_t until_ns;
    uint32_t records; /* made, once the program has ended */
    bool ended;       /* atomic */
} Program;

static void *program_main(void *argument)
{
    Program *program = argument;
    Buffer record = {0};
    uint32_t number = 0;
    while (steady_ns() < program->until_ns && number + 8 < MAX_RECORDS) {
        ring_admits_trace(program->ring);
        unsigned together = 1 + mixed(number) % 4;
        for (unsigned i = 0; i < together; i++, number++) {
            make_record(&record, number);
            taken[number] = ring_put(program->ring, &record);
        }
        ring_publish(program->ring);
        ring_lacks_sender(program->ring, clock_ns());
        if (number % 4096 < 4) {
            usleep(2000); /* the sender catches up, and the ring is used again */
        }
    }
    buffer_free(&record);
    program->records = number;
    __atomic_store_n(&program->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- the sender ---- */

static uint64_t number_of(PyObject *object, const char *name)
{
    PyObject *number = made(PyObject_GetAttrString(object, name));
    uint64_t value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    return value;
}

typedef struct {
    PyObject *module, *ring;
    const char *folder;
    PyObject *segment; /* the reader of the segment that is being read, or NULL */
    uint64_t sequence; /* its number */
    int64_t last_of_ring, last_of_segments;
} Sender;

static void read_ring(Sender *sender, unsigned round)
{
    PyObject *items = made(PyObject_CallMethod(sender->ring, "drain", "l", 1l << (4 + round % 13)));
    check_records(items, &sender->last_of_ring);
    Py_DECREF(items);
    PyObject *damaged = made(PyObject_GetAttrString(sender->ring, "damaged"));
    check(damaged == Py_False, "the ring is not damaged");
    Py_DECREF(damaged);
    unsigned long long cursor = number_of(sender->ring, "cursor");
    if (round % 3 == 0) {
        done(PyObject_CallMethod(sender->ring, "release", "K", cursor));
        done(PyObject_CallMethod(sender->ring, "set_delivered", "K", cursor));
    }
    done(PyObject_CallMethod(sender->ring, "heartbeat", "i", 0));
    done(PyObject_CallMethod(sender->ring, "set_server_state", "i", (int)(round % 4)));
    done(PyObject_CallMethod(sender->ring, "take_flush", NULL));
}

/* Opens the next segment, on disk or in memory, if it is there. */
static PyObject *open_segment(Sender *sender)
{
    char path[4096];
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        snprintf(path, sizeof path, "%s/%s-%06llu.seg", sender->folder,
                 in_memory ? "spill-memory" : "spill", (unsigned long long)sender->sequence);
        if (access(path, F_OK) == 0) {
            PyObject *reader =
                made(PyObject_CallMethod(sender->module, "SegmentReader", "s", path));
            unlink(path);
            return reader;
        }
    }
    return NULL;
}

/* Reads one step of the segments. */
static void read_segments(Sender *sender)
{
    uint64_t written = number_of(sender->ring, "spill_sequence");
    if (sender->segment == NULL) {
        sender->segment = open_segment(sender);
        if (sender->segment == NULL) {
            sender->sequence += sender->sequence < written;
            return;
        }
    }
    PyObject *items = made(PyObject_CallMethod(sender->segment, "read", "l", 100000l));
    Py_ssize_t count = PyList_Size(items);
    check_records(items, &sender->last_of_segments);
    Py_DECREF(items);
    PyObject *damaged = made(PyObject_GetAttrString(sender->segment, "damaged"));
    check(damaged == Py_False, "a segment is not damaged");
    Py_DECREF(damaged);
    done(PyObject_CallMethod(sender->ring, "add_spill_delivered", "n", count));
    if (count == 0 && sender->sequence < written) { /* it has ended, and all of it is read */
        Py_CLEAR(sender->segment);
        sender->sequence++;
    }
}

static bool is_all_read(Sender *sender)
{
    return number_of(sender->ring, "cursor") == number_of(sender->ring, "head") &&
           number_of(sender->ring, "spilled") == number_of(sender->ring, "spill_delivered");
}

int main(int argc, char **argv)
{
    check(argc == 3, "the arguments are a folder and seconds");
    check(PyImport_AppendInittab("_core", PyInit__core) == 0, "the core is built in");
    Py_InitializeEx(0);
    PyObject *module = made(PyImport_ImportModule("_core"));
    char ring_path[4096], prefix[4096], memory_prefix[4096];
    snprintf(ring_path, sizeof ring_path, "%s/1.ring", argv[1]);
    snprintf(prefix, sizeof prefix, "%s/spill", argv[1]);
    snprintf(memory_prefix, sizeof memory_prefix, "%s/spill-memory", argv[1]);
    PyObject *writer =
        made(PyObject_CallMethod(module, "RingWriter", "sKsKs", ring_path, (long long)CAPACITY,
                                 prefix, 1ll << 28, memory_prefix));
    Sender sender = {
        .module = module, .folder = argv[1], .last_of_ring = -1, .last_of_segments = -1};
    sender.ring = made(PyObject_CallMethod(module, "RingReader", "s", ring_path));
    check(ring_mapping.at != NULL, "both map the ring where ThreadSanitizer sees both");

    Program program = {.ring = (Ring *)writer};
    program.until_ns = steady_ns() + (uint64_t)atoi(argv[2]) * 1000000000u;
    pthread_t thread;
    check(pthread_create(&thread, NULL, program_main, &program) == 0, "a thread can be had");
    bool ended;
    unsigned round = 0;
    do {
        ended = __atomic_load_n(&program.ended, __ATOMIC_ACQUIRE);
        read_ring(&sender, round++);
        read_segments(&sender);
    } while (!ended || !is_all_read(&sender));
    check(pthread_join(thread, NULL) == 0, "the program ends");

    uint32_t lost = 0, refused = 0;
    for (uint32_t i = 0; i < program.records; i++) {
        refused += !taken[i];
        lost += taken[i] != read_once[i];
    }
    printf("%u records, %llu of them spilled to %llu segments, %u refused\n", program.records,
           (unsigned long long)number_of(sender.ring, "spilled"),
           (unsigned long long)number_of(sender.ring, "spill_sequence"), refused);
    check(lost == 0, "what was taken is read, and what was refused is not");
    check(refused == number_of(sender.ring, "refused"), "what was refused is counted");
    check(number_of(sender.ring, "spilled") > 0, "something was spilled");
    return 0;
}
