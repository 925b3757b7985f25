/* record.h: what travels from the program to the sender.
 *
 * A record is one msgpack array, so that any msgpack tool can read it:
 *
 *   span    [1, trace id bin16, span id bin8, parent id bin8|nil, name, start ns, end ns,
 *            status 0|1|2, status message, {attribute: value}, [[event, ns, {key: value}]],
 *            [[trace id, span id, {key: value}]], OpenTelemetry's kind 1 to 4]
 *           (the kind is left out where it is 0: INTERNAL)
 *   trace   [2, trace id bin16, phase (always uint8), spans so far, start ns, duration ns|nil,
 *            state 1 OK|2 ERROR|3 IN_PROGRESS, {destination}, {info}]
 *
 *   attachment
 *           [3, trace id bin16, attachment id, content bin]
 *
 * Destination and info are maps of their own: see docs/spool-format.md.
 *
 * How records stand one after another is in frame.h. */
#ifndef FASTTRACE_RECORD_H
#define FASTTRACE_RECORD_H

#include "base/ids.h"
#include "value/wire.h"

enum { RECORD_SPAN = 1, RECORD_TRACE = 2, RECORD_ATTACHMENT = 3 };

enum {
    PHASE_OPEN = 0,       /* the first span of the trace ended */
    PHASE_ROOT_ENDED = 1, /* others are still open */
    PHASE_COMPLETE = 2,   /* all its spans have ended */
    PHASE_MASK = 0x0f,
    PHASE_INFO_SENT = 0x80, /* set by the sender: the server has acknowledged this info */
};

/* The numbers of OpenTelemetry's SpanKind; OTLP has each plus one. */
enum { SPAN_KIND_INTERNAL = 0, SPAN_KIND_LAST = 4 };

/* Where the phase stands in a trace record: array head, kind, bin8 head (2), id (16), uint8 tag. */
#define RECORD_PHASE_OFFSET 21

enum { SPAN_FIELDS = 13, TRACE_FIELDS = 9, ATTACHMENT_FIELDS = 4, SPAN_ID_SIZE = 8 };

/* A span record, taken apart; pointers are borrowed from the record. */
typedef struct {
    const char *trace_id;  /* TRACE_ID_SIZE bytes */
    const char *span_id;   /* SPAN_ID_SIZE bytes */
    const char *parent_id; /* SPAN_ID_SIZE bytes, or NULL for a root */
    Token name;            /* str, or ext EXT_SURROGATES */
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t status;
    Token status_message;
    uint32_t attributes;
    Reader attributes_at; /* that many pairs, known to be whole */
    uint32_t events;
    Reader events_at; /* that many arrays of three */
    uint32_t links;
    Reader links_at; /* that many arrays of three */
    uint64_t kind;   /* of OpenTelemetry: SPAN_KIND_* */
} SpanRecord;

/* 0, or -1 when the bytes are no span record. */
int span_record_parse(SpanRecord *span, const void *bytes, size_t size);

/* The kind and, in `trace_id`, the trace of a record; 0 when it is none, or has fields of a wrong
 * kind. What the maps of a trace record hold is not looked at. */
int record_kind(const void *bytes, size_t size, const char **trace_id);

#endif
