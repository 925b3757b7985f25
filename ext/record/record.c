#include "record/record.h"

static bool read_id(Reader *r, uint32_t size, const char **id)
{
    Token token = reader_next(r);
    if (token.kind != TOKEN_BIN || token.size != size) {
        return false;
    }
    *id = token.bytes;
    return true;
}

static bool read_uint(Reader *r, uint64_t *value)
{
    Token token = reader_next(r);
    if (token.kind != TOKEN_UINT) {
        return false;
    }
    *value = token.u;
    return true;
}

static bool read_text(Reader *r, Token *text)
{
    *text = reader_next(r);
    return text->kind == TOKEN_STR || (text->kind == TOKEN_EXT && text->ext == EXT_SURROGATES);
}

/* A map whose keys are texts: the number of its pairs, and a reader at the first. Both may be NULL.
 */
static bool read_pairs(Reader *r, uint32_t *count, Reader *at)
{
    Token head;
    if (!reader_expect(r, TOKEN_MAP, &head)) {
        return false;
    }
    if (count != NULL) {
        *count = head.size;
        *at = *r;
    }
    for (uint32_t i = 0; i < head.size; i++) {
        Token key;
        if (!read_text(r, &key) || !reader_skip(r)) {
            return false;
        }
    }
    return true;
}

static bool read_triples(Reader *r, uint32_t *count, Reader *at, bool event)
{
    Token head;
    if (!reader_expect(r, TOKEN_ARRAY, &head)) {
        return false;
    }
    *count = head.size;
    *at = *r;
    for (uint32_t i = 0; i < head.size; i++) {
        Token triple, text, second;
        if (!reader_expect(r, TOKEN_ARRAY, &triple) || triple.size != 3 || !read_text(r, &text)) {
            return false;
        }
        second = reader_next(r);
        if (second.kind != (event ? TOKEN_UINT : TOKEN_STR) || !read_pairs(r, NULL, NULL)) {
            return false;
        }
    }
    return true;
}

int span_record_parse(SpanRecord *span, const void *bytes, size_t size)
{
    Reader r = reader_over(bytes, size);
    Token head, parent;
    uint64_t kind;

    if (!reader_expect(&r, TOKEN_ARRAY, &head) ||
        (head.size != SPAN_FIELDS && head.size != SPAN_FIELDS - 1) || !read_uint(&r, &kind) ||
        kind != RECORD_SPAN || !read_id(&r, TRACE_ID_SIZE, &span->trace_id) ||
        !read_id(&r, SPAN_ID_SIZE, &span->span_id)) {
        return -1;
    }
    parent = reader_next(&r);
    if (parent.kind == TOKEN_BIN && parent.size == SPAN_ID_SIZE) {
        span->parent_id = parent.bytes;
    }
    else if (parent.kind == TOKEN_NIL) {
        span->parent_id = NULL;
    }
    else {
        return -1;
    }
    if (!read_text(&r, &span->name) || !read_uint(&r, &span->start_ns) ||
        !read_uint(&r, &span->end_ns) || !read_uint(&r, &span->status) || span->status > 2 ||
        !read_text(&r, &span->status_message) ||
        !read_pairs(&r, &span->attributes, &span->attributes_at) ||
        !read_triples(&r, &span->events, &span->events_at, true) ||
        !read_triples(&r, &span->links, &span->links_at, false)) {
        return -1;
    }
    span->kind = SPAN_KIND_INTERNAL;
    if (head.size == SPAN_FIELDS && (!read_uint(&r, &span->kind) || span->kind > SPAN_KIND_LAST)) {
        return -1;
    }
    return r.at == r.end ? 0 : -1;
}

/* The fields of a trace record behind its id. */
static bool trace_fields(Reader *r, const char *phase)
{
    Token token;
    uint64_t number;
    /* The sender marks the phase where it stands. */
    if (r->at + 1 != phase || (unsigned char)*r->at != 0xcc || !read_uint(r, &number) ||
        !read_uint(r, &number) || !read_uint(r, &number)) {
        return false;
    }
    token = reader_next(r);
    if ((token.kind != TOKEN_NIL && token.kind != TOKEN_UINT) || !read_uint(r, &number)) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (!read_pairs(r, NULL, NULL)) {
            return false;
        }
    }
    return true;
}

static bool attachment_fields(Reader *r)
{
    Token id;
    return read_text(r, &id) && reader_next(r).kind == TOKEN_BIN;
}

int record_kind(const void *bytes, size_t size, const char **trace_id)
{
    static const char no_id[TRACE_ID_SIZE];
    Reader r = reader_over(bytes, size);
    Token head;
    uint64_t kind;
    SpanRecord span;
    bool whole = false;
    if (reader_expect(&r, TOKEN_ARRAY, &head) && read_uint(&r, &kind) &&
        read_id(&r, TRACE_ID_SIZE, trace_id)) {
        if (kind == RECORD_SPAN) {
            whole = span_record_parse(&span, bytes, size) == 0;
        }
        else if (kind == RECORD_TRACE) {
            const char *phase = (const char *)bytes + RECORD_PHASE_OFFSET;
            whole = head.size == TRACE_FIELDS && size > RECORD_PHASE_OFFSET &&
                    trace_fields(&r, phase) && r.at == r.end;
        }
        else if (kind == RECORD_ATTACHMENT) {
            whole = head.size == ATTACHMENT_FIELDS && attachment_fields(&r) && r.at == r.end;
        }
    }
    if (!whole) {
        *trace_id = no_id;
        return 0;
    }
    return (int)kind;
}
