/* span_json.c: the dictionary that MLflow makes of a span, field by field in its order. */
#include "record/span_json.h"

#include "value/json.h"

static void text(Buffer *out, const char *literal) { buffer_append(out, literal, strlen(literal)); }

static void base64(Buffer *out, const char *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = (const unsigned char *)bytes;
    for (size_t i = 0; i < size; i += 3) {
        size_t n = size - i < 3 ? size - i : 3;
        unsigned word = (unsigned)in[i] << 16 | (n > 1 ? (unsigned)in[i + 1] << 8 : 0) |
                        (n > 2 ? (unsigned)in[i + 2] : 0);
        buffer_byte(out, digits[word >> 18 & 63]);
        buffer_byte(out, digits[word >> 12 & 63]);
        buffer_byte(out, n > 1 ? digits[word >> 6 & 63] : '=');
        buffer_byte(out, n > 2 ? digits[word & 63] : '=');
    }
}

/* The functions below stop with false where the record is damaged, or a value of it cannot be
 * read for want of memory: `out` has failed then. */

/* The next value, a map of attributes; MLflow says null where there are none. */
static bool attributes_or_null(Buffer *out, Reader *r)
{
    Reader map = *r;
    if (reader_next(&map).size == 0) {
        *r = map;
        text(out, "null");
        return true;
    }
    return json_value(out, r, true) == CONVERT_WHOLE;
}

static bool span_events(Buffer *out, const SpanRecord *span)
{
    Reader r = span->events_at;
    for (uint32_t i = 0; i < span->events; i++) {
        reader_next(&r);
        Token name = reader_next(&r), time = reader_next(&r);
        text(out, i ? ", {\"name\": " : "{\"name\": ");
        json_string(out, name.bytes, name.size, true);
        text(out, ", \"time_unix_nano\": ");
        buffer_decimal(out, time.u);
        text(out, ", \"attributes\": ");
        if (!attributes_or_null(out, &r)) {
            return false;
        }
        buffer_byte(out, '}');
    }
    return true;
}

/* Escapes what a sink holds of a JSON text into the buffer that it leads to. */
static void escape(Sink *text)
{
    Buffer *held = &text->buffer, *out = text->to;
    size_t used = json_escape(out, held->data, held->len, true, true);
    held->len -= used;
    memmove(held->data, held->data + used, held->len);
    convert_inherit_failure(held, out);
}

/* The attributes, each as the string of its JSON text. */
static bool span_attributes(Buffer *out, const SpanRecord *span)
{
    Sink value = sink_into(escape, out);
    Reader r = span->attributes_at;
    bool whole = true;
    for (uint32_t i = 0; whole && i < span->attributes; i++) {
        if (i) {
            text(out, ", ");
        }
        Token key = reader_next(&r);
        json_string(out, key.bytes, key.size, true);
        text(out, ": ");
        buffer_byte(out, '"');
        buffer_clear(&value.buffer);
        whole = json_value(&value.buffer, &r, false) == CONVERT_WHOLE;
        convert_inherit_failure(out, &value.buffer);
        if (value.buffer.len > 0) {
            json_escape(out, value.buffer.data, value.buffer.len, true, false);
        }
        buffer_byte(out, '"');
    }
    buffer_free(&value.buffer);
    return whole;
}

static bool span_links(Buffer *out, const SpanRecord *span)
{
    Reader r = span->links_at;
    for (uint32_t i = 0; i < span->links; i++) {
        reader_next(&r);
        Token trace_id = reader_next(&r), span_id = reader_next(&r);
        text(out, i ? ", {\"trace_id\": " : "{\"trace_id\": ");
        json_string(out, trace_id.bytes, trace_id.size, true);
        text(out, ", \"span_id\": ");
        json_string(out, span_id.bytes, span_id.size, true);
        text(out, ", \"attributes\": ");
        if (!attributes_or_null(out, &r)) {
            return false;
        }
        buffer_byte(out, '}');
    }
    return true;
}

static bool whole_span(Buffer *out, const SpanRecord *span, uint32_t mlflow)
{
    static const char *const codes[] = {"STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"};
    static const char *const kinds[SPAN_KIND_LAST + 1] = {"INTERNAL", "SERVER", "CLIENT",
                                                          "PRODUCER", "CONSUMER"};

    text(out, "{\"trace_id\": \"");
    base64(out, span->trace_id, TRACE_ID_SIZE);
    text(out, "\", \"span_id\": \"");
    base64(out, span->span_id, SPAN_ID_SIZE);
    text(out, "\", \"parent_span_id\": ");
    if (span->parent_id != NULL) {
        buffer_byte(out, '"');
        base64(out, span->parent_id, SPAN_ID_SIZE);
        buffer_byte(out, '"');
    }
    else {
        text(out, "null");
    }
    text(out, ", \"name\": ");
    json_string(out, span->name.bytes, span->name.size, true);
    if (mlflow >= MLFLOW(3, 18)) {
        text(out, ", \"kind\": \"SPAN_KIND_");
        text(out, kinds[span->kind]);
        buffer_byte(out, '"');
    }
    text(out, ", \"start_time_unix_nano\": ");
    buffer_decimal(out, span->start_ns);
    text(out, ", \"end_time_unix_nano\": ");
    buffer_decimal(out, span->end_ns);
    text(out, ", \"events\": [");
    if (!span_events(out, span)) {
        return false;
    }
    text(out, "], \"status\": {\"code\": \"");
    text(out, codes[span->status]);
    text(out, "\", \"message\": ");
    json_string(out, span->status_message.bytes, span->status_message.size, true);
    text(out, "}, \"attributes\": {");
    if (!span_attributes(out, span)) {
        return false;
    }
    buffer_byte(out, '}');
    if (mlflow >= MLFLOW(3, 13) || span->links > 0) { /* a program's MLflow may be a newer one */
        text(out, ", \"links\": [");
        if (!span_links(out, span)) {
            return false;
        }
        buffer_byte(out, ']');
    }
    buffer_byte(out, '}');
    return true;
}

ConvertResult span_json(Buffer *out, const SpanRecord *span, uint32_t mlflow)
{
    bool whole = whole_span(out, span, mlflow);
    return convert_result(out, whole);
}
