/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CLINT: software interrupt, timer compare and time of one hart (SiFive FU540-C000 manual, chapter 9).
 *
 *     0x0000  msip        bit 0 drives mip.MSIP
 *     0x4000  mtimecmp    64 bits; mip.MTIP is up while mtime >= mtimecmp
 *     0xbff8  mtime       64 bits; a write moves it, and it goes on from there
 *
 * 64-bit registers take 8-byte accesses and 4-byte accesses to either half. At reset mtimecmp is all ones: no timer
 * interrupt before the guest asks for one.
 */
#include "device.h"

#define MSIP 0x0000
#define MTIMECMP 0x4000
#define MTIME 0xbff8

static uint64_t part(uint64_t value, uint64_t offset, uint32_t size)
{
    return size == 8 ? value : (uint32_t)(value >> (8 * (offset & 4)));
}

static uint64_t merge(uint64_t old, uint64_t offset, uint32_t size, uint64_t value)
{
    uint32_t shift = 8 * (offset & 4);
    return size == 8 ? value : (old & ~(0xffffffffull << shift)) | (value & 0xffffffffull) << shift;
}

static int refused(uint64_t offset, uint32_t size)
{
    return (size != 4 && size != 8) || (offset & (size - 1));
}

int clint_read(clint_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    if (refused(offset, size))
        return -1;
    switch (offset & ~7ull) {
    case MSIP: *value = part(s->msip, offset, size); break;
    case MTIMECMP: *value = part(s->mtimecmp, offset, size); break;
    case MTIME: *value = part(port->mtime + s->mtime_offset, offset, size); break;
    default: *value = 0; break;
    }
    return 0;
}

int clint_write(clint_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    if (refused(offset, size))
        return -1;
    switch (offset & ~7ull) {
    case MSIP:
        if (!(offset & 4))
            s->msip = value & 1;
        break;
    case MTIMECMP:
        s->mtimecmp = merge(s->mtimecmp, offset, size, value);
        port->deadline_moved = 1;
        break;
    case MTIME:
        s->mtime_offset = merge(port->mtime + s->mtime_offset, offset, size, value) - port->mtime;
        port->deadline_moved = 1;
        break;
    default: break;
    }
    return 0;
}
