#include "record/frame.h"

#include "record/record.h"

uint64_t checksum64(const void *bytes, size_t size)
{
    static const uint64_t m1 = 0x9e3779b185ebca87u, m2 = 0xc2b2ae3d27d4eb4fu;
    const unsigned char *at = bytes;
    uint64_t lane[4] = {m1 ^ size, m2, m1 + m2, m1 - m2};
    uint64_t word;

    while (size >= 32) {
        for (int i = 0; i < 4; i++) {
            memcpy(&word, at + 8 * i, 8);
            lane[i] = (lane[i] ^ word) * m1;
            lane[i] = lane[i] << 31 | lane[i] >> 33;
        }
        at += 32;
        size -= 32;
    }
    uint64_t sum = lane[0] ^ (lane[1] * m2) ^ (lane[2] << 17) ^ (lane[3] * m1);
    while (size > 0) {
        size_t step = size < 8 ? size : 8;
        word = 0;
        memcpy(&word, at, step);
        sum = (sum ^ word) * m2;
        sum ^= sum >> 29;
        at += step;
        size -= step;
    }
    sum ^= sum >> 33;
    sum *= m1;
    return sum ^ sum >> 29;
}

void frame_append(Buffer *out, const char *record, size_t size)
{
    static const char zeros[8] = {0};
    RecordHead head = {.length = (uint32_t)size, .checksum = checksum32(record, size)};
    buffer_append(out, &head, sizeof head);
    buffer_append(out, record, size);
    buffer_append(out, zeros, RECORD_PADDING(size));
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
        const char *record = bytes + at + sizeof head, *trace_id;
        if (checksum32(record, head.length) != head.checksum) {
            result = FRAMES_DAMAGED;
            break;
        }
        /* A frame whose checksum is right and whose content is no record yields kind 0; the frames
         * behind it are still read. */
        int kind = record_kind(record, head.length, &trace_id);
        at += frame;
        PyObject *item = Py_BuildValue("(Kiy#y#)", (unsigned long long)(base + at), kind, trace_id,
                                       (Py_ssize_t)TRACE_ID_SIZE, record, (Py_ssize_t)head.length);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_XDECREF(item);
            result = FRAMES_FAILED;
            break;
        }
        Py_DECREF(item);
    }
    *used = at;
    return result;
}
