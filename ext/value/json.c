/* json.c: the text that json.dumps makes of an encoded value. */
#include "value/json.h"

static void text(Buffer *out, const char *literal) { buffer_append(out, literal, strlen(literal)); }

static void unicode_escape(Buffer *out, unsigned code)
{
    static const char hex[] = "0123456789abcdef";
    char escape[6] = {
        '\\', 'u', hex[code >> 12 & 15], hex[code >> 8 & 15], hex[code >> 4 & 15], hex[code & 15]};
    buffer_append(out, escape, sizeof escape);
}

/* Appends what is to stay as it is, which may be long. */
static void append_run(Buffer *out, const unsigned char *run, size_t size)
{
    while (UNLIKELY(size > SINK_PIECE && out->drains)) {
        buffer_append(out, run, SINK_PIECE);
        run += SINK_PIECE;
        size -= SINK_PIECE;
    }
    buffer_append(out, run, size);
}

/* Whether a character, or a byte of one, stands in JSON as it is. */
static bool is_plain(unsigned char c, bool ascii)
{
    return c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !ascii);
}

/* Each of eight bytes of a word. */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether is_plain() holds for eight bytes. A byte that is zero borrows from its high bit when one
 * is subtracted, as does one below 0x20 when that is; of what is not plain the lowest is always
 * seen. */
static bool eight_are_plain(const unsigned char *bytes, bool ascii)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    uint64_t quote = word ^ EACH('"'), backslash = word ^ EACH('\\');
    uint64_t special = ((word - EACH(0x20)) & ~word) | ((quote - EACH(1)) & ~quote) |
                       ((backslash - EACH(1)) & ~backslash);
    if (ascii) {
        special |= word | (word + EACH(1));
    }
    return (special & EACH(0x80)) == 0;
}

static const unsigned char *end_of_plain(const unsigned char *at, const unsigned char *end,
                                         bool ascii)
{
    while (end - at >= 8 && eight_are_plain(at, ascii)) {
        at += 8;
    }
    while (at < end && is_plain(*at, ascii)) {
        at++;
    }
    return at;
}

size_t json_escape(Buffer *out, const char *bytes, size_t size, bool ascii, bool more_follows)
{
    const unsigned char *at = (const unsigned char *)bytes, *end = at + size;

    while (at < end) {
        const unsigned char *plain = at;
        at = end_of_plain(at, end, ascii);
        append_run(out, plain, (size_t)(at - plain));
        if (at == end) {
            break;
        }
        unsigned char c = *at++;
        switch (c) {
        case '"':
            text(out, "\\\"");
            continue;
        case '\\':
            text(out, "\\\\");
            continue;
        case '\n':
            text(out, "\\n");
            continue;
        case '\r':
            text(out, "\\r");
            continue;
        case '\t':
            text(out, "\\t");
            continue;
        case '\f':
            text(out, "\\f");
            continue;
        case '\b':
            text(out, "\\b");
            continue;
        }
        if (c < 0x80) {
            unicode_escape(out, c);
            continue;
        }
        /* A multi-byte sequence, where ASCII is wanted. One that is cut off becomes U+FFFD; others
         * are taken to be valid. */
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        unsigned code = c & (0x3f >> more);
        if (end - at < more) {
            if (more_follows) {
                return size - (size_t)(end - at) - 1;
            }
            unicode_escape(out, 0xfffd);
            break;
        }
        for (int i = 0; i < more; i++) {
            code = code << 6 | (at[i] & 0x3f);
        }
        at += more;
        if (code >= 0x10000) {
            code -= 0x10000;
            unicode_escape(out, 0xd800 | (code >> 10 & 0x3ff));
            unicode_escape(out, 0xdc00 | (code & 0x3ff));
        }
        else {
            unicode_escape(out, code);
        }
    }
    return size;
}

void json_string(Buffer *out, const char *bytes, size_t size, bool ascii)
{
    buffer_byte(out, '"');
    if (size > 0) { /* an empty text may come as a NULL pointer */
        json_escape(out, bytes, size, ascii, false);
    }
    buffer_byte(out, '"');
}

static void float_text(Buffer *out, double value)
{
    if (value != value) {
        text(out, "NaN");
        return;
    }
    if (value > 1.7976931348623157e308 || value < -1.7976931348623157e308) {
        text(out, value > 0 ? "Infinity" : "-Infinity");
        return;
    }
    char *repr = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (repr == NULL) {
        PyErr_Clear(); /* a MemoryError, which the buffer's failure stands for */
        out->failed = true;
        return;
    }
    text(out, repr);
    PyMem_Free(repr);
}

