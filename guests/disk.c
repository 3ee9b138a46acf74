/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk: reads, writes and re-reads a virtio drive by interrupts, runs code that came from it, draws from virtio-rng. */
#include "runtime/plic.h"
#include "runtime/uart.h"
#include "runtime/virtio.h"

#define BLOCK_DEVICE 2
#define RNG_DEVICE 4
#define READ 0
#define WRITE 1
#define FLUSH 4
#define UNKNOWN 99
#define SECTOR 512u

static struct queue disk_queue, rng_queue;
static struct device disk = {.queue = &disk_queue}, rng = {.queue = &rng_queue};
static uint8_t buffer[8 * PAGE] __attribute__((aligned(PAGE)));
static uint32_t code[SECTOR / 4] __attribute__((aligned(PAGE)));

__attribute__((interrupt("machine"), aligned(4))) static void on_interrupt(void)
{
    uint32_t source = plic_claim();
    if (source == disk.source)
        virtio_acknowledge(&disk);
    else if (source == rng.source)
        virtio_acknowledge(&rng);
    plic_complete(source);
}

/* Makes the chain at descriptor 0 available and sleeps until the device's interrupt has come. */
static uint32_t submit(struct device *device)
{
    struct queue *queue = device->queue;
    uint16_t before = queue->used_index;
    uint32_t interrupts = device->interrupts;
    virtio_notify(device, 0, 0);
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
    virtio_describe(&disk_queue, 0, &header, sizeof header, DESC_NEXT);
    if (length) {
        virtio_describe(&disk_queue, index++, data, first, way | DESC_NEXT);
        if (first < length)
            virtio_describe(&disk_queue, index++, (uint8_t *)data + first, length - first, way | DESC_NEXT);
    }
    virtio_describe(&disk_queue, index, (void *)&status, 1, DESC_WRITE);
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
    if (!virtio_start(&disk, BLOCK_DEVICE, 1)) {
        put_text("disk: no drive\n");
        return 1;
    }
    int has_rng = virtio_start(&rng, RNG_DEVICE, 1);
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
        virtio_describe(&rng_queue, 0, buffer, 24, DESC_WRITE);
        uint32_t length = submit(&rng);
        report("random bytes", length);
        put_checksum("random", checksum(buffer, length));
    }
    return 0;
}
