#include "value/plain.h"

#include "value/content.h"

/* Containers that are nested deeper, and circles, are left to encode.c. */
#define PLAIN_DEPTH 16

/* A container that is being read, borrowed from the value: nothing can let go of it meanwhile. */
typedef struct {
    PyObject *container;
    Py_ssize_t at;   /* the next item; the position of PyDict_Next for a dict */
    Py_ssize_t size; /* of a list or tuple; -1 for a dict */
} PlainLevel;

/* Where the next byte goes, and what lies behind the last one. */
typedef struct {
    char *at;
    char *end;
    bool payload;
} Place;

static inline bool has_room(const Place *place, size_t size)
{
    return LIKELY(size <= (size_t)(place->end - place->at));
}

static inline bool put_if_room(Place *place, const char *utf8, size_t size)
{
    if (UNLIKELY(utf8 == NULL || !has_room(place, WIRE_HEAD_MAX + size))) {
        return false;
    }
    place->at = put_text(place->at, utf8, size);
    return true;
}

static inline bool put_text_value(Place *place, PyObject *text)
{
    Py_ssize_t size = 0;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    return put_if_room(place, utf8, (size_t)size) &&
           !(place->payload && content_is_data_uri(utf8, (size_t)size));
}

/* The key of an item of a dictionary. */
static inline bool put_key(Place *place, PyObject *dict, PyObject *key, PyObject *value)
{
    Py_ssize_t size = 0;
    const char *utf8 = PyUnicode_Check(key) ? PyUnicode_AsUTF8AndSize(key, &size) : NULL;
    return put_if_room(place, utf8, (size_t)size) &&
           !(place->payload && content_may_be_in_item(dict, utf8, (size_t)size, value));
}

static inline bool put_number(Place *place, PyObject *value)
{
    if (LIKELY(PyLong_CheckExact(value))) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (number >= 0) {
            put_uint64(&place->at, (uint64_t)number);
        }
        else {
            put_int64(&place->at, number);
        }
        return !overflow;
    }
    if (PyFloat_CheckExact(value)) {
        put_double(&place->at, PyFloat_AsDouble(value));
        return true;
    }
    return false;
}

/* Writes the head of a list, tuple or dict, which becomes the level to be read. */
static inline bool open_level(Place *place, PlainLevel *level, PyObject *value)
{
    level->container = value;
    level->at = 0;
    if (PyDict_CheckExact(value)) {
        level->size = -1;
        put_map(&place->at, (size_t)PyDict_Size(value));
    }
    else if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        level->size = PyList_CheckExact(value) ? PyList_Size(value) : PyTuple_Size(value);
        put_array(&place->at, (size_t)level->size);
    }
    else {
        return false;
    }
    return true;
}

typedef enum { NO_ITEM, AN_ITEM, NOT_PLAIN } NextItem;

/* Takes the next value of a level, and writes its key. */
static inline NextItem next_item(Place *place, PlainLevel *level, PyObject **value)
{
    if (level->size < 0) {
        PyObject *key;
        if (!PyDict_Next(level->container, &level->at, &key, value)) {
            return NO_ITEM;
        }
        return put_key(place, level->container, key, *value) ? AN_ITEM : NOT_PLAIN;
    }
    if (level->at == level->size) {
        return NO_ITEM;
    }
    *value = PyList_CheckExact(level->container) ? PyList_GetItem(level->container, level->at)
                                                 : PyTuple_GetItem(level->container, level->at);
    level->at++;
    return AN_ITEM;
}

size_t encode_plain(char *to, size_t room, PyObject *value, bool payload)
{
    Place place = {.at = to, .end = to + room, .payload = payload};
    PlainLevel levels[PLAIN_DEPTH];
    int depth = 0;

    for (;;) {
        bool plain = true;
        if (PyUnicode_Check(value)) {
            plain = put_text_value(&place, value);
        }
        else if (UNLIKELY(!has_room(&place, WIRE_HEAD_MAX))) {
            plain = false;
        }
        else if (value == Py_None) {
            put_nil(&place.at);
        }
        else if (value == Py_True) {
            put_true(&place.at);
        }
        else if (value == Py_False) {
            put_false(&place.at);
        }
        else if (depth < PLAIN_DEPTH && open_level(&place, &levels[depth], value)) {
            depth++;
        }
        else {
            plain = put_number(&place, value);
        }
        NextItem next = plain ? NO_ITEM : NOT_PLAIN;
        while (next == NO_ITEM && depth > 0) {
            next = next_item(&place, &levels[depth - 1], &value);
            depth -= next == NO_ITEM;
        }
        if (next != AN_ITEM) {
            return next == NO_ITEM ? (size_t)(place.at - to) : 0;
        }
    }
}

size_t encode_plain_str(char *to, size_t room, PyObject *text)
{
    Place place = {.at = to, .end = to + room};
    return put_text_value(&place, text) ? (size_t)(place.at - to) : 0;
}
