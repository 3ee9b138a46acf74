/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueues (virtio 1.2, 2.7), as a device sees them.
 *
 *     descriptor table   16 bytes each: u64 address │ u32 length │ u16 flags │ u16 next
 *                        flags: 1 there is a next one, 2 the device writes, 4 indirect (not offered here)
 *     available ring     u16 flags (1: no interrupt) │ u16 index │ u16 head of a chain … (entries, modulo their number)
 *     used ring          u16 flags │ u16 index │ (u32 head, u32 bytes written) …
 *
 * All three lie wherever the driver says, so all of it is looked at as what an enemy wrote: rings outside RAM, numbers
 * that are no power of two, more available entries than there are, chains that never end, buffers outside RAM or of no
 * length, what the device reads behind what it writes. Each breaks the queue: the chains before it are done, then the
 * device needs a reset (2.1.2). Nothing that was asked for is looked at twice.
 */
#include <stdlib.h>

#include "device.h"
#include "virtio.h"

#define DESCRIPTOR 16u
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define AVAIL_NO_INTERRUPT 1u
#define AVAIL_RING 4u
#define USED_RING 4u

typedef struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
} descriptor;

static uint16_t load16(const port_t *port, uint64_t address)
{
    uint16_t value;
    dma_load(port, address, &value, sizeof value);
    return value;
}

/* 2.7.2: the layout of a legacy queue, which is one piece of memory. */
uint64_t queue_used_ring(uint64_t desc, uint32_t num, uint32_t align)
{
    uint64_t end = desc + (uint64_t)DESCRIPTOR * num + 2ull * (3 + num);
    return (end + align - 1) & ~((uint64_t)align - 1);
}

static void *grown(void *array, size_t *room, size_t size)
{
    *room = *room ? 2 * *room : 64;
    array = realloc(array, *room * size);
    if (!array)
        abort();
    return array;
}

static void add_buffer(virtio_work *work, uint64_t address, uint32_t length)
{
    if (work->buffer_count == work->buffer_room)
        work->buffers = grown(work->buffers, &work->buffer_room, sizeof *work->buffers);
    work->buffers[work->buffer_count++] = (virtio_buffer){address, length};
}

static void add_chain(virtio_work *work, const virtio_chain *chain)
{
    if (work->chain_count == work->chain_room)
        work->chains = grown(work->chains, &work->chain_room, sizeof *work->chains);
    work->chains[work->chain_count++] = *chain;
}

void work_free(virtio_work *work)
{
    free(work->chains);
    free(work->buffers);
}

static enum look range(port_t *port, uint64_t address, uint64_t length)
{
    enum dma found = dma_ready(port, address, length);
    return found == DMA_OUTSIDE ? LOOK_BROKEN : found == DMA_MISSING ? LOOK_LATER : LOOK_GOOD;
}

static enum look rings(const virtio_state *s, port_t *port, uint32_t queue, uint32_t num)
{
    enum look look = range(port, s->queue_desc[queue], DESCRIPTOR * num);
    if (look == LOOK_GOOD)
        look = range(port, s->queue_driver[queue], AVAIL_RING + 2 * num);
    if (look == LOOK_GOOD)
        look = range(port, s->queue_device[queue], USED_RING + 8 * num);
    return look;
}

/* One descriptor of `chain`, whose address range is there afterwards. */
static enum look take_buffer(port_t *port, const descriptor *found, virtio_work *work, virtio_chain *chain)
{
    if ((found->flags & DESC_INDIRECT) || !found->length)
        return LOOK_BROKEN;
    if (!(found->flags & DESC_WRITE) && chain->writable)
        return LOOK_BROKEN;
    work->bytes += found->length;
    if (work->bytes > WORK_MAX)
        return LOOK_BROKEN;
    enum look look = range(port, found->address, found->length);
    if (look != LOOK_GOOD)
        return look;
    add_buffer(work, found->address, found->length);
    if (found->flags & DESC_WRITE) {
        chain->writable++;
        chain->writable_bytes += found->length;
    } else {
        chain->readable++;
        chain->readable_bytes += found->length;
    }
    return LOOK_GOOD;
}

