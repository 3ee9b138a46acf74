/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk.c: a virtio block device behind virtio-mmio, both as version 1.1 and as the older drafts have it. */
#include "kernel.h"

/*
 * We and the device share three arrays (chapter 2.6 of the virtio specification):
 *
 *   descriptors   address, length, flags, next: a chain of them is one request
 *   available     numbers of the first descriptors of chains that we have made; the device reads it
 *   used          numbers of chains that the device has done; we read it
 *
 * One request at a time is enough here, so it always is the chain 0 -> 1 -> 2: what to do, the data, the outcome.
 */
enum { /* registers */
    MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24,
    LEGACY_PAGE_SIZE = 0x28, QUEUE_SEL = 0x30, QUEUE_MAX = 0x34, QUEUE_SIZE = 0x38, LEGACY_QUEUE_ALIGN = 0x3c,
    LEGACY_QUEUE_PAGE = 0x40, QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64,
    STATUS = 0x70, QUEUE_DESC = 0x80, QUEUE_DRIVER = 0x90, QUEUE_DEVICE = 0xa0, CONFIG_CAPACITY = 0x100,
};
#define MAGIC_VALUE 0x74726976u /* "virt" */
#define BLOCK_DEVICE 2
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 }; /* status */
enum { NEXT = 1, DEVICE_WRITES = 2 };                                 /* flags of a descriptor */
#define QUEUE 4
#define SECTOR 512

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

/* Where the parts of an older device's queue must be: the used ring on the next page. A newer one is told. */
static struct {
    struct descriptor descriptor[QUEUE];
    struct {
        uint16_t flags, index, ring[QUEUE], event;
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[QUEUE];
        uint16_t event;
    } used __attribute__((aligned(PAGE_SIZE)));
} queue __attribute__((aligned(PAGE_SIZE)));

static struct {
    uint32_t type, reserved;
    uint64_t sector;
} request; /* type 0: read, 1: write */
static volatile uint8_t outcome;

static uint64_t device; /* its registers */
static int source;      /* of its interrupts */
static bool busy, done;

static void set64(uint64_t reg, const volatile void *address)
{
    write32(device + reg, (uint32_t)(uint64_t)address);
    write32(device + reg + 4, (uint32_t)((uint64_t)address >> 32));
}

/* Looks in every slot: which one a disk is in depends on the order of the command line. */
static bool find(void)
{
    for (int slot = 0; slot < VIRTIO_SLOTS; slot++) {
        device = VIRTIO + (uint64_t)slot * PAGE_SIZE;
        source = VIRTIO_IRQ + slot;
        if (read32(device + MAGIC) == MAGIC_VALUE && read32(device + DEVICE_ID) == BLOCK_DEVICE)
            return true;
    }
    return false;
}

void disk_init(void)
{
    if (!find())
        panic("there is no virtio block device: give the machine a drive");
    uint32_t version = read32(device + VERSION), status = ACKNOWLEDGE | DRIVER;
    write32(device + STATUS, 0); /* reset */
    write32(device + STATUS, status);
    write32(device + DRIVER_FEATURES_SEL, 0);
    write32(device + DRIVER_FEATURES, 0); /* we need none of what it offers */
    if (version >= 2) {
        write32(device + DRIVER_FEATURES_SEL, 1);
        write32(device + DRIVER_FEATURES, 1); /* bit 32: we know version 1 */
        status |= FEATURES_OK;
        write32(device + STATUS, status);
        if (!(read32(device + STATUS) & FEATURES_OK))
            panic("the disk wants a feature that this driver does not have");
    }
    write32(device + QUEUE_SEL, 0);
    if (read32(device + QUEUE_MAX) < QUEUE)
        panic("the disk's queue has no room for a request");
    write32(device + QUEUE_SIZE, QUEUE);
    if (version >= 2) {
        set64(QUEUE_DESC, queue.descriptor);
        set64(QUEUE_DRIVER, &queue.available);
        set64(QUEUE_DEVICE, &queue.used);
        write32(device + QUEUE_READY, 1);
    } else {
        write32(device + LEGACY_PAGE_SIZE, PAGE_SIZE);
        write32(device + LEGACY_QUEUE_ALIGN, PAGE_SIZE);
        write32(device + LEGACY_QUEUE_PAGE, (uint32_t)((uint64_t)&queue / PAGE_SIZE));
    }
    write32(device + STATUS, status | DRIVER_OK);
    plic_enable(source);
    print("disk: virtio-mmio version %u, %u blocks\n", version, disk_blocks());
}

uint32_t disk_blocks(void)
{
    return read32(device + CONFIG_CAPACITY) / (BLOCK_SIZE / SECTOR); /* 2^32 sectors are enough */
}

/* Whether the interrupt was the disk's. */
bool disk_interrupt(int from)
{
    if (from != source)
        return false;
    write32(device + INTERRUPT_ACK, read32(device + INTERRUPT_STATUS));
    done = true;
    wake(&done);
    return true;
}

/* One block between the disk and the 4096 bytes at `page`, which are contiguous in physical memory. */
void disk_transfer(uint32_t block, void *page, bool write)
{
    while (busy)
        sleep_on(&busy); /* another process's request */
    busy = true;
    done = false;
    request.type = write;
    request.sector = (uint64_t)block * (BLOCK_SIZE / SECTOR);
    queue.descriptor[0] = (struct descriptor){(uint64_t)&request, sizeof request, NEXT, 1};
    queue.descriptor[1] = (struct descriptor){(uint64_t)page, BLOCK_SIZE, write ? NEXT : NEXT | DEVICE_WRITES, 2};
    queue.descriptor[2] = (struct descriptor){(uint64_t)&outcome, 1, DEVICE_WRITES, 0};
    outcome = 0xff;
    queue.available.ring[queue.available.index % QUEUE] = 0;
    __asm__ volatile("fence" : : : "memory"); /* the device must see the chain before the index that offers it */
    *(volatile uint16_t *)&queue.available.index += 1;
    __asm__ volatile("fence" : : : "memory");
    write32(device + QUEUE_NOTIFY, 0);
    while (!done)
        sleep_on(&done);
    if (outcome)
        panic("the disk could not %s block %u", write ? "write" : "read", block);
    busy = false;
    wake(&busy);
}
