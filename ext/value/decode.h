/* decode.h: msgpack -> Python object, as json.loads of the value's text would make it. */
#ifndef FASTTRACE_DECODE_H
#define FASTTRACE_DECODE_H

#include "value/wire.h"

/* A new reference, or NULL with an exception (ValueError when the bytes are damaged). */
PyObject *decode_value(Reader *value);

/* The JSON text of the next value as a str. */
PyObject *decode_json_text(Reader *value, bool ascii);

#endif
