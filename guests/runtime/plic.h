/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plic.h: the PLIC, context 0 (machine mode of hart 0). */
#ifndef PLIC_H
#define PLIC_H

#include "board.h"

#define PLIC_PRIORITY 0x000000 /* one word per source */
#define PLIC_ENABLE 0x002000   /* one bit per source */
#define PLIC_THRESHOLD 0x200000
#define PLIC_CLAIM 0x200004 /* read: claim; write: complete */

static inline void plic_enable(uint32_t source)
{
    write32(PLIC_BASE + PLIC_PRIORITY + 4 * source, 1);
    write32(PLIC_BASE + PLIC_ENABLE, 1u << source);
    write32(PLIC_BASE + PLIC_THRESHOLD, 0);
}

static inline uint32_t plic_claim(void) { return read32(PLIC_BASE + PLIC_CLAIM); }
static inline void plic_complete(uint32_t source) { write32(PLIC_BASE + PLIC_CLAIM, source); }

#endif
