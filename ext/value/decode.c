#include "value/decode.h"

#include "value/json.h"

/* Levels that are decoded: more than MAX_DEPTH of encode.c, and no more than Python code can walk.
 */
#define MAX_DECODE_DEPTH 1000

void convert_error(ConvertResult result, const char *what)
{
    if (result == CONVERT_NO_MEMORY) {
        PyErr_NoMemory();
    }
    else if (result == CONVERT_TOO_LARGE) {
        PyErr_Format(PyExc_ValueError, "%s is too large: it would take more than 1 GiB", what);
    }
    else {
        PyErr_Format(PyExc_ValueError, "damaged %s", what);
    }
}

static PyObject *damaged(void)
{
    convert_error(CONVERT_DAMAGED, "value");
    return NULL;
}

/* A str from a text token (str, or ext EXT_SURROGATES). */
static PyObject *decode_text(const Token *text)
{
    if (text->kind == TOKEN_STR) {
        PyObject *str = PyUnicode_DecodeUTF8(text->bytes, (Py_ssize_t)text->size, NULL);
        if (str != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            return str;
        }
        PyErr_Clear();
        return PyUnicode_DecodeUTF8(text->bytes, (Py_ssize_t)text->size, "replace");
    }
    if (text->kind == TOKEN_EXT && text->ext == EXT_SURROGATES) {
        return PyUnicode_Decode(text->bytes, (Py_ssize_t)text->size, "utf-8", "surrogatepass");
    }
    return damaged();
}

PyObject *decode_json_text(Reader *value, bool ascii)
{
    Buffer json = {0};
    PyObject *text = NULL;
    ConvertResult result = json_value(&json, value, ascii);
    if (result == CONVERT_WHOLE) {
        text = PyUnicode_Decode(json.data, (Py_ssize_t)json.len, "utf-8", "surrogatepass");
    }
    else {
        convert_error(result, "value");
    }
    buffer_free(&json);
    return text;
}

/* An integer beyond 64 bits; its digits as a str where this Python refuses to convert so many. */
static PyObject *decode_big_integer(const Token *token)
{
    if (!is_big_integer(token)) {
        return damaged();
    }
    PyObject *digits = PyUnicode_DecodeASCII(token->bytes, (Py_ssize_t)token->size, NULL);
    const char *utf8 = digits ? PyUnicode_AsUTF8AndSize(digits, NULL) : NULL; /* ends with a NUL */
    if (utf8 == NULL) {
        Py_XDECREF(digits);
        return NULL; /* out of memory */
    }
    PyObject *number = PyLong_FromString(utf8, NULL, 10);
    if (number == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        return digits;
    }
    Py_DECREF(digits);
    return number;
}

/* A container that is being filled. Levels stand in an array and not on the C stack, which may be
 * small. */
typedef struct {
    PyObject *container; /* owned */
    PyObject *key;       /* owned; NULL before the key of the next pair */
    uint32_t at, size;
    bool map;
} Level;

/* A scalar, or a container without its content. */
static inline PyObject *decode_one(Reader *r, const Token *token)
{
    switch (token->kind) {
    case TOKEN_NIL:
        Py_RETURN_NONE;
    case TOKEN_BOOL:
        return PyBool_FromLong(token->boolean);
    case TOKEN_UINT:
        return PyLong_FromUnsignedLongLong(token->u);
    case TOKEN_INT:
        return PyLong_FromLongLong(token->i);
    case TOKEN_FLOAT:
        return PyFloat_FromDouble(token->d);
    case TOKEN_STR:
        return decode_text(token);
    case TOKEN_BIN:
        return PyBytes_FromStringAndSize(token->bytes, (Py_ssize_t)token->size);
    case TOKEN_EXT:
        if (token->ext == EXT_JSON_TEXT) {
            Reader embedded = reader_over(token->bytes, token->size);
            return decode_json_text(&embedded, true);
        }
        return token->ext == EXT_BIG_INTEGER ? decode_big_integer(token) : decode_text(token);
    case TOKEN_ARRAY:
    case TOKEN_MAP:
        if (token->size > (size_t)(r->end - r->at)) {
            return damaged();
        }
        return token->kind == TOKEN_MAP ? PyDict_New() : PyList_New((Py_ssize_t)token->size);
    default:
        return damaged();
    }
}

/* Puts a value, whose reference it takes over, into a container. */
static inline int level_add(Level *level, PyObject *value)
{
    int result = 0;
    if (!level->map) {
        return PyList_SetItem(level->container, (Py_ssize_t)level->at++, value);
    }
    if (level->key == NULL) {
        if (!PyUnicode_Check(value)) {
            Py_DECREF(value);
            damaged();
            return -1;
        }
        level->key = value;
        return 0;
    }
    result = PyDict_SetItem(level->container, level->key, value);
    Py_CLEAR(level->key);
    Py_DECREF(value);
    level->at++;
    return result;
}

PyObject *decode_value(Reader *r)
{
    Level inline_levels[16], *levels = inline_levels;
    size_t depth = 0, room = sizeof inline_levels / sizeof *inline_levels;
    PyObject *result = NULL;

    for (;;) {
        Token token = reader_next(r);
        PyObject *value = decode_one(r, &token);
        if (value == NULL) {
            break;
        }
        if ((token.kind == TOKEN_ARRAY || token.kind == TOKEN_MAP) && token.size > 0) {
            if (depth == MAX_DECODE_DEPTH) {
                Py_DECREF(value);
                damaged();
                break;
            }
            if (depth == room) {
                Level *grown = array_grow(levels, inline_levels, &room, sizeof *levels);
                if (grown == NULL) {
                    Py_DECREF(value);
                    PyErr_NoMemory();
                    break;
                }
                levels = grown;
            }
            levels[depth++] =
                (Level){.container = value, .size = token.size, .map = token.kind == TOKEN_MAP};
            continue;
        }
        while (depth > 0) {
            Level *level = &levels[depth - 1];
            if (level_add(level, value) < 0) {
                goto done;
            }
            if (level->at < level->size) {
                break;
            }
            value = level->container; /* a full container is a value of the one around it */
            depth--;
        }
        if (depth == 0) {
            result = value;
            break;
        }
    }
done:
    while (depth > 0) {
        depth--;
        Py_DECREF(levels[depth].container);
        Py_XDECREF(levels[depth].key);
    }
    if (levels != inline_levels) {
        free(levels);
    }
    return result;
}
