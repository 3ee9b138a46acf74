/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio.h: virtio devices over MMIO, modern and legacy registers: finding one, its queues, what goes into them. */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "plic.h"

/* Eight slots of virtio over MMIO, as on QEMU's `virt`; interrupt source 1 for the first. */
#define VIRTIO_BASE 0x10001000u
#define VIRTIO_SLOTS 8
#define VIRTIO_MAGIC 0x74726976u
#define MAGIC_VALUE 0x000
#define VERSION 0x004 /* 1: legacy */
#define DEVICE_ID 0x008
#define DRIVER_FEATURES 0x020
#define GUEST_PAGE_SIZE 0x028
#define QUEUE_SEL 0x030
#define QUEUE_NUM_MAX 0x034
#define QUEUE_NUM 0x038
#define QUEUE_ALIGN 0x03c
#define QUEUE_PFN 0x040
#define QUEUE_READY 0x044
#define QUEUE_NOTIFY 0x050
#define INTERRUPT_STATUS 0x060
#define INTERRUPT_ACK 0x064
#define STATUS 0x070
#define QUEUE_DESC 0x080
#define QUEUE_DRIVER 0x090
#define QUEUE_DEVICE 0x0a0
#define CONFIG 0x100
#define FEATURES_OK 8
#define DRIVER_OK 4

#define DESC_NEXT 1
#define DESC_WRITE 2
#define ENTRIES 8
#define PAGE 4096u

/* One queue, laid out as the legacy interface wants it: the used ring on a page of its own. */
struct queue {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } desc[ENTRIES];
    uint16_t avail_flags, avail_index, avail_ring[ENTRIES];
    uint8_t rest[PAGE - ENTRIES * 16 - 4 - 2 * ENTRIES];
    volatile uint16_t used_flags, used_index;
    volatile struct {
        uint32_t head, written;
    } used_ring[ENTRIES];
} __attribute__((aligned(PAGE)));

struct device {
    uintptr_t base;
    uint32_t source;
    struct queue *queue; /* the first of them */
    volatile uint32_t interrupts;
};

static inline void virtio_acknowledge(struct device *device)
{
    write32(device->base + INTERRUPT_ACK, read32(device->base + INTERRUPT_STATUS));
    device->interrupts++;
}

static inline void virtio_set_address(uintptr_t base, uint32_t reg, const volatile void *address)
{
    write32(base + reg, (uint32_t)(uintptr_t)address);
    write32(base + reg + 4, (uint32_t)((uint64_t)(uintptr_t)address >> 32));
}

/* Finds the device and starts it, with `queues` of its queues; 0 if there is none. */
static inline int virtio_start(struct device *device, uint32_t id, uint32_t queues)
{
    uint32_t slot = 0;
    uintptr_t base = VIRTIO_BASE;
    while (slot < VIRTIO_SLOTS && (read32(base + MAGIC_VALUE) != VIRTIO_MAGIC || read32(base + DEVICE_ID) != id)) {
        slot++;
        base += PAGE;
    }
    if (slot == VIRTIO_SLOTS)
        return 0;
    device->base = base;
    device->source = slot + 1;
    write32(PLIC_BASE + PLIC_PRIORITY + 4 * device->source, 1);
    write32(base + STATUS, 0);
    write32(base + STATUS, 3);
    write32(base + DRIVER_FEATURES, 0);
    write32(base + STATUS, 3 | FEATURES_OK);
    if (read32(base + VERSION) == 1)
        write32(base + GUEST_PAGE_SIZE, PAGE);
    for (uint32_t number = 0; number < queues; number++) {
        struct queue *queue = &device->queue[number];
        write32(base + QUEUE_SEL, number);
        if (read32(base + QUEUE_NUM_MAX) < ENTRIES)
            return 0;
        write32(base + QUEUE_NUM, ENTRIES);
        if (read32(base + VERSION) == 1) {
            write32(base + QUEUE_ALIGN, PAGE);
            write32(base + QUEUE_PFN, (uint32_t)((uintptr_t)queue / PAGE));
        } else {
            virtio_set_address(base, QUEUE_DESC, queue->desc);
            virtio_set_address(base, QUEUE_DRIVER, &queue->avail_flags);
            virtio_set_address(base, QUEUE_DEVICE, &queue->used_flags);
            write32(base + QUEUE_READY, 1);
        }
    }
    write32(base + STATUS, 3 | FEATURES_OK | DRIVER_OK);
    return 1;
}

static inline void virtio_describe(struct queue *queue, uint32_t index, const void *data, uint32_t length, uint16_t flags)
{
    queue->desc[index].address = (uintptr_t)data;
    queue->desc[index].length = length;
    queue->desc[index].flags = flags;
    queue->desc[index].next = (uint16_t)(index + 1);
}

/* Makes the chain that begins at `head` available, and tells the device. */
static inline void virtio_notify(struct device *device, uint32_t number, uint16_t head)
{
    struct queue *queue = &device->queue[number];
    queue->avail_ring[queue->avail_index % ENTRIES] = head;
    __asm__ volatile("fence" : : : "memory");
    queue->avail_index++;
    __asm__ volatile("fence" : : : "memory");
    write32(device->base + QUEUE_NOTIFY, number);
}

#endif
