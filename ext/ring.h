/* ring.h: the shared-memory ring between an agent and its sender. See ring.c. */
#ifndef FASTTRACE_RING_H
#define FASTTRACE_RING_H

#include "record.h"
#include "state.h"

/* The agent's end. Appends one record, which the sender sees after ring_publish(); false when it
 * was neither put into the ring nor spilled (counted in the header). Runs with the GIL held, which
 * is what makes the producer single. */
bool ring_put(Ring *ring, const Buffer *record);

/* Shows the sender all that was put: records that belong together appear together, or, when the
 * agent is killed before, not at all. */
void ring_publish(Ring *ring);

/* Whether a new trace will find a place; one that will not is counted. */
bool ring_admits_trace(Ring *ring);

/* Whether the ring may lack a sender; true once every few seconds as long as it does. `now_ns`: a
 * recent time. */
bool ring_is_unattended(Ring *ring, uint64_t now_ns);

/* Whether this process may append to it: not the child of the one that made it. */
bool ring_is_ours(const Ring *ring);

/* Appends (end position, kind, trace id, record) to `list` for every whole frame in the run; kind 0
 * and no id where a frame holds no record.
 * `*used` is what was consumed; -1 with an exception, 1 when the run is damaged at *used. */
int frames_to_list(PyObject *list, const char *bytes, size_t size, uint64_t base, size_t *used);

/* Appends one framed record. */
void frame_append(Buffer *out, const char *record, size_t size);

#endif
