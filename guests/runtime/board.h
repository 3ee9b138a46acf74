/* SPDX-License-Identifier: GPL-2.0-or-later */
/* board.h: the board's memory map and device registers, and helpers to reach them. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/*
 * The map of QEMU's `virt` machine, as far as the guests use it:
 *
 *   0x00001000  boot ROM      a0 = hart id, a1 = 0, jumps to the ELF's entry
 *   0x00100000  test finisher a store ends the machine, with an exit code
 *   0x02000000  CLINT         msip, mtimecmp, mtime: software and timer interrupts
 *   0x0c000000  PLIC          external interrupts; the UART is source 10
 *   0x10000000  UART          16550, registers one byte apart
 *   0x10200000  entropy       vmrec's own device: not there on QEMU
 *   0x80000000  RAM           image: text, read-only data | data, bss, stack
 *
 * 0x00080000 is mapped by nobody: the guests that want an access fault go there.
 */
#define FINISHER_BASE 0x00100000u
#define CLINT_BASE 0x02000000u
#define PLIC_BASE 0x0c000000u
#define UART_BASE 0x10000000u
#define ENTROPY_BASE 0x10200000u
#define UNMAPPED 0x00080000u

static inline uint8_t read8(uintptr_t address) { return *(volatile uint8_t *)address; }
static inline uint32_t read32(uintptr_t address) { return *(volatile uint32_t *)address; }
static inline void write8(uintptr_t address, uint8_t value) { *(volatile uint8_t *)address = value; }
static inline void write32(uintptr_t address, uint32_t value) { *(volatile uint32_t *)address = value; }

/* Control and status registers, by their names in the privileged manual. */
#define csr_read(name) \
    ({ uintptr_t value_; __asm__ volatile("csrr %0, " #name : "=r"(value_) : : "memory"); value_; })
#define csr_write(name, value) __asm__ volatile("csrw " #name ", %0" : : "rK"((uintptr_t)(value)) : "memory")
#define csr_set(name, bits) __asm__ volatile("csrs " #name ", %0" : : "rK"((uintptr_t)(bits)) : "memory")
#define csr_clear(name, bits) __asm__ volatile("csrc " #name ", %0" : : "rK"((uintptr_t)(bits)) : "memory")

#define MSTATUS_MIE 0x8u
#define MSTATUS_MPIE 0x80u
#define MSTATUS_MPP 0x1800u
#define MSTATUS_FS 0x6000u
#define MIP_MSIP (1u << 3)
#define MIP_MTIP (1u << 7)
#define MIP_MEIP (1u << 11)

#define CAUSE_INTERRUPT ((uintptr_t)1 << (sizeof(uintptr_t) * 8 - 1))
#define CAUSE_SOFTWARE (CAUSE_INTERRUPT | 3)
#define CAUSE_TIMER (CAUSE_INTERRUPT | 7)
#define CAUSE_EXTERNAL (CAUSE_INTERRUPT | 11)

static inline void interrupts_on(void) { csr_set(mstatus, MSTATUS_MIE); }
static inline void interrupts_off(void) { csr_clear(mstatus, MSTATUS_MIE); }
static inline void wait_for_interrupt(void) { __asm__ volatile("wfi" : : : "memory"); }

#endif
