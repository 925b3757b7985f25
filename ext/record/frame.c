#include "record/frame.h"

#include "record/record.h"

#define M1 0x9e3779b185ebca87u
#define M2 0xc2b2ae3d27d4eb4fu

/* Mixes one block into the lanes. */
static inline __attribute__((always_inline)) void mix_block(uint64_t lane[4],
                                                            const unsigned char *at)
{
    uint64_t word;
    for (int i = 0; i < 4; i++) {
        memcpy(&word, at + 8 * i, 8);
        lane[i] = (lane[i] ^ word) * M1;
        lane[i] = lane[i] << 31 | lane[i] >> 33;
    }
}

/* The sum of the lanes and of the bytes that are left, fewer than a block. */
static inline __attribute__((always_inline)) uint64_t sum_up(const uint64_t lane[4],
                                                             const unsigned char *at, size_t size)
{
    uint64_t word, sum = lane[0] ^ (lane[1] * M2) ^ (lane[2] << 17) ^ (lane[3] * M1);
    while (size > 0) {
        size_t step = size < 8 ? size : 8;
        word = 0;
        memcpy(&word, at, step);
        sum = (sum ^ word) * M2;
        sum ^= sum >> 29;
        at += step;
        size -= step;
    }
    sum ^= sum >> 33;
    sum *= M1;
    return sum ^ sum >> 29;
}

void checksum_begin(Checksum *c, uint64_t size)
{
    *c = (Checksum){.lane = {M1 ^ size, M2, M1 + M2, M1 - M2}};
}

void checksum_add(Checksum *c, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    if (c->held > 0) {
        size_t missing = CHECKSUM_BLOCK - c->held, taken = size < missing ? size : missing;
        memcpy(c->rest + c->held, at, taken);
        c->held += taken;
        at += taken;
        size -= taken;
        if (c->held < CHECKSUM_BLOCK) {
            return;
        }
        mix_block(c->lane, c->rest);
    }
    for (; size >= CHECKSUM_BLOCK; size -= CHECKSUM_BLOCK) {
        mix_block(c->lane, at);
        at += CHECKSUM_BLOCK;
    }
    memcpy(c->rest, at, size);
    c->held = size;
}

uint64_t checksum_end(const Checksum *c) { return sum_up(c->lane, c->rest, c->held); }

uint64_t checksum64(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    uint64_t lane[4] = {M1 ^ size, M2, M1 + M2, M1 - M2};
    while (size >= CHECKSUM_BLOCK) {
        mix_block(lane, at);
        at += CHECKSUM_BLOCK;
        size -= CHECKSUM_BLOCK;
    }
    return sum_up(lane, at, size);
}

void frame_append(Buffer *out, const char *record, size_t size)
{
    static const char zeros[8] = {0};
    RecordHead head = record_head(record, size);
    buffer_append(out, &head, sizeof head);
    buffer_append(out, record, size);
    buffer_append(out, zeros, RECORD_PADDING(size));
}

int frames_add(PyObject *list, uint64_t position, PyObject *record)
{
    const char *trace_id;
    /* A frame whose checksum is right and whose content is no record yields kind 0; the frames
     * behind it are still read. */
    int kind = record_kind(PyBytes_AsString(record), (size_t)PyBytes_Size(record), &trace_id);
    PyObject *item = Py_BuildValue("(Kiy#O)", (unsigned long long)position, kind, trace_id,
                                   (Py_ssize_t)TRACE_ID_SIZE, record);
    int result = item != NULL ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return result;
}

FramesResult frames_to_list(PyObject *list, const char *bytes, size_t size, uint64_t base,
                            size_t *used)
{
    size_t at = 0;
    FramesResult result = FRAMES_WHOLE;

    while (size - at >= sizeof(RecordHead)) {
        RecordHead head;
        memcpy(&head, bytes + at, sizeof head);
        uint64_t frame = RECORD_FRAME_SIZE((uint64_t)head.length);
        if (head.length > BUFFER_MAX) {
            result = FRAMES_DAMAGED;
            break;
        }
        if (frame > size - at) {
            break;
        }
        const char *record = bytes + at + sizeof head;
        if (checksum32(record, head.length) != head.checksum) {
            result = FRAMES_DAMAGED;
            break;
        }
        at += frame;
        PyObject *object = PyBytes_FromStringAndSize(record, (Py_ssize_t)head.length);
        int failed = object != NULL ? frames_add(list, base + at, object) : -1;
        Py_XDECREF(object);
        if (failed) {
            result = FRAMES_FAILED;
            break;
        }
    }
    *used = at;
    return result;
}
