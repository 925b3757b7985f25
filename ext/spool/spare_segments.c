/* spare_segments.c: the memory of spilled segments, used again.
 *
 * Making pages costs more than writing records to them. A program that has ended a segment in
 * memory keeps it mapped. The sender that has delivered all of it does not remove the file but
 * names it "<segment>.spare". From then on it is whoever's renames it first: the program takes it
 * for its next segment, or a sender frees its pages and removes it, since nobody needed it for a
 * while. A segment that was never written, whose pages a thread makes while the ring fills up,
 * waits under such a name too.
 *
 * A spare that a sender freed is noticed when it is looked for. Its pages are gone although the
 * program still maps them, and nothing touches the mapping before the file is the program's again
 * and has the size that it had. */
#include "spool/spare_segments.h"

#include "spool/spill_folder.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define PATH_ROOM 4096

/* Of a used segment while nobody needs it, and while the program makes it a new one. */
#define SPARE ".spare"
#define TAKEN ".taken"

static bool used_path(char *path, const char *prefix, uint64_t sequence, const char *suffix)
{
    return segment_path(path, PATH_ROOM - sizeof SPARE, prefix, sequence) &&
           strcat(path, suffix) != NULL;
}

static bool fresh_path(char *path, const char *prefix)
{
    int n = snprintf(path, PATH_ROOM, "%s-next.seg" SPARE, prefix);
    return n >= 0 && n < PATH_ROOM;
}

static bool is_there(const char *path) { return access(path, F_OK) == 0; }

/* Whether a file of a used segment is there: it is being delivered, or spare. In this order: a
 * sender may rename it in between. */
static bool is_kept(const Spares *spares, int i, const char *prefix)
{
    char path[PATH_ROOM], spare[PATH_ROOM];
    return used_path(path, prefix, spares->sequence[i], "") &&
           used_path(spare, prefix, spares->sequence[i], SPARE) &&
           (is_there(path) || is_there(spare));
}

/* Lets go of what a sender has freed, or moved to disk. */
static void forget_gone(Spares *spares, const char *prefix)
{
    for (int i = 0; i < SPARES_MAX; i++) {
        if (mapped_is_there(&spares->used[i]) && !is_kept(spares, i, prefix)) {
            mapped_close(&spares->used[i]);
        }
    }
}

void spares_keep(Spares *spares, MappedSegment *segment, const char *prefix, uint64_t sequence)
{
    int i = 0;
    forget_gone(spares, prefix);
    while (i < SPARES_MAX && mapped_is_there(&spares->used[i])) {
        i++;
    }
    if (i == SPARES_MAX) {
        mapped_cut(segment);
    }
    else if (mapped_end(segment)) {
        spares->sequence[i] = sequence;
        mapped_move(&spares->used[i], segment);
    }
}

bool spares_have_one(const Spares *spares, const char *prefix)
{
    char path[PATH_ROOM];
    if (mapped_is_there(&spares->fresh)) {
        return fresh_path(path, prefix) && is_there(path);
    }
    for (int i = 0; i < SPARES_MAX; i++) {
        if (mapped_is_there(&spares->used[i]) &&
            used_path(path, prefix, spares->sequence[i], SPARE) && is_there(path)) {
            return true;
        }
    }
    return false;
}

void spares_make(Spares *spares, const char *prefix, uint64_t room)
{
    char path[PATH_ROOM];
    if (mapped_is_there(&spares->fresh)) {
        mapped_close(&spares->fresh);
    }
    if (fresh_path(path, prefix) && mapped_make(&spares->fresh, path, room)) {
        mapped_make_pages(&spares->fresh);
    }
}

/* Makes a used segment the one with the number `sequence`, if the sender is done with it. */
static bool take_used(Spares *spares, int i, const char *prefix, uint64_t sequence)
{
    char spare[PATH_ROOM], taken[PATH_ROOM], path[PATH_ROOM];
    MappedSegment *segment = &spares->used[i];
    if (!used_path(spare, prefix, spares->sequence[i], SPARE) ||
        !used_path(taken, prefix, spares->sequence[i], TAKEN) ||
        !used_path(path, prefix, sequence, "")) {
        return false;
    }
    if (rename(spare, taken) != 0) {
        return false; /* the sender still reads it, or has freed it */
    }
    if (mapped_begin_again(segment) && !is_there(path) && rename(taken, path) == 0) {
        return true;
    }
    unlink(taken);
    mapped_close(segment);
    return false;
}

bool spares_take(Spares *spares, const char *prefix, uint64_t sequence, MappedSegment *segment)
{
    char spare[PATH_ROOM], path[PATH_ROOM];
    for (int i = 0; i < SPARES_MAX; i++) {
        if (mapped_is_there(&spares->used[i]) && take_used(spares, i, prefix, sequence)) {
            mapped_move(segment, &spares->used[i]);
            return true;
        }
    }
    if (!mapped_is_there(&spares->fresh) || !fresh_path(spare, prefix) ||
        !used_path(path, prefix, sequence, "") || is_there(path)) {
        return false;
    }
    if (rename(spare, path) != 0) {
        mapped_close(&spares->fresh);
        return false;
    }
    mapped_move(segment, &spares->fresh);
    return true;
}

void spares_close(Spares *spares, const char *prefix)
{
    char path[PATH_ROOM];
    for (int i = 0; i < SPARES_MAX; i++) {
        if (mapped_is_there(&spares->used[i])) {
            if (used_path(path, prefix, spares->sequence[i], SPARE)) {
                unlink(path);
            }
            mapped_close(&spares->used[i]);
        }
    }
    if (mapped_is_there(&spares->fresh)) {
        if (fresh_path(path, prefix)) {
            unlink(path);
        }
        mapped_close(&spares->fresh);
    }
}

void spares_after_fork(Spares *spares)
{
    for (int i = 0; i < SPARES_MAX; i++) {
        if (mapped_is_there(&spares->used[i])) {
            mapped_forget(&spares->used[i]);
        }
    }
    if (mapped_is_there(&spares->fresh)) {
        mapped_forget(&spares->fresh);
    }
}
