/* ids.h: trace and span ids. See ids.c. */
#ifndef FASTTRACE_IDS_H
#define FASTTRACE_IDS_H

#include "base/compat.h"

/* Seeds this process's generator; a fork makes it seed anew. 0, or -1 when the system has no
 * entropy. */
int ids_seed(void);

/* A new span id, never zero. The GIL guards the generator. */
uint64_t ids_next(void);

#define TRACE_ID_SIZE 16

/* Writes a new trace id. Of traces that follow each other closely the later one has the lower id,
 * since servers list the newest first, and of those of one millisecond the one with the lowest id.
 * Its last eight bytes are random in any case. */
void ids_next_trace(unsigned char id[TRACE_ID_SIZE]);

#define SPAN_ID_HEX_SIZE 16

/* Writes the SPAN_ID_HEX_SIZE lower-case hex digits of a span id, without a NUL. */
void span_id_hex(char *hex, uint64_t id);

#endif
