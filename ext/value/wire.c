#include "value/wire.h"

static uint64_t big_endian(const unsigned char *bytes, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static Token signed_token(int64_t value)
{
    if (value >= 0) {
        return (Token){.kind = TOKEN_UINT, .u = (uint64_t)value};
    }
    return (Token){.kind = TOKEN_INT, .i = value};
}

/* A run of bytes: the reader moves past it, or the input is damaged. */
static Token bytes_token(Reader *r, TokenKind kind, uint64_t size, int ext)
{
    if (size > (uint64_t)(r->end - r->at)) {
        return (Token){.kind = TOKEN_DAMAGED};
    }
    Token token = {.kind = kind, .ext = ext, .size = (uint32_t)size, .bytes = r->at};
    r->at += size;
    return token;
}

Token reader_next(Reader *r)
{
    static const Token damaged = {.kind = TOKEN_DAMAGED};

    if (r->at >= r->end) {
        return (Token){.kind = TOKEN_END};
    }
    const unsigned char *in = (const unsigned char *)r->at;
    size_t left = (size_t)(r->end - r->at) - 1;
    unsigned char tag = in[0];

    if (tag <= 0x7f) {
        r->at += 1;
        return (Token){.kind = TOKEN_UINT, .u = tag};
    }
    if (tag >= 0xe0) {
        r->at += 1;
        return (Token){.kind = TOKEN_INT, .i = (int8_t)tag};
    }
    if (tag <= 0x8f) {
        r->at += 1;
        return (Token){.kind = TOKEN_MAP, .size = tag & 0x0f};
    }
    if (tag <= 0x9f) {
        r->at += 1;
        return (Token){.kind = TOKEN_ARRAY, .size = tag & 0x0f};
    }
    if (tag <= 0xbf) {
        r->at += 1;
        return bytes_token(r, TOKEN_STR, tag & 0x1f, 0);
    }

    /* The bytes of the head that follow the tag. */
    static const unsigned char head_size[0x20] = {/* c0 nil, -, false, true, bin8-32, ext8-32 */ 0,
                                                  0,
                                                  0,
                                                  0,
                                                  1,
                                                  2,
                                                  4,
                                                  2,
                                                  3,
                                                  5,
                                                  /* ca float, double, uint8-64, int8-64 */ 4,
                                                  8,
                                                  1,
                                                  2,
                                                  4,
                                                  8,
                                                  1,
                                                  2,
                                                  4,
                                                  8,
                                                  /* d4 fixext1-16 */ 1,
                                                  1,
                                                  1,
                                                  1,
                                                  1,
                                                  /* d9 str8-32, array16-32, map16-32 */ 1,
                                                  2,
                                                  4,
                                                  2,
                                                  4,
                                                  2,
                                                  4};
    int head = head_size[tag - 0xc0];
    if ((size_t)head > left) {
        return damaged;
    }
    uint64_t value = big_endian(in + 1, head);
    r->at += 1 + head;

    switch (tag) {
    case 0xc0:
        return (Token){.kind = TOKEN_NIL};
    case 0xc2:
    case 0xc3:
        return (Token){.kind = TOKEN_BOOL, .boolean = tag == 0xc3};
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return bytes_token(r, TOKEN_BIN, value, 0);
    case 0xc7:
    case 0xc8:
    case 0xc9: /* the type follows the length */
        return bytes_token(r, TOKEN_EXT, value >> 8, (int8_t)(value & 0xff));
    case 0xca: {
        uint32_t bits = (uint32_t)value;
        float f;
        memcpy(&f, &bits, sizeof f);
        return (Token){.kind = TOKEN_FLOAT, .d = f};
    }
    case 0xcb: {
        double d;
        memcpy(&d, &value, sizeof d);
        return (Token){.kind = TOKEN_FLOAT, .d = d};
    }
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return (Token){.kind = TOKEN_UINT, .u = value};
    case 0xd0:
        return signed_token((int8_t)value);
    case 0xd1:
        return signed_token((int16_t)value);
    case 0xd2:
        return signed_token((int32_t)value);
    case 0xd3:
        return signed_token((int64_t)value);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return bytes_token(r, TOKEN_EXT, (uint64_t)1 << (tag - 0xd4), (int8_t)value);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return bytes_token(r, TOKEN_STR, value, 0);
    case 0xdc:
    case 0xdd:
        return (Token){.kind = TOKEN_ARRAY, .size = (uint32_t)value};
    case 0xde:
    case 0xdf:
        return (Token){.kind = TOKEN_MAP, .size = (uint32_t)value};
    default:
        return damaged;
    }
}

bool reader_skip(Reader *r)
{
    uint64_t open = 1; /* values still to be read; at most 2 * 2^32 are added per byte of input */
    while (open > 0) {
        Token token = reader_next(r);
        open--;
        switch (token.kind) {
        case TOKEN_END:
        case TOKEN_DAMAGED:
            return false;
        case TOKEN_ARRAY:
            open += token.size;
            break;
        case TOKEN_MAP:
            open += 2 * (uint64_t)token.size;
            break;
        default:
            break;
        }
        /* Every value takes a byte at least: a count beyond the input is damage. */
        if (open > (uint64_t)(r->end - r->at)) {
            return false;
        }
    }
    return true;
}

bool is_big_integer(const Token *token)
{
    uint32_t at = token->size > 0 && token->bytes[0] == '-';
    if (at == token->size || token->bytes[at] == '0') {
        return false;
    }
    while (at < token->size && token->bytes[at] >= '0' && token->bytes[at] <= '9') {
        at++;
    }
    return at == token->size;
}
