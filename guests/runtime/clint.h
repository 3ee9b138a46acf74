/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clint.h: the CLINT: software interrupts, mtime and mtimecmp (10 MHz). */
#ifndef CLINT_H
#define CLINT_H

#include "board.h"

#define CLINT_MSIP 0x0000
#define CLINT_MTIMECMP 0x4000
#define CLINT_MTIME 0xbff8

static inline void clint_set_msip(uint32_t on) { write32(CLINT_BASE + CLINT_MSIP, on); }

/* mtime, read so that a carry between its two halves does no harm. */
__attribute__((unused)) static uint64_t clint_mtime(void)
{
    uint32_t high, low;
    do {
        high = read32(CLINT_BASE + CLINT_MTIME + 4);
        low = read32(CLINT_BASE + CLINT_MTIME);
    } while (read32(CLINT_BASE + CLINT_MTIME + 4) != high);
    return (uint64_t)high << 32 | low;
}

/* The low half first goes to its maximum, so that no early deadline is seen on the way. */
__attribute__((unused)) static void clint_set_mtimecmp(uint64_t deadline)
{
    write32(CLINT_BASE + CLINT_MTIMECMP, 0xffffffffu);
    write32(CLINT_BASE + CLINT_MTIMECMP + 4, (uint32_t)(deadline >> 32));
    write32(CLINT_BASE + CLINT_MTIMECMP, (uint32_t)deadline);
}

#define CLINT_NEVER (~(uint64_t)0)

#endif
