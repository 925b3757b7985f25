#include "value/content.h"

bool content_is_data_uri(const Buffer *out, size_t start)
{
    static const char mark[] = ";base64,";
    if (out->failed) {
        return false;
    }
    Reader r = reader_over(out->data + start, out->len - start);
    Token text = reader_next(&r);
    if (text.kind != TOKEN_STR || text.size < 5 || memcmp(text.bytes, "data:", 5) != 0) {
        return false;
    }
    for (size_t i = 5; i + sizeof mark - 1 <= text.size; i++) {
        if (text.bytes[i] == ';' && memcmp(text.bytes + i, mark, sizeof mark - 1) == 0) {
            return true;
        }
    }
    return false;
}

bool content_may_be_in_item(PyObject *dict, PyObject *key, PyObject *value)
{
    static const struct {
        const char *key;
        bool text;        /* otherwise a dictionary */
        const char *kind; /* what "type" must be, in the dictionary or in the value; or NULL */
    } known[] = {
        {"image", false, NULL},       {"audio", false, NULL},
        {"source", false, "base64"},  {"result", true, "image_generation_call"},
        {"b64_json", true, NULL},     {"input_audio", false, NULL},
        {"inline_data", false, NULL},
    };
    Py_ssize_t size = PyUnicode_GetLength(key);
    if (LIKELY(size < 5 || size > 11)) {
        return false;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((size_t)size != strlen(known[i].key) ||
            PyUnicode_CompareWithASCIIString(key, known[i].key) != 0) {
            continue;
        }
        if (known[i].text ? !PyUnicode_Check(value) : !PyDict_Check(value)) {
            return false;
        }
        if (known[i].kind == NULL) {
            return true;
        }
        PyObject *kind = PyDict_GetItemString(known[i].text ? dict : value, "type");
        return kind != NULL && PyUnicode_Check(kind) &&
               PyUnicode_CompareWithASCIIString(kind, known[i].kind) == 0;
    }
    return false;
}