static enum look take_chain(port_t *port, uint64_t table, uint32_t num, virtio_work *work, virtio_chain *chain)
{
    uint32_t index = chain->head;
    for (uint32_t count = 0; count < num; count++) {
        descriptor found;
        if (index >= num)
            return LOOK_BROKEN;
        dma_load(port, table + (uint64_t)DESCRIPTOR * index, &found, sizeof found);
        enum look look = take_buffer(port, &found, work, chain);
        if (look != LOOK_GOOD)
            return look;
        if (!(found.flags & DESC_NEXT))
            return LOOK_GOOD;
        index = found.next;
    }
    return LOOK_BROKEN; /* it goes round in a circle */
}

enum look queue_look(const virtio_state *s, const virtio_device *device, port_t *port, uint32_t queue, uint32_t most,
                     virtio_work *work)
{
    uint32_t num = s->queue_num[queue];
    uint64_t avail = s->queue_driver[queue];
    work->chain_count = work->buffer_count = 0;
    work->bytes = 0;
    work->slot = device->slot;
    work->queue = queue;
    work->broken = work->silent = 0;
    enum look look = !num || num > QUEUE_MAX || (num & (num - 1)) ? LOOK_BROKEN : rings(s, port, queue, num);
    if (look == LOOK_BROKEN)
        work->broken = 1;
    if (look != LOOK_GOOD)
        return look == LOOK_LATER ? LOOK_LATER : LOOK_GOOD;
    uint16_t ready = (uint16_t)(load16(port, avail + 2) - s->queue_seen[queue]);
    work->silent = load16(port, avail) & AVAIL_NO_INTERRUPT;
    if (ready > num) {
        work->broken = 1;
        return LOOK_GOOD;
    }
    for (uint32_t i = 0; i < ready && i < most; i++) {
        virtio_chain chain = {.first = work->buffer_count};
        chain.head = load16(port, avail + AVAIL_RING + 2 * ((s->queue_seen[queue] + i) & (num - 1)));
        look = take_chain(port, s->queue_desc[queue], num, work, &chain);
        if (look == LOOK_GOOD)
            look = virtio_accept(device, port, work, &chain);
        if (look == LOOK_LATER)
            return LOOK_LATER;
        if (look == LOOK_BROKEN) {
            work->broken = 1;
            break;
        }
        add_chain(work, &chain);
    }
    return LOOK_GOOD;
}

void queue_done(virtio_state *s, port_t *port, virtio_work *work, size_t chain, uint32_t written)
{
    uint32_t queue = work->queue, entry[2] = {work->chains[chain].head, written};
    uint64_t used = s->queue_device[queue];
    dma_store(port, used + USED_RING + 8 * (s->queue_used[queue] & (s->queue_num[queue] - 1)), entry, sizeof entry);
    s->queue_used[queue]++;
    s->queue_seen[queue]++;
    dma_store(port, used + 2, &s->queue_used[queue], 2);
}

void queue_end(virtio_state *s, const virtio_work *work)
{
    if (work->chain_count && !work->silent)
        s->interrupt_status |= INTERRUPT_USED;
    if (work->broken)
        virtio_break(s);
}

/* Both walk the buffers [first, first + count) of the work, `from` bytes in. */
static void copy(port_t *port, const virtio_work *work, size_t first, uint64_t from, uint8_t *bytes, uint64_t length,
                 int store)
{
    for (const virtio_buffer *buffer = work->buffers + first; length; buffer++) {
        if (from >= buffer->length) {
            from -= buffer->length;
            continue;
        }
        uint64_t piece = buffer->length - from < length ? buffer->length - from : length;
        if (store)
            dma_store(port, buffer->address + from, bytes, piece);
        else
            dma_load(port, buffer->address + from, bytes, piece);
        bytes += piece;
        length -= piece;
        from = 0;
    }
}

void chain_load(const port_t *port, const virtio_work *work, const virtio_chain *chain, uint64_t from, void *to,
                uint64_t length)
{
    copy((port_t *)port, work, chain->first, from, to, length, 0);
}

void chain_store(port_t *port, const virtio_work *work, const virtio_chain *chain, uint64_t from, const void *bytes,
                 uint64_t length)
{
    copy(port, work, chain->first + chain->readable, from, (uint8_t *)bytes, length, 1);
}
