/* otlp.c: a protobuf writer for OTLP's messages.
 *
 * Protobuf wants the length of a message before its content. A message is written behind one
 * reserved byte, and moved by the few bytes that a longer length needs when it is closed: most are
 * shorter than 128 bytes and never move.
 *
 * What protobuf cannot carry is degraded here, value by value, never a whole batch, and reported to
 * the caller:
 *   - protobuf's decoders stop at 100 nested messages, so what lies deeper than MAX_NESTING travels
 *     as its JSON text;
 *   - integers beyond 64 bits travel as their decimal text;
 *   - lone surrogates become "?" (as MLflow's client does). */
#include "record/otlp.h"

#include "value/json.h"

#include <stdio.h>

/* AnyValue levels below the span's own attribute (request, resource spans, scope spans, span,
 * key-value: 5 messages); a map level costs three messages, an array level two. */
#define MAX_NESTING 92

#define NESTING_OF_ATTRIBUTE 6

/* A value nested this deep is sent as text even though JSON could carry it: a Python reader of the
 * JSON could exceed its recursion limit. */
#define MAX_READ_NESTING 500

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 };

/* The scope of the spans that MLflow's tracing API makes. */
#define SCOPE_NAME "mlflow.tracing.provider"

/* OTLP's SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: it is known that the parent is of this process. */
#define FLAGS_LOCAL 0x100u

static void varint(Buffer *out, uint64_t value)
{
    unsigned char bytes[10];
    int n = 0;
    while (value >= 0x80) {
        bytes[n++] = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (unsigned char)value;
    buffer_append(out, bytes, (size_t)n);
}

static void tag(Buffer *out, unsigned field, unsigned wire) { varint(out, field << 3 | wire); }

static void fixed(Buffer *out, unsigned field, unsigned wire, uint64_t value, size_t size)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(value >> 8 * i);
    }
    tag(out, field, wire);
    buffer_append(out, bytes, size);
}

static void fixed64(Buffer *out, unsigned field, uint64_t value)
{
    fixed(out, field, WIRE_FIXED64, value, 8);
}

static void fixed32(Buffer *out, unsigned field, uint32_t value)
{
    fixed(out, field, WIRE_FIXED32, value, 4);
}

static void bytes_field(Buffer *out, unsigned field, const char *bytes, size_t size)
{
    tag(out, field, WIRE_LENGTH);
    varint(out, size);
    buffer_append(out, bytes, size);
}

static size_t open_message(Buffer *out, unsigned field)
{
    tag(out, field, WIRE_LENGTH);
    buffer_byte(out, 0);
    return out->len;
}

static void close_message(Buffer *out, size_t start)
{
    if (out->failed) {
        return;
    }
    size_t size = out->len - start;
    if (size < 0x80) {
        out->data[start - 1] = (char)size;
        return;
    }
    size_t extra = 0;
    for (size_t rest = size >> 7; rest; rest >>= 7) {
        extra++;
    }
    if (!buffer_reserve(out, extra)) {
        return;
    }
    memmove(out->data + start + extra, out->data + start, size);
    out->len = start - 1;
    varint(out, size);
    out->len += size;
}

/* A text with surrogates in it (ED A0..BF xx): each becomes one "?". */
static void sanitized_field(Buffer *out, unsigned field, const char *bytes, size_t size)
{
    size_t start = open_message(out, field);
    for (size_t i = 0; i < size;) {
        const unsigned char *at = (const unsigned char *)bytes + i;
        if (size - i >= 3 && at[0] == 0xed && at[1] >= 0xa0) {
            buffer_byte(out, '?');
            i += 3;
        }
        else {
            buffer_byte(out, at[0]);
            i++;
        }
    }
    close_message(out, start);
}

static void text_field(Buffer *out, unsigned field, const Token *text)
{
    if (text->kind == TOKEN_EXT && text->ext == EXT_SURROGATES) {
        sanitized_field(out, field, text->bytes, text->size);
    }
    else {
        bytes_field(out, field, text->bytes, text->size);
    }
}

