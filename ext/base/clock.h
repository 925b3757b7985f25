/* clock.h: the clocks. */
#ifndef FASTTRACE_CLOCK_H
#define FASTTRACE_CLOCK_H

#include "base/compat.h"

/* Nanoseconds since the Unix epoch: the times of spans and traces. */
uint64_t clock_ns(void);

/* Nanoseconds of a clock that nobody sets, one for all processes of the machine until it boots:
 * heartbeats and pauses. */
uint64_t steady_ns(void);

/* The same, some milliseconds old, and cheap. */
uint64_t coarse_ns(void);

#endif
