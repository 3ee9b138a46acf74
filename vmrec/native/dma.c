/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM and drives, for devices.
 *
 * A device first asks whether a range is there (dma_ready, dma_drive_ready), then reads and writes it. What it stores
 * into RAM goes through the door like a store of the hart: the page is dirty, code in it is forgotten, page tables are
 * walked again, a watched range is a hit. Nothing outside RAM and drives can be reached: a range that is not all there
 * is never touched.
 *
 *     host mapping   [ RAM ][ drive 0 ][ drive 1 ] …     each drive rounded up to whole pages, its blocks
 *
 * A block that was never touched is missing: a read of it, or a write of a part, needs it first. One that is all
 * written does not.
 */
#include "device.h"
#include "internal.h"

enum dma dma_ready(port_t *port, uint64_t address, uint64_t length)
{
    const vm_t *vm = port->machine;
    uint64_t offset = address - RAM_BASE;
    if (offset >= vm->ram_size || length > vm->ram_size - offset)
        return DMA_OUTSIDE;
    if (vm->in->missing && length)
        for (uint64_t page = offset >> PAGE_SHIFT; page <= (offset + length - 1) >> PAGE_SHIFT; page++)
            if (door_is_missing(vm, page)) {
                port->missing = 1;
                port->missing_page = page;
                return DMA_MISSING;
            }
    return DMA_READY;
}

void dma_load(const port_t *port, uint64_t address, void *to, uint64_t length)
{
    memcpy(to, port->machine->in->ram + (address - RAM_BASE), length);
}

void dma_store(port_t *port, uint64_t address, const void *from, uint64_t length)
{
    door_store_many(port->machine, address - RAM_BASE, from, length);
}

/* [at, at + length) of a drive, which lies on it. 0, or -1: a block is missing, and the port says which. */
int dma_drive_ready(port_t *port, uint32_t drive, uint64_t at, uint64_t length, int write)
{
    const vm_t *vm = port->machine;
    uint64_t first = vm->in->drive_page[drive];
    for (uint64_t block = at >> PAGE_SHIFT; length && block << PAGE_SHIFT < at + length; block++) {
        int whole = at <= block << PAGE_SHIFT && (block + 1) << PAGE_SHIFT <= at + length;
        if ((write && whole) || !door_is_missing(vm, first + block))
            continue;
        port->missing = 1;
        port->missing_page = first + block;
        return -1;
    }
    return 0;
}

static uint8_t *on_drive(const vm_t *vm, uint32_t drive, uint64_t at)
{
    return vm->in->ram + (vm->in->drive_page[drive] << PAGE_SHIFT) + at;
}

void dma_from_drive(port_t *port, uint32_t drive, uint64_t at, uint64_t address, uint64_t length)
{
    door_store_many(port->machine, address - RAM_BASE, on_drive(port->machine, drive, at), length);
}

void dma_to_drive(port_t *port, uint32_t drive, uint64_t at, uint64_t address, uint64_t length)
{
    vm_t *vm = port->machine;
    uint64_t first = vm->in->drive_page[drive];
    memcpy(on_drive(vm, drive, at), vm->in->ram + (address - RAM_BASE), length);
    for (uint64_t page = at >> PAGE_SHIFT; length && page << PAGE_SHIFT < at + length; page++) {
        vm->in->page_flags[first + page] |= PAGE_HERE;
        door_mark_dirty(vm, first + page);
    }
}
