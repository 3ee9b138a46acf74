/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk: reads, writes and re-reads a virtio drive by interrupts, runs code that came from it, draws from virtio-rng. */
#include "runtime/plic.h"
#include "runtime/uart.h"

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

#define BLOCK_DEVICE 2
#define RNG_DEVICE 4
#define DESC_NEXT 1
#define DESC_WRITE 2
#define READ 0
#define WRITE 1
#define FLUSH 4
#define UNKNOWN 99
#define ENTRIES 8
#define PAGE 4096u
#define SECTOR 512u

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
    struct queue *queue;
    volatile uint32_t interrupts;
};

static struct queue disk_queue, rng_queue;
static struct device disk = {.queue = &disk_queue}, rng = {.queue = &rng_queue};
static uint8_t buffer[8 * PAGE] __attribute__((aligned(PAGE)));
static uint32_t code[SECTOR / 4] __attribute__((aligned(PAGE)));

static void acknowledge(struct device *device)
{
    write32(device->base + INTERRUPT_ACK, read32(device->base + INTERRUPT_STATUS));
    device->interrupts++;
}

__attribute__((interrupt("machine"), aligned(4))) static void on_interrupt(void)
{
    uint32_t source = plic_claim();
    if (source == disk.source)
        acknowledge(&disk);
    else if (source == rng.source)
        acknowledge(&rng);
    plic_complete(source);
}

static void set_address(uintptr_t base, uint32_t reg, const volatile void *address)
{
    write32(base + reg, (uint32_t)(uintptr_t)address);
    write32(base + reg + 4, (uint32_t)((uint64_t)(uintptr_t)address >> 32));
}

/* Finds the device and starts it; 0 if there is none. */
static int start(struct device *device, uint32_t id)
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
    write32(base + QUEUE_SEL, 0);
    if (read32(base + QUEUE_NUM_MAX) < ENTRIES)
        return 0;
    write32(base + QUEUE_NUM, ENTRIES);
    if (read32(base + VERSION) == 1) {
        write32(base + GUEST_PAGE_SIZE, PAGE);
        write32(base + QUEUE_ALIGN, PAGE);
        write32(base + QUEUE_PFN, (uint32_t)((uintptr_t)device->queue / PAGE));
    } else {
        set_address(base, QUEUE_DESC, device->queue->desc);
        set_address(base, QUEUE_DRIVER, &device->queue->avail_flags);
        set_address(base, QUEUE_DEVICE, &device->queue->used_flags);
        write32(base + QUEUE_READY, 1);
    }
    write32(base + STATUS, 3 | FEATURES_OK | DRIVER_OK);
    return 1;
}

static void describe(struct queue *queue, uint32_t index, const void *data, uint32_t length, uint16_t flags)
{
    queue->desc[index].address = (uintptr_t)data;
    queue->desc[index].length = length;
    queue->desc[index].flags = flags;
    queue->desc[index].next = (uint16_t)(index + 1);
}

/* Makes the chain at descriptor 0 available and sleeps until the device's interrupt has come. */
static uint32_t submit(struct device *device)
{
    struct queue *queue = device->queue;
    uint16_t before = queue->used_index;
    uint32_t interrupts = device->interrupts;
    queue->avail_ring[queue->avail_index % ENTRIES] = 0;
    __asm__ volatile("fence" : : : "memory");
    queue->avail_index++;
    __asm__ volatile("fence" : : : "memory");
    write32(device->base + QUEUE_NOTIFY, 0);
    interrupts_off();
    while (device->interrupts == interrupts || queue->used_index == before) {
        wait_for_interrupt();
        interrupts_on();
        interrupts_off();
    }
    interrupts_on();
    return queue->used_ring[before % ENTRIES].written;
}

/* One request for `length` bytes, in two pieces; returns its status. */
static uint32_t request(uint32_t type, uint64_t sector, void *data, uint32_t length)
{
    static struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static volatile uint8_t status;
    uint16_t way = type == READ ? DESC_WRITE : 0;
    uint32_t index = 1, first = length < 100 ? length : 100;
    header.type = type;
    header.sector = sector;
    status = 0xff;
    describe(&disk_queue, 0, &header, sizeof header, DESC_NEXT);
    if (length) {
        describe(&disk_queue, index++, data, first, way | DESC_NEXT);
        if (first < length)
            describe(&disk_queue, index++, (uint8_t *)data + first, length - first, way | DESC_NEXT);
    }
    describe(&disk_queue, index, (void *)&status, 1, DESC_WRITE);
    submit(&disk);
    return status;
}

static uint32_t checksum(const uint8_t *data, uint32_t length)
{
    uint32_t sum = 0x811c9dc5u;
    for (uint32_t i = 0; i < length; i++)
        sum = (sum ^ data[i]) * 0x01000193u;
    return sum;
}

static void report(const char *name, uint32_t value)
{
    put_text(name);
    put_char(' ');
    put_unsigned(value);
    put_char('\n');
}

/* Code that comes from the drive into a page that was executed just before. */
static uint32_t run_from_disk(uint32_t value)
{
    static uint32_t made[SECTOR / 4];
    made[0] = 0x00000513u | value << 20; /* li a0, value */
    made[1] = 0x00008067u;               /* ret */
    request(WRITE, 40, made, SECTOR);
    request(READ, 40, code, SECTOR);
    __asm__ volatile("fence.i" : : : "memory");
    return ((uint32_t(*)(void))code)();
}

int main(void)
{
    if (!start(&disk, BLOCK_DEVICE)) {
        put_text("disk: no drive\n");
        return 1;
    }
    int has_rng = start(&rng, RNG_DEVICE);
    write32(PLIC_BASE + PLIC_ENABLE, 1u << disk.source | (has_rng ? 1u << rng.source : 0));
    write32(PLIC_BASE + PLIC_THRESHOLD, 0);
    csr_write(mtvec, on_interrupt);
    csr_write(mie, MIP_MEIP);
    interrupts_on();
    report("sectors", read32(disk.base + CONFIG));
    report("read", request(READ, 0, buffer, 3 * PAGE));
    put_checksum("data", checksum(buffer, 3 * PAGE));
    for (uint32_t i = 0; i < 7 * SECTOR; i++)
        buffer[i] = (uint8_t)(i * 7 + (i >> 8));
    report("write", request(WRITE, 13, buffer, 7 * SECTOR));
    uint32_t wrote = checksum(buffer, 7 * SECTOR);
    report("read again", request(READ, 13, buffer, 7 * SECTOR));
    report("same", wrote == checksum(buffer, 7 * SECTOR));
    report("around it", request(READ, 8, buffer, 2 * PAGE));
    put_checksum("data", checksum(buffer, 2 * PAGE));
    report("flush", request(FLUSH, 0, buffer, 0));
    report("beyond the end", request(READ, 1u << 30, buffer, SECTOR));
    report("unknown", request(UNKNOWN, 0, buffer, 0));
    report("code", run_from_disk(11));
    report("code", run_from_disk(22));
    report("interrupts", disk.interrupts);
    if (has_rng) {
        describe(&rng_queue, 0, buffer, 24, DESC_WRITE);
        uint32_t length = submit(&rng);
        report("random bytes", length);
        put_checksum("random", checksum(buffer, length));
    }
    return 0;
}
