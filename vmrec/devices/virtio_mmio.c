/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio over MMIO: the registers of a device (virtio 1.2, 4.2.2; the legacy layout: 4.2.4).
 *
 *     0x000  MagicValue 0x74726976          0x034  QueueNumMax
 *     0x004  Version 2, legacy: 1           0x038  QueueNum            w
 *     0x008  DeviceID; 0: empty slot        0x044  QueueReady          rw   not legacy
 *     0x00c  VendorID (QEMU's)              0x050  QueueNotify         w
 *     0x010  DeviceFeatures                 0x060  InterruptStatus
 *     0x014  DeviceFeaturesSel    w         0x064  InterruptACK        w
 *     0x020  DriverFeatures       w         0x070  Status              rw   0 resets
 *     0x024  DriverFeaturesSel    w         0x080  QueueDesc, 0x090 QueueDriver, 0x0a0 QueueDevice:
 *     0x030  QueueSel             w                low and high half   w    not legacy
 *                                           0x0fc  ConfigGeneration         not legacy
 *     legacy only:                          0x100  the device's own configuration
 *     0x028  GuestPageSize        w
 *     0x03c  QueueAlign           w
 *     0x040  QueuePFN             rw   0 resets; else the page of the queue, all of which is one piece
 *
 * Registers take aligned words; the configuration also bytes and halfwords. Writes to it do nothing. What a driver may
 * not do (2.1.2) has it see DEVICE_NEEDS_RESET in Status, with a configuration interrupt if it had set DRIVER_OK; then
 * nothing more is done until it resets the device. The legacy layout does not know that bit, and shows it all the same.
 */
#include <string.h>

#include "device.h"
#include "virtio.h"

#define MAGIC 0x74726976u
#define VENDOR 0x554d4551u
#define VERSION_1 (1ull << 32)
#define CONFIG 0x100u
#define CONFIG_SIZE 64u
#define LEGACY_ALIGN 4096u

int virtio_queues(uint32_t kind)
{
    return kind == VIRTIO_CONSOLE ? 2 : kind ? 1 : 0;
}

static uint64_t features(const virtio_device *device)
{
    return (device->kind == VIRTIO_BLOCK ? blk_features() : 0) | (device->legacy ? 0 : VERSION_1);
}

void virtio_break(virtio_state *s)
{
    if (s->status & STATUS_DRIVER_OK)
        s->interrupt_status |= INTERRUPT_CONFIG;
    s->status |= STATUS_NEEDS_RESET;
}

/* A legacy driver sets its page size before it resets the device, and not again: QEMU keeps it, too. */
static void reset(virtio_state *s)
{
    uint32_t guest_page_size = s->guest_page_size;
    memset(s, 0, sizeof *s);
    s->guest_page_size = guest_page_size;
}

static uint64_t read_config(const virtio_device *device, uint64_t offset, uint32_t size)
{
    uint8_t config[CONFIG_SIZE] = {0};
    uint64_t value = 0;
    if (device->kind == VIRTIO_BLOCK)
        blk_config(device, config);
    if (offset + size <= CONFIG_SIZE)
        memcpy(&value, config + offset, size);
    return value;
}

static int refused(uint64_t offset, uint32_t size)
{
    if (size > 4 || (offset & (size - 1)))
        return 1;
    return offset < CONFIG && size != 4;
}

/* Is there a queue that QueueSel names? */
static int selected(const virtio_state *s, const virtio_device *device)
{
    return s->queue_sel < (uint32_t)virtio_queues(device->kind);
}

static uint64_t read_queue(const virtio_state *s, const virtio_device *device, uint64_t offset)
{
    uint32_t queue = s->queue_sel;
    if (!selected(s, device))
        return 0;
    switch (offset) {
    case 0x034: return QUEUE_MAX;
    case 0x040: return device->legacy && s->guest_page_size ? s->queue_desc[queue] / s->guest_page_size : 0;
    case 0x044: return device->legacy ? 0 : s->queue_ready[queue];
    default: return 0;
    }
}

int virtio_read(const virtio_state *s, const virtio_device *device, port_t *port, uint64_t offset, uint32_t size,
                uint64_t *value)
{
    (void)port;
    if (refused(offset, size))
        return -1;
    *value = 0;
    if (offset >= CONFIG) {
        *value = read_config(device, offset - CONFIG, size);
        return 0;
    }
    switch (offset) {
    case 0x000: *value = MAGIC; return 0;
    case 0x004: *value = device->legacy ? 1 : 2; return 0;
    case 0x008: *value = device->kind; return 0;
    case 0x00c: *value = VENDOR; return 0;
    default: break;
    }
    if (!device->kind)
        return 0;
    switch (offset) {
    case 0x010: *value = s->device_features_sel > 1 ? 0 : (uint32_t)(features(device) >> (32 * s->device_features_sel));
        break;
    case 0x034:
    case 0x040:
    case 0x044: *value = read_queue(s, device, offset); break;
    case 0x060: *value = s->interrupt_status; break;
    case 0x070: *value = s->status; break;
    case 0x0b0: /* no shared memory: its length reads as -1 (4.2.2.1) */
    case 0x0b4: *value = device->legacy ? 0 : ~0u; break;
    default: break;
    }
    return 0;
}

static void write_status(virtio_state *s, const virtio_device *device, uint32_t value)
{
    if (!value) {
        reset(s);
        return;
    }
    value = (value & 0xff) | (s->status & STATUS_NEEDS_RESET);
    if ((value & STATUS_FEATURES_OK) && (s->driver_features & ~features(device)))
        value &= ~STATUS_FEATURES_OK; /* the driver asks for what was not offered (2.2.2) */
    s->status = value;
}

static void write_features(virtio_state *s, uint32_t value)
{
    uint32_t shift = 32 * s->driver_features_sel;
    if (s->driver_features_sel > 1 || (s->status & STATUS_FEATURES_OK))
        return;
    s->driver_features = (s->driver_features & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

/* Legacy: the whole queue begins at a page, and where its parts are follows. */
static void write_frame(virtio_state *s, uint32_t frame)
{
    uint32_t queue = s->queue_sel, align = s->queue_align[queue] ? s->queue_align[queue] : LEGACY_ALIGN;
    if (!frame) {
        reset(s);
        return;
    }
    if (!s->guest_page_size || !s->queue_num[queue] || (align & (align - 1))) {
        virtio_break(s);
        return;
    }
    s->queue_desc[queue] = (uint64_t)frame * s->guest_page_size;
    s->queue_driver[queue] = s->queue_desc[queue] + 16ull * s->queue_num[queue];
    s->queue_device[queue] = queue_used_ring(s->queue_desc[queue], s->queue_num[queue], align);
}

static void set_half(uint64_t *address, uint64_t offset, uint32_t value)
{
    uint32_t shift = 8 * (offset & 4);
    *address = (*address & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void write_queue(virtio_state *s, const virtio_device *device, uint64_t offset, uint32_t value)
{
    uint32_t queue = s->queue_sel;
    if (!selected(s, device))
        return;
    if (offset == 0x038) {
        if (!value || value > QUEUE_MAX || (value & (value - 1)))
            virtio_break(s); /* 2.7: always a power of two */
        else
            s->queue_num[queue] = value;
    } else if (device->legacy) {
        if (offset == 0x03c)
            s->queue_align[queue] = value;
        else if (offset == 0x040)
            write_frame(s, value);
    } else {
        switch (offset & ~4ull) {
        case 0x040: s->queue_ready[queue] = offset == 0x044 ? value & 1 : s->queue_ready[queue]; break;
        case 0x080: set_half(&s->queue_desc[queue], offset, value); break;
        case 0x090: set_half(&s->queue_driver[queue], offset, value); break;
        case 0x0a0: set_half(&s->queue_device[queue], offset, value); break;
        default: break;
        }
    }
}

/* A legacy driver may use its queues before it sets DRIVER_OK (3.1.2). */
static int in_use(const virtio_state *s, const virtio_device *device, uint32_t queue)
{
    if (queue >= (uint32_t)virtio_queues(device->kind) || (s->status & STATUS_NEEDS_RESET))
        return 0;
    if (device->legacy)
        return s->queue_desc[queue] != 0;
    return (s->status & STATUS_DRIVER_OK) && s->queue_ready[queue];
}

enum look virtio_accept(const virtio_device *device, port_t *port, const virtio_work *work, virtio_chain *chain)
{
    if (device->kind == VIRTIO_BLOCK)
        return blk_accept(device, port, work, chain);
    return device->kind == VIRTIO_CONSOLE ? console_accept(work, chain) : LOOK_GOOD;
}

static void notify(virtio_state *s, const virtio_device *device, port_t *port, uint32_t queue)
{
    if (!in_use(s, device, queue))
        return;
    if (queue_look(s, device, port, queue, QUEUE_MAX, port->work) != LOOK_GOOD)
        return;
    if (device->kind == VIRTIO_CONSOLE && queue == RECEIVE_QUEUE) { /* buffers are taken when there is input for them */
        port->room_made = port->work->chain_count != 0;
        if (port->work->broken)
            virtio_break(s);
        return;
    }
    uint32_t wanted = device->kind == VIRTIO_RNG ? rng_wanted(port->work) : 0;
    if (wanted && !(port->has_pulled && port->pulled_length == wanted))
        port->pull = wanted;
    else
        port->work->pending = 1;
}

int virtio_write(virtio_state *s, const virtio_device *device, port_t *port, uint64_t offset, uint32_t size,
                 uint64_t value64)
{
    uint32_t value = (uint32_t)value64;
    if (refused(offset, size))
        return -1;
    if (!device->kind)
        return 0;
    switch (offset) {
    case 0x014: s->device_features_sel = value; break;
    case 0x020: write_features(s, value); break;
    case 0x024: s->driver_features_sel = value; break;
    case 0x028: s->guest_page_size = device->legacy ? value : 0; break;
    case 0x030: s->queue_sel = value; break;
    case 0x050: notify(s, device, port, value); break;
    case 0x064:
        s->interrupt_status &= ~value;
        port->line_driven = 1;
        break;
    case 0x070: write_status(s, device, value); break;
    default: write_queue(s, device, offset, value); break;
    }
    return 0;
}

void virtio_do(virtio_state *s, const virtio_device *device, port_t *port, virtio_work *work)
{
    uint32_t at = 0;
    for (size_t i = 0; i < work->chain_count; i++) {
        const virtio_chain *chain = &work->chains[i];
        uint32_t written = device->kind == VIRTIO_BLOCK ? blk_do(device, port, work, chain)
                           : device->kind == VIRTIO_RNG ? rng_do(port, work, chain, &at)
                                                        : console_do(port, work, chain);
        queue_done(s, port, work, i, written);
    }
    queue_end(s, work);
    work->pending = 0;
}