/* The fields of AnyValue. */
enum {
    ANY_STRING = 1,
    ANY_BOOL = 2,
    ANY_INT = 3,
    ANY_DOUBLE = 4,
    ANY_ARRAY = 5,
    ANY_KVLIST = 6,
};

/* The functions below stop with false where the record is damaged, or a value of it cannot be
 * read for want of memory: `out` has failed then. */

/* The JSON text of the next value as an AnyValue's string, without a copy in between: surrogates
 * become "?" in place. */
static bool json_any_value(Buffer *out, Reader *value)
{
    size_t start = open_message(out, ANY_STRING);
    if (json_value(out, value, false) != CONVERT_WHOLE) {
        return false;
    }
    unsigned char *text = (unsigned char *)out->data + start;
    size_t size = out->len - start;
    unsigned char *from = memchr(text, 0xed, size), *to = from, *end = text + size;
    while (from != NULL && from < end) {
        if (end - from >= 3 && from[0] == 0xed && from[1] >= 0xa0) {
            *to++ = '?';
            from += 3;
        }
        else {
            *to++ = *from++;
        }
    }
    if (to != NULL) {
        out->len = start + (size_t)(to - text);
    }
    close_message(out, start);
    return true;
}

/* Whether containers lie in each other MAX_READ_NESTING levels deep. */
static bool is_too_deep_to_read(Reader r)
{
    uint64_t left[MAX_READ_NESTING]; /* items still to be read at each level */
    int depth = 0;
    do {
        Token token = reader_next(&r);
        if (token.kind == TOKEN_END || token.kind == TOKEN_DAMAGED) {
            break;
        }
        if (depth > 0) {
            left[depth - 1]--;
        }
        if (token.kind == TOKEN_ARRAY || token.kind == TOKEN_MAP) {
            left[depth++] = token.kind == TOKEN_MAP ? 2 * (uint64_t)token.size : token.size;
            if (depth == MAX_READ_NESTING) {
                return true;
            }
        }
        while (depth > 0 && left[depth - 1] == 0) {
            depth--;
        }
    } while (depth > 0);
    return false;
}

/* A value that is too deep for protobuf, as its JSON text. */
static bool deep_any_value(Buffer *out, Reader *value, bool *inexact)
{
    *inexact |= !is_too_deep_to_read(*value);
    return json_any_value(out, value);
}

/* The content of an AnyValue message. Depth is bounded by MAX_NESTING, so recursion is. */
static bool any_value(Buffer *out, Reader *r, int nesting, bool *inexact)
{
    Reader start = *r;
    Token token = reader_next(r);
    char digits[24];
    size_t mark;

    switch (token.kind) {
    case TOKEN_NIL:
        return true; /* an AnyValue without a value */
    case TOKEN_BOOL:
        tag(out, ANY_BOOL, WIRE_VARINT);
        buffer_byte(out, token.boolean);
        return true;
    case TOKEN_UINT:
        if (token.u > INT64_MAX) {
            *inexact = true;
            int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)token.u);
            bytes_field(out, ANY_STRING, digits, (size_t)n);
            return true;
        }
        tag(out, ANY_INT, WIRE_VARINT);
        varint(out, token.u);
        return true;
    case TOKEN_INT:
        tag(out, ANY_INT, WIRE_VARINT);
        varint(out, (uint64_t)token.i);
        return true;
    case TOKEN_FLOAT: {
        uint64_t bits;
        memcpy(&bits, &token.d, sizeof bits);
        fixed64(out, ANY_DOUBLE, bits);
        return true;
    }
    case TOKEN_STR:
        text_field(out, ANY_STRING, &token);
        return true;
    case TOKEN_EXT:
        if (token.ext == EXT_JSON_TEXT) {
            Reader embedded = reader_over(token.bytes, token.size);
            Buffer json = {0};
            ConvertResult result = json_value(&json, &embedded, true);
            if (result == CONVERT_WHOLE) {
                bytes_field(out, ANY_STRING, json.data, json.len);
            }
            convert_inherit_failure(out, &json);
            buffer_free(&json);
            return result == CONVERT_WHOLE;
        }
        if (token.ext != EXT_BIG_INTEGER && token.ext != EXT_SURROGATES) {
            return false;
        }
        *inexact |= token.ext == EXT_BIG_INTEGER;
        text_field(out, ANY_STRING, &token);
        return true;
    case TOKEN_ARRAY:
        if (nesting + 2 > MAX_NESTING) {
            *r = start;
            return deep_any_value(out, r, inexact);
        }
        mark = open_message(out, ANY_ARRAY);
        for (uint32_t i = 0; i < token.size; i++) {
            size_t item = open_message(out, 1);
            if (!any_value(out, r, nesting + 2, inexact)) {
                return false;
            }
            close_message(out, item);
        }
        close_message(out, mark);
        return true;
    case TOKEN_MAP:
        if (nesting + 3 > MAX_NESTING) {
            *r = start;
            return deep_any_value(out, r, inexact);
        }
        mark = open_message(out, ANY_KVLIST);
        for (uint32_t i = 0; i < token.size; i++) {
            size_t pair = open_message(out, 1);
            Token key = reader_next(r);
            if (key.kind != TOKEN_STR && key.kind != TOKEN_EXT) {
                return false;
            }
            text_field(out, 1, &key);
            size_t value = open_message(out, 2);
            if (!any_value(out, r, nesting + 3, inexact)) {
                return false;
            }
            close_message(out, value);
            close_message(out, pair);
        }
        close_message(out, mark);
        return true;
    default:
        return false;
    }
}

