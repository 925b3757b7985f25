/* segment_writer.c: what outgrows a ring. The format is in segment_format.h. */
#include "spool/segment_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zstd.h>

#define FRAME_CONTENT_TARGET ((size_t)256 << 10)

static const char zeros[8];

RawFrame segment_raw_frame(const Buffer *record)
{
    size_t content = RECORD_FRAME_SIZE(record->len);
    RawFrame raw = {.head = {.frame = {.content_size = (uint32_t)content,
                                       .stored_size = (uint32_t)content,
                                       .codec = CODEC_RAW,
                                       .records = 1},
                             .record = record_head(record->data, record->len)},
                    .record = record->data,
                    .size = record->len,
                    .padding = RECORD_PADDING(record->len)};
    Checksum checksum;
    checksum_begin(&checksum, content);
    checksum_add(&checksum, &raw.head.record, sizeof raw.head.record);
    checksum_add(&checksum, raw.record, raw.size);
    checksum_add(&checksum, zeros, raw.padding);
    raw.head.frame.checksum = checksum_end(&checksum);
    return raw;
}

bool raw_frame_write(int fd, const RawFrame *frame)
{
    struct iovec pieces[] = {{(void *)(uintptr_t)&frame->head, sizeof frame->head},
                             {(void *)(uintptr_t)frame->record, frame->size},
                             {(void *)(uintptr_t)zeros, frame->padding}};
    ssize_t n;
    do {
        n = writev(fd, pieces, 3);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return false;
    }
    /* What is left of each piece, where not all was written at once. */
    size_t written = (size_t)n;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t skipped = written < pieces[i].iov_len ? written : pieces[i].iov_len;
        written -= skipped;
        if (!write_whole(fd, (char *)pieces[i].iov_base + skipped, pieces[i].iov_len - skipped)) {
            return false;
        }
    }
    return true;
}

static bool put_frame(int fd, const Buffer *content, uint32_t records, Buffer *stored, int level)
{
    size_t bound = ZSTD_compressBound(content->len);
    buffer_clear(stored);
    if (!buffer_reserve(stored, bound)) {
        errno = ENOMEM;
        return false;
    }
    size_t size = ZSTD_compress(stored->data, stored->cap, content->data, content->len, level);
    SegmentFrame head = {.content_size = (uint32_t)content->len, .records = records};
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

/* Writes a frame of one large record, of which there is no copy but the compressed one. False with
 * errno set. */
static bool put_large_record(int fd, const Buffer *record, Buffer *stored, int level)
{
    RawFrame raw = segment_raw_frame(record);
    SegmentFrame head = raw.head.frame;
    ZSTD_inBuffer pieces[] = {{&raw.head.record, sizeof raw.head.record, 0},
                              {raw.record, raw.size, 0},
                              {zeros, raw.padding, 0}};
    const size_t last = sizeof pieces / sizeof *pieces - 1;
    ZSTD_CCtx *context = ZSTD_createCCtx();
    bool failed = context == NULL || raw_frame_size(&raw) > BUFFER_MAX ||
                  ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)) ||
                  ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(context, head.content_size));
    buffer_clear(stored);
    for (size_t i = 0, left = 1; !failed && i <= last; i += left == 0) {
        if (!buffer_reserve(stored, ZSTD_CStreamOutSize())) {
            failed = true;
            break;
        }
        ZSTD_outBuffer out = {stored->data + stored->len, stored->cap - stored->len, 0};
        size_t more = ZSTD_compressStream2(context, &out, &pieces[i],
                                           i == last ? ZSTD_e_end : ZSTD_e_continue);
        failed = ZSTD_isError(more);
        stored->len += out.pos;
        left = i == last ? more : pieces[i].size - pieces[i].pos;
    }
    ZSTD_freeCCtx(context);
    if (failed) {
        errno = ENOMEM;
        return false;
    }
    if (stored->len >= head.content_size) {
        return raw_frame_write(fd, &raw);
    }
    head.codec = CODEC_ZSTD;
    head.stored_size = (uint32_t)stored->len;
    head.checksum = checksum64(stored->data, stored->len);
    return write_whole(fd, &head, sizeof head) && write_whole(fd, stored->data, stored->len);
}

int segment_write_file(const char *path, PyObject *records, int level, unsigned long long *size)
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
        bool large = (size_t)length > BUFFER_LARGE;
        if (!large) {
            frame_append(&content, record, (size_t)length);
            count++;
        }
        if (content.failed) {
            errno = ENOMEM;
            goto done;
        }
        if (count > 0 && (large || content.len >= FRAME_CONTENT_TARGET || i == total - 1)) {
            if (!put_frame(fd, &content, count, &stored, level)) {
                goto done;
            }
            buffer_clear(&content);
            count = 0;
        }
        if (large) {
            Buffer view = {.data = record, .len = (size_t)length};
            if (!put_large_record(fd, &view, &stored, level)) {
                goto done;
            }
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
