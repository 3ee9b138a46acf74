/* SPDX-License-Identifier: GPL-2.0-or-later */
/* supervisor.h: part of loop-fault and loop-tick: from machine mode into supervisor mode with paging, and their loops. */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include "runtime/uart.h"

#define MEDELEG_PAGE_FAULTS 0xb000u
#define MIDELEG_TIMER 0x20u
#define MENVCFG_STCE (1ull << 63)
#define SATP_SV39 (8ull << 60)
#define NOWHERE 0x40000000ull /* where no page is */

/* loop-supervisor-code.S: so many page faults or timer interrupts; handlers add up, the sum is returned. */
uint64_t fault_loop(uint64_t iterations, uint64_t address);
uint64_t tick_loop(uint64_t iterations, uint64_t ticks);

/* Three gigapages where they are: devices, nothing, RAM. A and D are set, no U: for supervisor mode. */
static uint64_t root[512] __attribute__((aligned(4096)));

/* Goes on in supervisor mode. */
static inline void enter_supervisor(void)
{
    root[0] = 0xc7;
    root[2] = 0x80000000ull >> 2 | 0xcf;
    csr_write(pmpaddr0, -1);
    csr_write(pmpcfg0, 0x1f);
    csr_write(mcounteren, 7);
    csr_write(0x30a, MENVCFG_STCE); /* menvcfg: stimecmp is there */
    csr_write(medeleg, MEDELEG_PAGE_FAULTS);
    csr_write(mideleg, MIDELEG_TIMER);
    csr_write(satp, SATP_SV39 | (uintptr_t)root >> 12);
    csr_clear(mstatus, MSTATUS_MPP);
    csr_set(mstatus, 0x800); /* MPP = supervisor */
    __asm__ volatile("la t0, 1f; csrw mepc, t0; sfence.vma; mret; 1:" : : : "t0", "memory");
}

#endif
