/* wire.h: msgpack, as this project writes and reads it.
 *
 * Writing is msgpack-c's own template, bound to our Buffer so that every append is inline.
 * Reading is a token reader that trusts nothing: every length is checked against what is left,
 * and it never recurses, so the depth of hostile input costs nothing here (msgpack-c's unpacker
 * builds a tree and gives up at depth 32).
 *
 * Beyond plain msgpack three ext types carry what JSON text can hold and msgpack cannot: */
#ifndef FASTTRACE_WIRE_H
#define FASTTRACE_WIRE_H

#include "base/buffer.h"

enum {
    EXT_BIG_INTEGER = 1, /* decimal digits, with sign */
    EXT_SURROGATES = 2,  /* a string with lone surrogates, in UTF-8 with surrogatepass */
    EXT_JSON_TEXT = 3,   /* a msgpack value; stands for the string that json.dumps makes of it */
};

#define msgpack_pack_inline_func(name) static inline void wire_pack##name
#define msgpack_pack_user Buffer *
#define msgpack_pack_append_buffer(user, bytes, size) buffer_append(user, bytes, size)
/* Called by this name, whatever the functions are named above: without it there is no declaration.
 */
#define msgpack_pack_ext wire_pack_ext
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <msgpack/sysdep.h>
#include <msgpack/pack_define.h>
#include <msgpack/timestamp.h>
#include <msgpack/pack_template.h>
#undef msgpack_pack_ext

/* A second time, for a place that has room: put_str(&at, size) and the like. */
#define msgpack_pack_inline_func(name) static inline void put##name
#define msgpack_pack_user char **
#define msgpack_pack_append_buffer(at, bytes, size)                                                \
    do {                                                                                           \
        memcpy(*(at), bytes, size);                                                                \
        *(at) += (size);                                                                           \
    } while (0)
#define msgpack_pack_ext put_ext
#include <msgpack/pack_template.h>
#undef msgpack_pack_ext
#pragma GCC diagnostic pop

/* The head of a text or container, or a number, is no longer than this. */
#define WIRE_HEAD_MAX 9

/* The first byte of a str of fewer bytes than WIRE_FIXSTR_END, to which their number is added. */
#define WIRE_FIXSTR 0xa0
#define WIRE_FIXSTR_END 32

/* Writes the bytes of a text as str to a place that has room; gives what lies behind. */
static inline __attribute__((always_inline)) char *put_text(char *at, const char *utf8, size_t size)
{
    if (LIKELY(size < WIRE_FIXSTR_END)) {
        *at++ = (char)(WIRE_FIXSTR | size);
        copy_small(at, utf8, size);
    }
    else {
        put_str(&at, size);
        memcpy(at, utf8, size);
    }
    return at + size;
}

typedef enum {
    TOKEN_END,     /* nothing left */
    TOKEN_DAMAGED, /* truncated or not msgpack */
    TOKEN_NIL,
    TOKEN_BOOL,
    TOKEN_UINT, /* in `u` */
    TOKEN_INT,  /* negative, in `i` */
    TOKEN_FLOAT,
    TOKEN_STR,   /* bytes, size */
    TOKEN_BIN,   /* bytes, size */
    TOKEN_EXT,   /* ext, bytes, size */
    TOKEN_ARRAY, /* size: elements that follow */
    TOKEN_MAP,   /* size: pairs that follow */
} TokenKind;

typedef struct {
    TokenKind kind;
    int ext;
    uint32_t size;
    const char *bytes; /* borrowed from the reader's input */
    union {
        bool boolean;
        uint64_t u;
        int64_t i;
        double d;
    };
} Token;

/* What came of turning encoded bytes into another form. Only the first two are of the bytes: the
 * same bytes may be turned into that form when there is more memory. */
typedef enum {
    CONVERT_WHOLE,
    CONVERT_DAMAGED,   /* they are not what a program writes */
    CONVERT_TOO_LARGE, /* the other form would pass BUFFER_MAX, whatever memory there is */
    CONVERT_NO_MEMORY,
} ConvertResult;

/* The result of a conversion into `out` by functions that stop with false where the bytes are
 * damaged and mark `out` as failed where an allocation fails. */
static inline ConvertResult convert_result(const Buffer *out, bool whole)
{
    if (out->failed) {
        return out->too_large ? CONVERT_TOO_LARGE : CONVERT_NO_MEMORY;
    }
    return whole ? CONVERT_WHOLE : CONVERT_DAMAGED;
}

/* Marks `out` as failed where a buffer that is to be copied into it has failed. */
static inline void convert_inherit_failure(Buffer *out, const Buffer *part)
{
    out->failed |= part->failed;
    out->too_large |= part->too_large;
}

typedef struct {
    const char *at;
    const char *end;
} Reader;

static inline Reader reader_over(const void *bytes, size_t size)
{
    return (Reader){.at = bytes, .end = (const char *)bytes + size};
}

Token reader_next(Reader *r);

/* Skips one whole value; false when it is damaged. */
bool reader_skip(Reader *r);

/* Whether an EXT_BIG_INTEGER holds what an encoder writes: the decimal digits of a number that is
 * not zero, with a sign perhaps. */
bool is_big_integer(const Token *token);

/* Reads one token and tells whether it is of that kind. */
static inline bool reader_expect(Reader *r, TokenKind kind, Token *token)
{
    *token = reader_next(r);
    return token->kind == kind;
}

#endif
