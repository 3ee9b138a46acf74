/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PLIC: platform-level interrupt controller, of hart 0: its context in machine mode
 * (RISC-V Platform-Level Interrupt Controller Specification 1.0.0).
 *
 *     0x000000 + 4*source   priority, 0 (never) to 7
 *     0x001000 + 4*word     pending, read only
 *     0x002000 + 4*word     enable of context 0
 *     0x200000              threshold of context 0
 *     0x200004              claim (read), complete (write)
 *
 * A hart with supervisor mode has a second context for it (machine revision 2), at 0x2080 and 0x201000; its registers
 * are in supervisor_state.
 *
 * Sources are level-triggered, 1 to 95. The gateway of a source passes one request at a time: it forwards the next
 * only after the last was completed, and again at once if the line is still up. Words only.
 *
 * In machine revision 2 the gateways latch, as QEMU's do: a source is pending when its line rises, or when its device
 * drives the line anew while it is up; a line that just stays up when a request is completed makes no other one. There
 * are kernels that live by it: xv6 does not read the UART's IIR when the transmitter is empty.
 */
#include "device.h"

#define SOURCES 96
#define WORDS (SOURCES / 32)
#define PENDING 0x1000
#define ENABLE 0x2000
#define THRESHOLD 0x200000
#define CLAIM 0x200004
#define CONTEXT_ENABLE 0x80 /* from one context's registers to the next's */
#define CONTEXT 0x1000

static uint32_t bit(uint32_t source)
{
    return 1u << (source & 31);
}

void plic_line(plic_state *s, uint32_t source, int level)
{
    uint32_t word = source >> 5;
    if (level)
        s->level[word] |= bit(source);
    else
        s->level[word] &= ~bit(source);
    if (level && !(s->claimed[word] & bit(source)))
        s->pending[word] |= bit(source);
    else if (!level)
        s->pending[word] &= ~bit(source);
}

/* Revision 2. `anew`: the device has just driven its line, whether or not that changed it. */
void plic_drive(plic_state *s, uint32_t source, int level, int anew)
{
    uint32_t word = source >> 5;
    if (!level)
        s->pending[word] &= ~bit(source);
    else if (anew || !(s->level[word] & bit(source)))
        s->pending[word] |= bit(source);
    s->level[word] = level ? s->level[word] | bit(source) : s->level[word] & ~bit(source);
}

/* The pending, enabled source of highest priority above the threshold; the lowest number among equals; 0 if none. */
static uint32_t best(const plic_state *s, const uint32_t *enable, uint32_t threshold)
{
    uint32_t found = 0, priority = threshold;
    for (uint32_t word = 0; word < WORDS; word++) {
        uint32_t candidates = s->pending[word] & ~s->claimed[word] & enable[word];
        while (candidates) {
            uint32_t source = word * 32 + (uint32_t)__builtin_ctz(candidates);
            if (s->priority[source] > priority) {
                priority = s->priority[source];
                found = source;
            }
            candidates &= candidates - 1;
        }
    }
    return found;
}

int plic_irq(const plic_state *s)
{
    return best(s, s->enable, s->threshold) != 0;
}

static uint32_t claim(plic_state *s, uint32_t source)
{
    if (source) {
        s->pending[source >> 5] &= ~bit(source);
        s->claimed[source >> 5] |= bit(source);
    }
    return source;
}

static void complete(plic_state *s, uint64_t value, int latches)
{
    if (value == 0 || value >= SOURCES)
        return;
    uint32_t source = (uint32_t)value;
    s->claimed[source >> 5] &= ~bit(source);
    if (!latches && (s->level[source >> 5] & bit(source)))
        s->pending[source >> 5] |= bit(source);
}

int plic_read(plic_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)port;
    if (size != 4 || (offset & 3))
        return -1;
    *value = 0;
    if (offset < 4 * SOURCES) {
        *value = s->priority[offset >> 2];
    } else if (offset - PENDING < 4 * WORDS) {
        *value = s->pending[(offset - PENDING) >> 2];
    } else if (offset - ENABLE < 4 * WORDS) {
        *value = s->enable[(offset - ENABLE) >> 2];
    } else if (offset == THRESHOLD) {
        *value = s->threshold;
    } else if (offset == CLAIM) {
        *value = claim(s, best(s, s->enable, s->threshold));
    }
    return 0;
}

int plic_write(plic_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    if (size != 4 || (offset & 3))
        return -1;
    if (offset >= 4 && offset < 4 * SOURCES) {
        s->priority[offset >> 2] = value & 7;
    } else if (offset - ENABLE < 4 * WORDS) {
        uint32_t word = (uint32_t)((offset - ENABLE) >> 2);
        s->enable[word] = (uint32_t)value & (word ? ~0u : ~1u); /* source 0 does not exist */
    } else if (offset == THRESHOLD) {
        s->threshold = value & 7;
    } else if (offset == CLAIM) {
        complete(s, value, port->latches);
    }
    return 0;
}

/* --- the supervisor's context ---------------------------------------------------------------------------------- */

int plic_is_supervisor(uint64_t offset)
{
    return offset - ENABLE - CONTEXT_ENABLE < CONTEXT_ENABLE || offset - THRESHOLD - CONTEXT < CONTEXT;
}

int plic_irq_supervisor(const plic_state *s, const supervisor_state *context)
{
    return best(s, context->plic_enable, context->plic_threshold) != 0;
}

int plic_read_supervisor(plic_state *s, const supervisor_state *context, uint64_t offset, uint32_t size,
                         uint64_t *value)
{
    uint64_t at = offset - ENABLE - CONTEXT_ENABLE;
    if (size != 4 || (offset & 3))
        return -1;
    *value = 0;
    if (at < 4 * WORDS)
        *value = context->plic_enable[at >> 2];
    else if (offset == THRESHOLD + CONTEXT)
        *value = context->plic_threshold;
    else if (offset == CLAIM + CONTEXT)
        *value = claim(s, best(s, context->plic_enable, context->plic_threshold));
    return 0;
}

int plic_write_supervisor(plic_state *s, supervisor_state *context, uint64_t offset, uint32_t size, uint64_t value)
{
    uint64_t at = offset - ENABLE - CONTEXT_ENABLE;
    if (size != 4 || (offset & 3))
        return -1;
    if (at < 4 * WORDS)
        context->plic_enable[at >> 2] = (uint32_t)value & (at >> 2 ? ~0u : ~1u);
    else if (offset == THRESHOLD + CONTEXT)
        context->plic_threshold = value & 7;
    else if (offset == CLAIM + CONTEXT)
        complete(s, value, 1);
    return 0;
}
