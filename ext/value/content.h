/* content.h: whether a value may hold binary content, which becomes attachments of its span.
 *
 * The test is cheap and errs on the side of "may": Python's hook extract_attachments decides.
 * Nothing here runs Python code. */
#ifndef FASTTRACE_CONTENT_H
#define FASTTRACE_CONTENT_H

#include "value/wire.h"

/* Whether a text that begins as a data URI does has base64 content. */
bool content_is_base64(const char *utf8, size_t size);

/* Whether a text is a data URI with base64 content. */
static inline bool content_is_data_uri(const char *utf8, size_t size)
{
    static const char scheme[] = "data:";
    return UNLIKELY(size > sizeof scheme && memcmp(utf8, scheme, sizeof scheme - 1) == 0) &&
           content_is_base64(utf8, size);
}

/* Whether an item of a dictionary, whose key has that UTF-8, is one that model providers put binary
 * content into. */
bool content_may_be_in_known_item(PyObject *dict, const char *key, size_t key_size,
                                  PyObject *value);

/* A bit for each length of those keys. */
#define CONTENT_KEY_SIZES (1u << 5 | 1u << 6 | 1u << 8 | 1u << 11)

/* The same, quicker for most items. */
static inline bool content_may_be_in_item(PyObject *dict, const char *key, size_t key_size,
                                          PyObject *value)
{
    bool has_known_size = key_size < 32 && CONTENT_KEY_SIZES >> key_size & 1;
    return UNLIKELY(has_known_size) && content_may_be_in_known_item(dict, key, key_size, value);
}

#endif