/* `count` pairs as KeyValue messages of that field; their values as JSON texts if `json`. */
static bool key_values(Buffer *out, unsigned field, Reader *r, uint32_t count, bool json,
                       bool *inexact)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t pair = open_message(out, field);
        Token key = reader_next(r);
        if (key.kind != TOKEN_STR && key.kind != TOKEN_EXT) {
            return false;
        }
        text_field(out, 1, &key);
        size_t value = open_message(out, 2);
        if (!(json ? json_any_value(out, r) : any_value(out, r, NESTING_OF_ATTRIBUTE, inexact))) {
            return false;
        }
        close_message(out, value);
        close_message(out, pair);
    }
    return true;
}

static bool encoded_map(Buffer *out, unsigned field, Reader map, bool *inexact)
{
    Token head;
    return reader_expect(&map, TOKEN_MAP, &head) &&
           key_values(out, field, &map, head.size, false, inexact);
}

ConvertResult otlp_begin(Buffer *out, OtlpMarks *marks, const Reader *resource)
{
    bool whole = true, inexact = false;
    marks->resource_spans = open_message(out, 1);
    size_t start = open_message(out, 1); /* stays empty for a server, as MLflow's client sends it */
    if (resource != NULL) {
        whole = encoded_map(out, 1, *resource, &inexact);
    }
    close_message(out, start);
    marks->scope_spans = open_message(out, 2);
    if (resource != NULL) {
        start = open_message(out, 1);
        bytes_field(out, 1, SCOPE_NAME, sizeof SCOPE_NAME - 1);
        close_message(out, start);
    }
    return convert_result(out, whole);
}

void otlp_end(Buffer *out, OtlpMarks marks)
{
    close_message(out, marks.scope_spans);
    close_message(out, marks.resource_spans);
}

/* A link's ids are hex texts; the server wants bytes. False when they are not. */
static bool hex_field(Buffer *out, unsigned field, const char *hex, size_t digits, size_t size)
{
    unsigned char bytes[TRACE_ID_SIZE] = {0};
    if (digits == 0 || digits > 2 * size) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        char c = hex[digits - 1 - i];
        int nibble = c >= '0' && c <= '9'   ? c - '0'
                     : c >= 'a' && c <= 'f' ? c - 'a' + 10
                     : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                            : -1;
        if (nibble < 0) {
            return false;
        }
        bytes[size - 1 - i / 2] |= (unsigned char)(nibble << 4 * (i & 1));
    }
    bytes_field(out, field, (char *)bytes, size);
    return true;
}

