/* ids.h: trace and span ids, and the clocks. */
#ifndef FASTTRACE_IDS_H
#define FASTTRACE_IDS_H

#include "compat.h"

/* Seeds this process's generator; again after a fork. 0, or -1 when the system has no entropy. */
int ids_seed(void);

/* Never zero. The GIL guards the generator. */
uint64_t ids_next(void);

/* Nanoseconds since the Unix epoch. */
uint64_t clock_ns(void);

/* Nanoseconds of a clock that nobody sets; one for all processes of the machine until it boots. */
uint64_t steady_ns(void);

/* 16 lower-case hex digits of a span id. */
void span_id_hex(char *hex, uint64_t id);

#endif
