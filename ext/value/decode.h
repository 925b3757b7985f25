/* decode.h: msgpack -> Python object, as json.loads of the value's text would make it. */
#ifndef FASTTRACE_DECODE_H
#define FASTTRACE_DECODE_H

#include "value/wire.h"

/* A new reference, or NULL with an exception: ValueError where the bytes are damaged, MemoryError
 * where another try may succeed. */
RUNS_PYTHON PyObject *decode_value(Reader *value);

/* The JSON text of the next value as a str; NULL with an exception, as decode_value(). */
RUNS_PYTHON PyObject *decode_json_text(Reader *value, bool ascii);

/* Sets the exception that stands for a conversion that has not come about: MemoryError for want of
 * memory, ValueError for what is wrong with the bytes. `what`: they are, in the message. */
RUNS_PYTHON void convert_error(ConvertResult result, const char *what);

#endif
