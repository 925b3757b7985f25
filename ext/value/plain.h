/* plain.h: values as most of them are, encoded straight into their place.
 *
 * Plain is what is made of str, int (of 64 bits), float, bool, None, and of lists, tuples and dicts
 * with str keys of these, not nested deeply, none of a subclass but of str. No code of the program
 * can run while such a value is read, so its containers cannot change, nothing needs a reference,
 * and the bytes may lie where they stay. What encode.c makes of such a value is the same. */
#ifndef FASTTRACE_PLAIN_H
#define FASTTRACE_PLAIN_H

#include "value/wire.h"

/* Writes a plain value; 0, perhaps with a pending exception, where it is not plain or does not fit
 * in `room` bytes: what stands there is of no use then, and encode.c is to be asked. `payload`: it
 * is inputs or outputs, in which what may be binary content is not plain. Runs no Python code.
 *
 * Returns the number of bytes. */
size_t encode_plain(char *to, size_t room, PyObject *value, bool payload);

/* Writes the text of a str as encode_str() does, likewise. */
size_t encode_plain_str(char *to, size_t room, PyObject *text);

#endif
