/* json.h: the text that json.dumps makes of an encoded value.
 *
 * MLflow keeps every attribute as such a text. Here it is made only where somebody reads it: the
 * embedded store, size figures, previews, and a program that asks for it. */
#ifndef FASTTRACE_JSON_H
#define FASTTRACE_JSON_H

#include "value/wire.h"

/* Appends the text of the next value; strings in ASCII with \u escapes, or as they are
 * (json.dumps's ensure_ascii). Needs the GIL (float repr), and leaves no exception set. */
RUNS_PYTHON ConvertResult json_value(Buffer *out, Reader *value, bool ascii);

/* Appends the content of such a string: `text`, or a part of one, which ends in the middle of a
 * character perhaps where more follows. Returns the bytes that were used: all but such a beginning.
 */
size_t json_escape(Buffer *out, const char *text, size_t size, bool ascii, bool more_follows);

/* Appends the JSON string whose content is the (possibly surrogate-carrying) UTF-8 `text`. */
void json_string(Buffer *out, const char *text, size_t size, bool ascii);

#endif