/* Containers that are open, so that depth costs heap and never stack. */
typedef struct {
    uint32_t left; /* values still to come; a key counts as one */
    bool map;
    bool first;
} Level;

/* The functions below stop with false where the value is damaged, or cannot be read for want of
 * memory: `out` has failed then. */
static bool write_value(Buffer *out, Reader *value, bool ascii, bool embedded);

/* An ext value. One that is nested is damaged: the writer never nests EXT_JSON_TEXT, and damage
 * must not recurse. */
static bool write_ext(Buffer *out, const Token *token, bool ascii, bool embedded)
{
    switch (token->ext) {
    case EXT_BIG_INTEGER:
        if (!is_big_integer(token)) {
            return false;
        }
        buffer_append(out, token->bytes, token->size);
        return true;
    case EXT_SURROGATES:
        json_string(out, token->bytes, token->size, ascii);
        return true;
    case EXT_JSON_TEXT: {
        Buffer inner = {0};
        Reader content = reader_over(token->bytes, token->size);
        bool whole =
            !embedded && write_value(&inner, &content, true, true) && content.at == content.end;
        if (whole && !inner.failed) {
            json_string(out, inner.data, inner.len, ascii);
        }
        convert_inherit_failure(out, &inner);
        buffer_free(&inner);
        return whole;
    }
    default:
        return false;
    }
}

/* A value that is no container. */
static bool write_scalar(Buffer *out, const Token *token, bool ascii, bool embedded)
{
    switch (token->kind) {
    case TOKEN_NIL:
        text(out, "null");
        return true;
    case TOKEN_BOOL:
        text(out, token->boolean ? "true" : "false");
        return true;
    case TOKEN_UINT:
        buffer_decimal(out, token->u);
        return true;
    case TOKEN_INT:
        if (token->i < 0) {
            buffer_byte(out, '-');
        }
        buffer_decimal(out, token->i < 0 ? 0 - (uint64_t)token->i : (uint64_t)token->i);
        return true;
    case TOKEN_FLOAT:
        float_text(out, token->d);
        return true;
    case TOKEN_STR:
        json_string(out, token->bytes, token->size, ascii);
        return true;
    case TOKEN_EXT:
        return write_ext(out, token, ascii, embedded);
    default:
        return false;
    }
}

static bool is_key_next(const Level *level) { return level->map && !(level->left & 1); }

static bool is_text(const Token *token)
{
    return token->kind == TOKEN_STR || (token->kind == TOKEN_EXT && token->ext == EXT_SURROGATES);
}

/* What stands before the next value of a container; a value of a pair follows its key. */
static void separate(Buffer *out, Level *level)
{
    if (level->map && !is_key_next(level)) {
        text(out, ": ");
    }
    else if (!level->first) {
        text(out, ", ");
    }
    level->first = false;
    level->left--;
}

static bool write_value(Buffer *out, Reader *value, bool ascii, bool embedded)
{
    Level inline_levels[32], *levels = inline_levels;
    size_t depth = 0, room = sizeof inline_levels / sizeof inline_levels[0];
    bool whole = false;

    do {
        bool is_key = false;
        if (depth > 0) {
            Level *level = &levels[depth - 1];
            if (level->left == 0) {
                buffer_byte(out, level->map ? '}' : ']');
                depth--;
                continue;
            }
            is_key = is_key_next(level);
            separate(out, level);
        }
        Token token = reader_next(value);
        if (is_key && !is_text(&token)) {
            goto done;
        }
        bool map = token.kind == TOKEN_MAP;
        if (!map && token.kind != TOKEN_ARRAY) {
            if (!write_scalar(out, &token, ascii, embedded)) {
                goto done;
            }
            continue;
        }
        if (token.size > (size_t)(value->end - value->at)) {
            goto done;
        }
        if (depth == room) {
            Level *grown = array_grow(levels, inline_levels, &room, sizeof *levels);
            if (grown == NULL) {
                out->failed = true;
                goto done;
            }
            levels = grown;
        }
        levels[depth++] =
            (Level){.left = map ? 2 * token.size : token.size, .map = map, .first = true};
        buffer_byte(out, map ? '{' : '[');
    } while (depth > 0);
    whole = true;
done:
    if (levels != inline_levels) {
        free(levels);
    }
    return whole;
}

ConvertResult json_value(Buffer *out, Reader *value, bool ascii)
{
    bool whole = write_value(out, value, ascii, false);
    return convert_result(out, whole);
}
