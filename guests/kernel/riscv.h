/* SPDX-License-Identifier: GPL-2.0-or-later */
/* riscv.h: the supervisor's registers and page table entries, by their names in the privileged manual. */
#ifndef RISCV_H
#define RISCV_H

#include <stdint.h>

#define csr_read(name) \
    ({ uint64_t value_; __asm__ volatile("csrr %0, " #name : "=r"(value_) : : "memory"); value_; })
#define csr_write(name, value) __asm__ volatile("csrw " #name ", %0" : : "rK"((uint64_t)(value)) : "memory")
#define csr_set(name, bits) __asm__ volatile("csrs " #name ", %0" : : "rK"((uint64_t)(bits)) : "memory")
#define csr_clear(name, bits) __asm__ volatile("csrc " #name ", %0" : : "rK"((uint64_t)(bits)) : "memory")

#define SSTATUS_SIE (1ul << 1)  /* interrupts are taken in supervisor mode */
#define SSTATUS_SPIE (1ul << 5) /* what sret makes of SIE */
#define SSTATUS_SPP (1ul << 8)  /* the trap came from supervisor mode */

#define SIE_TIMER (1ul << 5)
#define SIE_EXTERNAL (1ul << 9)

#define CAUSE_INTERRUPT (1ul << 63)
#define CAUSE_TIMER (CAUSE_INTERRUPT | 5)
#define CAUSE_EXTERNAL (CAUSE_INTERRUPT | 9)
#define CAUSE_ECALL_U 8ul
#define CAUSE_FETCH_PAGE 12ul
#define CAUSE_LOAD_PAGE 13ul
#define CAUSE_STORE_PAGE 15ul

/*
 * satp      63..60 mode (8: Sv39)   59..44 ASID   43..0 page number of the root table
 * an entry  53..10 page number   9..8 left to software   7 D   6 A   5 G   4 U   3 X   2 W   1 R   0 V
 * An entry with R, W and X all 0 points to the next table.
 */
#define SATP_SV39 (8ul << 60)
#define PTE_V 0x001ul
#define PTE_R 0x002ul
#define PTE_W 0x004ul
#define PTE_X 0x008ul
#define PTE_U 0x010ul
#define PTE_G 0x020ul
#define PTE_A 0x040ul
#define PTE_D 0x080ul
#define PTE_COW 0x100ul /* ours: the page is shared since a fork; whoever writes first takes a copy */

static inline void flush_all(void) { __asm__ volatile("sfence.vma" : : : "memory"); }
static inline void flush_page(uint64_t address) { __asm__ volatile("sfence.vma %0" : : "r"(address) : "memory"); }
static inline void wait_for_interrupt(void) { __asm__ volatile("wfi" : : : "memory"); }
static inline uint64_t time_now(void) { return csr_read(time); }

static inline uint32_t read32(uint64_t address) { return *(volatile uint32_t *)address; }
static inline void write32(uint64_t address, uint32_t value) { *(volatile uint32_t *)address = value; }
static inline uint8_t read8(uint64_t address) { return *(volatile uint8_t *)address; }
static inline void write8(uint64_t address, uint8_t value) { *(volatile uint8_t *)address = value; }

#endif
