/* ring_layout.h: what a program and its sender see of a ring. docs/spool-format.md prints the
 * offsets.
 *
 *   header page | data, capacity bytes, used round and round
 *
 *   head       all that was ever appended, in bytes          written by the program
 *   tail       all whose space may be used again              written by the sender
 *   delivered  all that the server has acknowledged           written by the sender
 *
 * Invariants: delivered <= head, tail <= head, head - tail <= capacity, and positions are multiples
 * of 8. A record is visible once head has passed it. */
#ifndef FASTTRACE_RING_LAYOUT_H
#define FASTTRACE_RING_LAYOUT_H

#include "base/compat.h"

#include <assert.h>

#define RING_MAGIC "MFTRING1"
#define RING_MAGIC_SIZE 8
#define RING_VERSION 1
#define RING_HEADER_SIZE 4096
#define RING_MIN_CAPACITY ((uint64_t)64 << 10)
#define RING_MAX_CAPACITY ((uint64_t)1 << 30)

/* What a sender says of its server. */
typedef enum {
    SERVER_UNKNOWN = 0,
    SERVER_ANSWERS = 1,
    SERVER_UNAVAILABLE = 2,
    SERVER_FORBIDS = 3, /* the sender is not let in: other credentials may help */
} ServerState;

#define CACHE_LINE 64

/* Counters that different processes write stand on different cache lines. */
typedef struct {
    char magic[RING_MAGIC_SIZE];
    uint32_t version;
    uint32_t header_size;
    uint64_t capacity;
    uint64_t pid;
    uint64_t created_ns;

    /* Written by the program. */
    _Alignas(CACHE_LINE) uint64_t head;
    uint64_t spill_sequence; /* number of the spill segment being written; lower ones are ended */
    uint64_t spilled;        /* records spilled so far */
    uint64_t flush_request;  /* counts requests to deliver now */
    uint64_t closed;         /* 1 when the program is done with the ring */
    uint64_t refused;        /* records that found no place */
    uint64_t refused_traces; /* traces that were not begun for want of place */

    /* Written by the sender. */
    _Alignas(CACHE_LINE) uint64_t tail;
    uint64_t delivered;
    uint64_t spill_delivered; /* records of spill segments that are delivered */
    uint64_t server_state;    /* a ServerState */
    uint64_t flush_seen;      /* the flush request last acted on */
    uint64_t heartbeat_ns;    /* when a sender last looked at the ring (steady_ns); 0 never */
    uint64_t spool_is_full;   /* 1: no new traces, what waits has reached the spool's bound */
    uint64_t sender_pid;      /* of the sender that looked last; 0: none has */
} RingHeader;

#define AT(field, offset) static_assert(offsetof(RingHeader, field) == (offset), #field)
AT(magic, 0);
AT(version, 8);
AT(header_size, 12);
AT(capacity, 16);
AT(pid, 24);
AT(created_ns, 32);
AT(head, 64);
AT(spill_sequence, 72);
AT(spilled, 80);
AT(flush_request, 88);
AT(closed, 96);
AT(refused, 104);
AT(refused_traces, 112);
AT(tail, 128);
AT(delivered, 136);
AT(spill_delivered, 144);
AT(server_state, 152);
AT(flush_seen, 160);
AT(heartbeat_ns, 168);
AT(spool_is_full, 176);
AT(sender_pid, 184);
#undef AT
static_assert(sizeof(RingHeader) <= RING_HEADER_SIZE, "the header has a page of its own");

#endif
