#include "value/content.h"

bool content_is_base64(const char *utf8, size_t size)
{
    static const char mark[] = ";base64,";
    const char *at = utf8, *end = utf8 + size;
    while ((at = memchr(at, mark[0], (size_t)(end - at))) != NULL) {
        if ((size_t)(end - at) >= sizeof mark - 1 && memcmp(at, mark, sizeof mark - 1) == 0) {
            return true;
        }
        at++;
    }
    return false;
}

/* The item of that name, borrowed; NULL where there is none. */
static PyObject *item_named(PyObject *dict, const char *name)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, name) == 0) {
            return value;
        }
    }
    return NULL;
}

bool content_may_be_in_known_item(PyObject *dict, const char *key, size_t key_size, PyObject *value)
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
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (key_size != strlen(known[i].key) || memcmp(key, known[i].key, key_size) != 0) {
            continue;
        }
        if (known[i].text ? !PyUnicode_Check(value) : !PyDict_Check(value)) {
            return false;
        }
        if (known[i].kind == NULL) {
            return true;
        }
        PyObject *kind = item_named(known[i].text ? dict : value, "type");
        return kind != NULL && PyUnicode_Check(kind) &&
               PyUnicode_CompareWithASCIIString(kind, known[i].kind) == 0;
    }
    return false;
}