/* The events of a span. */
static bool span_events(Buffer *out, const SpanRecord *span, bool *inexact)
{
    Reader r = span->events_at;
    for (uint32_t i = 0; i < span->events; i++) {
        size_t event = open_message(out, 11);
        reader_next(&r);
        Token name = reader_next(&r), time = reader_next(&r), pairs;
        fixed64(out, 1, time.u);
        text_field(out, 2, &name);
        if (!reader_expect(&r, TOKEN_MAP, &pairs) ||
            !key_values(out, 3, &r, pairs.size, false, inexact)) {
            return false;
        }
        close_message(out, event);
    }
    return true;
}

/* The links of a span; those whose ids are no ids are left out, as MLflow does. */
static bool span_links(Buffer *out, const SpanRecord *span, bool for_collector, bool *inexact)
{
    Reader r = span->links_at;
    for (uint32_t i = 0; i < span->links; i++) {
        size_t before_link = out->len;
        size_t link = open_message(out, 13);
        reader_next(&r);
        Token trace_id = reader_next(&r), span_id = reader_next(&r), pairs;
        const char *hex = trace_id.bytes;
        size_t digits = trace_id.size;
        if (digits > 3 && memcmp(hex, "tr-", 3) == 0) {
            hex += 3;
            digits -= 3;
        }
        bool usable = hex_field(out, 1, hex, digits, TRACE_ID_SIZE) &&
                      hex_field(out, 2, span_id.bytes, span_id.size, SPAN_ID_SIZE);
        if (!reader_expect(&r, TOKEN_MAP, &pairs) ||
            !key_values(out, 4, &r, pairs.size, false, inexact)) {
            return false;
        }
        if (for_collector) {
            fixed32(out, 6, FLAGS_LOCAL);
        }
        if (usable) {
            close_message(out, link);
        }
        else {
            out->len = before_link;
        }
    }
    return true;
}

static void span_status(Buffer *out, const SpanRecord *span)
{
    if (!span->status && !span->status_message.size) {
        return;
    }
    size_t status = open_message(out, 15);
    if (span->status_message.size) {
        text_field(out, 2, &span->status_message);
    }
    if (span->status) {
        tag(out, 3, WIRE_VARINT);
        varint(out, span->status);
    }
    close_message(out, status);
}

static bool whole_span(Buffer *out, const SpanRecord *span, const CollectorForm *form,
                       bool with_kind, bool *inexact)
{
    size_t start = open_message(out, 2);

    bytes_field(out, 1, span->trace_id, TRACE_ID_SIZE);
    bytes_field(out, 2, span->span_id, SPAN_ID_SIZE);
    if (span->parent_id != NULL) {
        bytes_field(out, 4, span->parent_id, SPAN_ID_SIZE);
    }
    bool translated = form != NULL && form->name != NULL;
    if (translated) {
        bytes_field(out, 5, form->name, form->name_size);
    }
    else {
        text_field(out, 5, &span->name);
    }
    if (form != NULL || with_kind) {
        tag(out, 6, WIRE_VARINT);
        varint(out, form != NULL && form->kind ? form->kind : span->kind + 1);
    }
    fixed64(out, 7, span->start_ns);
    fixed64(out, 8, span->end_ns);

    Reader r = span->attributes_at;
    bool json = form != NULL && form->json_attributes;
    if ((!translated && !key_values(out, 9, &r, span->attributes, json, inexact)) ||
        (form != NULL && !encoded_map(out, 9, form->extra, inexact)) ||
        !span_events(out, span, inexact) || !span_links(out, span, form != NULL, inexact)) {
        return false;
    }
    span_status(out, span);
    if (form != NULL) {
        fixed32(out, 16, FLAGS_LOCAL);
    }
    close_message(out, start);
    return true;
}

ConvertResult otlp_span(Buffer *out, const SpanRecord *span, const CollectorForm *form,
                        bool with_kind, bool *inexact)
{
    size_t before = out->len;
    bool whole = whole_span(out, span, form, with_kind, inexact);
    ConvertResult result = convert_result(out, whole);
    if (result != CONVERT_WHOLE) {
        out->len = before;
    }
    if (result == CONVERT_TOO_LARGE) {
        out->failed = out->too_large = false; /* what is before the record is as it was */
    }
    return result;
}
