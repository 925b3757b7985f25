#include "decode.h"

#include "json.h"

#define MAX_DECODE_DEPTH 1000

static PyObject *damaged(void)
{
    PyErr_SetString(PyExc_ValueError, "damaged value");
    return NULL;
}

PyObject *decode_text(const Token *text)
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
    if (!json_value(&json, value, ascii)) {
        damaged();
    }
    else {
        text = PyUnicode_Decode(json.data, (Py_ssize_t)json.len, "utf-8", "surrogatepass");
    }
    buffer_free(&json);
    return text;
}

static PyObject *decode(Reader *r, int depth)
{
    Token token = reader_next(r);
    PyObject *result = NULL;

    switch (token.kind) {
    case TOKEN_NIL:
        Py_RETURN_NONE;
    case TOKEN_BOOL:
        return PyBool_FromLong(token.boolean);
    case TOKEN_UINT:
        return PyLong_FromUnsignedLongLong(token.u);
    case TOKEN_INT:
        return PyLong_FromLongLong(token.i);
    case TOKEN_FLOAT:
        return PyFloat_FromDouble(token.d);
    case TOKEN_STR:
        return decode_text(&token);
    case TOKEN_BIN:
        return PyBytes_FromStringAndSize(token.bytes, (Py_ssize_t)token.size);
    case TOKEN_EXT:
        if (token.ext == EXT_JSON_TEXT) {
            Reader embedded = reader_over(token.bytes, token.size);
            return decode_json_text(&embedded, true);
        }
        if (token.ext == EXT_BIG_INTEGER) {
            PyObject *digits =
                decode_text(&(Token){.kind = TOKEN_STR, .bytes = token.bytes, .size = token.size});
            if (digits == NULL) {
                return NULL;
            }
            const char *utf8 = PyUnicode_AsUTF8AndSize(digits, NULL); /* ends with a NUL */
            result = utf8 ? PyLong_FromString(utf8, NULL, 10) : NULL;
            Py_DECREF(digits);
            return result;
        }
        return decode_text(&token);
    case TOKEN_ARRAY:
        if (depth >= MAX_DECODE_DEPTH || token.size > (size_t)(r->end - r->at)) {
            return damaged();
        }
        result = PyList_New((Py_ssize_t)token.size);
        for (uint32_t i = 0; result != NULL && i < token.size; i++) {
            PyObject *item = decode(r, depth + 1);
            if (item == NULL) {
                Py_CLEAR(result);
                break;
            }
            PyList_SetItem(result, (Py_ssize_t)i, item); /* steals the item */
        }
        return result;
    case TOKEN_MAP:
        if (depth >= MAX_DECODE_DEPTH || token.size > (size_t)(r->end - r->at)) {
            return damaged();
        }
        result = PyDict_New();
        for (uint32_t i = 0; result != NULL && i < token.size; i++) {
            PyObject *key = decode(r, depth + 1);
            PyObject *value = key ? decode(r, depth + 1) : NULL;
            if (value == NULL || PyDict_SetItem(result, key, value) < 0) {
                Py_CLEAR(result);
            }
            Py_XDECREF(key);
            Py_XDECREF(value);
        }
        return result;
    default:
        return damaged();
    }
}

PyObject *decode_value(Reader *value) { return decode(value, 0); }
