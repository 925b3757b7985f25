/* content.h: whether a value may hold binary content, which becomes attachments of its span.
 *
 * The test is cheap and errs on the side of "may": Python's hook extract_attachments decides. */
#ifndef FASTTRACE_CONTENT_H
#define FASTTRACE_CONTENT_H

#include "value/wire.h"

/* Whether the text that was appended at `start` is a data URI with base64 content. */
bool content_is_data_uri(const Buffer *out, size_t start);

/* Whether an item of a dictionary is one that model providers put binary content into. `key` is a
 * str. May run the __eq__ of other keys of the dictionary. */
RUNS_PYTHON bool content_may_be_in_item(PyObject *dict, PyObject *key, PyObject *value);

#endif
