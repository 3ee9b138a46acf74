/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: a drive (virtio 1.2, 5.2). One queue.
 *
 *     request    readable: u32 type │ u32 reserved │ u64 sector, then for a write the data
 *                writable: for a read the data, then u8 status (0 done, 1 I/O error, 2 not supported)
 *     type       0 read, 1 write, 4 flush, 8 get id (20 bytes)
 *
 *     config     0x00 u64 capacity in sectors of 512 bytes    0x0c u32 seg_max    0x14 u32 blk_size
 *     features   2 SEG_MAX, 6 BLK_SIZE, 9 FLUSH
 *
 * How a driver cuts a request into buffers is its own business (2.7.4). Blocks of the drive are pages of the machine:
 * see native/dma.c. A flush has nothing to do, since nothing is kept back. Data that is no whole number of sectors or
 * lies outside the drive is an I/O error; a request without room for header or status breaks the queue.
 */
#include <string.h>

#include "device.h"
#include "virtio.h"

#define SECTOR 512u
#define HEADER 16u
#define READ 0u
#define WRITE 1u
#define FLUSH 4u
#define GET_ID 8u
#define ID_LENGTH 20u
#define RESULT_OK 0
#define RESULT_ERROR 1
#define RESULT_UNSUPPORTED 2

uint64_t blk_features(void)
{
    return 1u << 2 | 1u << 6 | 1u << 9;
}

void blk_config(const virtio_device *device, uint8_t config[64])
{
    uint64_t capacity = device->size / SECTOR;
    uint32_t segments = QUEUE_MAX - 2, block = SECTOR;
    memcpy(config, &capacity, sizeof capacity);
    memcpy(config + 0x0c, &segments, sizeof segments);
    memcpy(config + 0x14, &block, sizeof block);
}

static uint64_t data_bytes(const virtio_chain *chain)
{
    return chain->type == WRITE ? chain->readable_bytes - HEADER : chain->writable_bytes - 1;
}

static int on_drive(const virtio_device *device, const virtio_chain *chain)
{
    uint64_t bytes = data_bytes(chain), sectors = device->size / SECTOR;
    return bytes % SECTOR == 0 && chain->sector <= sectors && bytes / SECTOR <= sectors - chain->sector;
}

enum look blk_accept(const virtio_device *device, port_t *port, const virtio_work *work, virtio_chain *chain)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    if (chain->readable_bytes < HEADER || !chain->writable_bytes)
        return LOOK_BROKEN;
    chain_load(port, work, chain, 0, &header, HEADER);
    chain->type = header.type;
    chain->sector = header.sector;
    chain->result = RESULT_OK;
    if (chain->type == READ || chain->type == WRITE) {
        if (!on_drive(device, chain))
            chain->result = RESULT_ERROR;
        else if (dma_drive_ready(port, device->slot, chain->sector * SECTOR, data_bytes(chain), chain->type == WRITE))
            return LOOK_LATER;
    } else if (chain->type != FLUSH && chain->type != GET_ID) {
        chain->result = RESULT_UNSUPPORTED;
    }
    return LOOK_GOOD;
}

/* Between the drive and `bytes` of the buffers from `buffer` on, of which the first `skip` bytes are something else. */
static void move(const virtio_device *device, port_t *port, const virtio_buffer *buffer, uint64_t skip, uint64_t at,
                 uint64_t bytes, int write)
{
    for (; bytes; buffer++) {
        if (skip >= buffer->length) {
            skip -= buffer->length;
            continue;
        }
        uint64_t piece = buffer->length - skip < bytes ? buffer->length - skip : bytes;
        if (write)
            dma_to_drive(port, device->slot, at, buffer->address + skip, piece);
        else
            dma_from_drive(port, device->slot, at, buffer->address + skip, piece);
        at += piece;
        bytes -= piece;
        skip = 0;
    }
}

/* Returns the number of bytes written into the chain. */
uint32_t blk_do(const virtio_device *device, port_t *port, const virtio_work *work, const virtio_chain *chain)
{
    const virtio_buffer *buffers = work->buffers + chain->first;
    uint64_t bytes = data_bytes(chain), written = 0;
    uint8_t id[ID_LENGTH] = "vmrec-drive-0";
    if (chain->result == RESULT_OK && chain->type == READ) {
        move(device, port, buffers + chain->readable, 0, chain->sector * SECTOR, bytes, 0);
        written = bytes;
    } else if (chain->result == RESULT_OK && chain->type == WRITE) {
        move(device, port, buffers, HEADER, chain->sector * SECTOR, bytes, 1);
        port_written(port, device->slot, chain->sector, bytes);
    } else if (chain->type == GET_ID) {
        id[12] = (uint8_t)(id[12] + device->slot);
        written = bytes < ID_LENGTH ? bytes : ID_LENGTH;
        chain_store(port, work, chain, 0, id, written);
    }
    chain_store(port, work, chain, chain->writable_bytes - 1, &chain->result, 1);
    return (uint32_t)(written + 1);
}
