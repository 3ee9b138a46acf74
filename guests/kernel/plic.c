/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plic.c: the interrupt controller, from which supervisor mode of our hart gets its external interrupts. */
#include "kernel.h"

/*
 *   0x000000 + 4 * source           priority; 0 is never
 *   0x002000 + 0x80 * context       a bit for each source: enabled
 *   0x200000 + 0x1000 * context     threshold: only higher priorities interrupt
 *   0x200004 + 0x1000 * context     read: claim the most urgent source; write: done with it
 *
 * Each hart has two contexts: machine mode, then supervisor mode.
 */
static uint64_t context(void) { return (uint64_t)machine.hart * 2 + 1; }

void plic_init(void) { write32(PLIC + 0x200000 + 0x1000 * context(), 0); }

void plic_enable(int source)
{
    uint64_t word = PLIC + 0x2000 + 0x80 * context() + (uint64_t)source / 32 * 4;
    write32(PLIC + (uint64_t)source * 4, 1);
    write32(word, read32(word) | 1u << source % 32);
}

/* 0: there is none. */
int plic_claim(void) { return (int)read32(PLIC + 0x200004 + 0x1000 * context()); }

/* The source may interrupt again. */
void plic_complete(int source) { write32(PLIC + 0x200004 + 0x1000 * context(), (uint32_t)source); }
