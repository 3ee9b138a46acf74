/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Physical memory protection (privileged manual 3.7): 16 entries, with a granularity of 4 KiB.
 *
 * So every page is inside or outside of an entry as a whole, and one look at a page is enough for all accesses to it.
 * The manual has the guest find out: NA4 cannot be chosen (NAPOT is taken instead), and the address bits below the
 * granularity read as ones for NAPOT and as zeros else.
 */
#include "internal.h"

#define ENTRIES 16u
#define CSR_PMPCFG0 0x3a0u
#define CSR_PMPADDR0 0x3b0u

#define CFG_R 0x01u
#define CFG_W 0x02u
#define CFG_X 0x04u
#define CFG_A 0x18u
#define CFG_TOR 0x08u
#define CFG_NA4 0x10u
#define CFG_NAPOT 0x18u
#define CFG_L 0x80u
#define BELOW_PAGE 0x3ffull /* of an address in units of 4 bytes */

/* Is the page of `address` inside of the entry? Addresses in units of 4 bytes. */
static int inside(const supervisor_state *s, uint32_t entry, uint64_t address)
{
    uint64_t top = s->pmpaddr[entry];
    switch (s->pmpcfg[entry] & CFG_A) {
    case CFG_TOR:
        return address >= (entry ? s->pmpaddr[entry - 1] & ~BELOW_PAGE : 0) && address < (top & ~BELOW_PAGE);
    case CFG_NAPOT:
        top |= BELOW_PAGE >> 1;
        return ((address ^ top) & ~(top ^ (top + 1))) == 0;
    default: return 0;
    }
}

uint32_t pmp_rights(const vm_t *vm, uint64_t physical, uint64_t mode)
{
    const supervisor_state *s = &vm->supervisor;
    const uint32_t all = MAY_LOAD | MAY_STORE | MAY_FETCH;
    uint64_t address = physical >> PAGE_SHIFT << (PAGE_SHIFT - 2);
    for (uint32_t entry = 0; entry < ENTRIES; entry++) {
        uint32_t cfg = s->pmpcfg[entry];
        if (!inside(s, entry, address))
            continue;
        if (mode == PRIV_M && !(cfg & CFG_L))
            return all;
        return (cfg & CFG_R ? MAY_LOAD : 0) | (cfg & CFG_W ? MAY_STORE : 0) | (cfg & CFG_X ? MAY_FETCH : 0);
    }
    return mode == PRIV_M ? all : 0;
}

/* Entries were changed: what is kept of translations may be wrong now, and machine mode bound. */
void pmp_changed(vm_t *vm)
{
    vm->in->locked = 0;
    for (uint32_t entry = 0; entry < ENTRIES; entry++)
        if (vm->supervisor.pmpcfg[entry] & CFG_L)
            vm->in->locked = 1;
    walk_forget(vm);
    walk_view_changed(vm);
}

/* The first entry that a configuration register holds, or ENTRIES if there is no such register. */
static uint32_t first_entry(const vm_t *vm, uint32_t number)
{
    uint32_t index = number - CSR_PMPCFG0;
    return index >= ENTRIES / 4 || (vm->xlen == 64 && (index & 1)) ? ENTRIES : index * 4;
}

int pmp_read(const vm_t *vm, uint32_t number, uint64_t *value)
{
    const supervisor_state *s = &vm->supervisor;
    if (number - CSR_PMPADDR0 < ENTRIES) {
        uint32_t entry = number - CSR_PMPADDR0;
        *value = s->pmpcfg[entry] & CFG_NA4 ? s->pmpaddr[entry] | BELOW_PAGE >> 1 : s->pmpaddr[entry] & ~BELOW_PAGE;
        return 0;
    }
    uint32_t first = first_entry(vm, number);
    if (first == ENTRIES)
        return -1;
    *value = 0;
    memcpy(value, s->pmpcfg + first, vm->xlen / 8);
    return 0;
}

static int address_locked(const supervisor_state *s, uint32_t entry)
{
    if (s->pmpcfg[entry] & CFG_L)
        return 1;
    return entry + 1 < ENTRIES && (s->pmpcfg[entry + 1] & CFG_L) && (s->pmpcfg[entry + 1] & CFG_A) == CFG_TOR;
}

static uint8_t legal(uint32_t cfg)
{
    cfg &= CFG_L | CFG_A | CFG_X | CFG_W | CFG_R;
    if (!(cfg & CFG_R))
        cfg &= ~CFG_W; /* reserved */
    if ((cfg & CFG_A) == CFG_NA4)
        cfg |= CFG_NAPOT;
    return (uint8_t)cfg;
}

/* Of a register that pmp_read knows. */
void pmp_write(vm_t *vm, uint32_t number, uint64_t value)
{
    supervisor_state *s = &vm->supervisor;
    if (number - CSR_PMPADDR0 < ENTRIES) {
        if (!address_locked(s, number - CSR_PMPADDR0))
            s->pmpaddr[number - CSR_PMPADDR0] = vm->xlen == 32 ? value : value & ((1ull << 54) - 1);
    } else {
        uint32_t first = first_entry(vm, number);
        for (uint32_t i = 0; i < vm->xlen / 8; i++)
            if (!(s->pmpcfg[first + i] & CFG_L))
                s->pmpcfg[first + i] = legal(value >> (8 * i) & 0xff);
    }
    pmp_changed(vm);
}
