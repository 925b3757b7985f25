/* ring_writer.h: the program's end of a ring. See ring_writer.c.
 *
 * Everything here but ring_map_again() and ring_writer_add_type() runs no Python code. The GIL
 * makes the producer single.
 */
#ifndef FASTTRACE_RING_WRITER_H
#define FASTTRACE_RING_WRITER_H

#include "base/state.h"

/* Appends one record, which the sender sees after ring_publish(); false when the record was neither
 * put into the ring nor spilled (counted in the header). */
bool ring_put(Ring *ring, const Buffer *record);

/* Where a record of up to so many bytes can be written in place; NULL where it has to be handed to
 * ring_put(). The place is the ring's, and good until the ring is given another record.
 * ring_add_written() makes a record of what was written there, as ring_put() does. */
char *ring_place(Ring *ring, size_t size);
void ring_add_written(Ring *ring, size_t size);

/* Shows the sender all that was put: records that belong together appear together, or, when the
 * program is killed before, not at all. */
void ring_publish(Ring *ring);

/* Whether a new trace will find a place; a trace that will not is counted. */
bool ring_admits_trace(Ring *ring);

/* Whether the ring may lack a sender: its heartbeat is old, or its server does not let the sender
 * in. True once every few seconds as long as that is so. `now_ns`: a recent time. */
bool ring_lacks_sender(Ring *ring, uint64_t now_ns);

/* Whether there is a ring, and this process may append to it: not the forked child of the one that
 * made it. */
bool ring_is_ours(const Ring *ring);

/* The ring's memory, mapped once more for a reader in this process: the header's page, then the
 * data; `*capacity` of it. NULL with an exception where that cannot be done, or where the ring is
 * not this process's any more. */
RUNS_PYTHON void *ring_map_again(Ring *ring, uint64_t *capacity);

RUNS_PYTHON int ring_writer_add_type(PyObject *module, CoreState *state);

#endif
