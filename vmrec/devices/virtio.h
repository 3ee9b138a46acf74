/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the virtio devices tell each other: virtio_mmio.c (registers), virtqueue.c (rings), virtio_blk.c,
 * virtio_rng.c, virtio_console.c. Section numbers are those of "Virtual I/O Device (VIRTIO) Version 1.2", OASIS 2022.
 *
 * A device does its work within the guest's store to QueueNotify, in two halves:
 *
 *     look   all chains that the driver has made available are read into a virtio_work, and every page that they lead
 *            to is asked for. Nothing is changed. A page that is missing, or entropy that is wanted, makes the machine
 *            return, and the store is tried again from the beginning
 *     do     the work is done from that list. Descriptors are not read again, and nothing can fail
 *
 * So a step does all of it or nothing, wherever pages were missing. What a driver may ask for at once is bounded.
 */
#ifndef VMREC_VIRTIO_H
#define VMREC_VIRTIO_H

#include <stddef.h>
#include <stdint.h>

#include "vmrec.h"

typedef struct port port_t; /* device.h */

#define QUEUE_MAX 256u             /* entries of a queue, and so descriptors of a chain */
#define WORK_MAX (512ull << 20)    /* bytes that one notification may move */
#define SUPPLY_MAX 65536u          /* bytes that can be pulled at once: QUEUE_MAX * RNG_MAX of virtio_rng.c */

#define STATUS_DRIVER_OK 0x04u
#define STATUS_FEATURES_OK 0x08u
#define STATUS_NEEDS_RESET 0x40u
#define INTERRUPT_USED 1u
#define INTERRUPT_CONFIG 2u

#define RECEIVE_QUEUE 0u /* of the console */
#define TRANSMIT_QUEUE 1u

/* One buffer of a chain: guest memory that is there. */
typedef struct {
    uint64_t address;
    uint32_t length;
} virtio_buffer;

/* One chain. The buffers that the device reads come first, then those that it writes. */
typedef struct {
    size_t first;
    uint32_t readable, writable; /* buffers */
    uint64_t readable_bytes, writable_bytes;
    uint16_t head;
    uint8_t result;  /* of a block request: what goes to the status byte */
    uint32_t type;   /* and what it is to do */
    uint64_t sector;
} virtio_chain;

typedef struct {
    virtio_chain *chains;
    virtio_buffer *buffers;
    size_t chain_count, chain_room, buffer_count, buffer_room;
    uint64_t bytes;
    uint32_t slot, queue;
    int silent;  /* the driver wants no interrupt */
    int broken;  /* what comes behind these chains makes no sense */
    int pending; /* looked at, and to be done */
} virtio_work;

/* What is fixed of a device. */
typedef struct {
    uint32_t slot, kind; /* enum virtio_kind */
    int legacy;
    uint64_t size; /* of a drive, bytes */
} virtio_device;

enum look { LOOK_GOOD, LOOK_BROKEN, LOOK_LATER }; /* LATER: the port says what is needed first */

/* virtqueue.c */
uint64_t queue_used_ring(uint64_t desc, uint32_t num, uint32_t align); /* legacy layout: where it is */
/* The chains of one queue, at most `most`, into `work`. LOOK_GOOD also if the ring is broken: the work says so. */
enum look queue_look(const virtio_state *s, const virtio_device *device, port_t *port, uint32_t queue, uint32_t most,
                     virtio_work *work);
void queue_done(virtio_state *s, port_t *port, virtio_work *work, size_t chain, uint32_t written);
void queue_end(virtio_state *s, const virtio_work *work); /* all chains are done */
void work_free(virtio_work *work);
/* Copies out of the buffers that a device reads, from byte `from` of them on; `length` bytes that are there. */
void chain_load(const port_t *port, const virtio_work *work, const virtio_chain *chain, uint64_t from, void *to,
                uint64_t length);
void chain_store(port_t *port, const virtio_work *work, const virtio_chain *chain, uint64_t from, const void *bytes,
                 uint64_t length);

/* virtio_mmio.c */
int virtio_queues(uint32_t kind);
void virtio_break(virtio_state *s); /* the driver has done what makes no sense: nothing more until it resets */
enum look virtio_accept(const virtio_device *device, port_t *port, const virtio_work *work, virtio_chain *chain);
void virtio_do(virtio_state *s, const virtio_device *device, port_t *port, virtio_work *work);

/* virtio_blk.c */
uint64_t blk_features(void);
void blk_config(const virtio_device *device, uint8_t config[64]);
enum look blk_accept(const virtio_device *device, port_t *port, const virtio_work *work, virtio_chain *chain);
uint32_t blk_do(const virtio_device *device, port_t *port, const virtio_work *work, const virtio_chain *chain);

/* virtio_rng.c */
uint32_t rng_wanted(const virtio_work *work);
uint32_t rng_do(port_t *port, const virtio_work *work, const virtio_chain *chain, uint32_t *at);

/* virtio_console.c */
uint32_t console_do(port_t *port, const virtio_work *work, const virtio_chain *chain);
enum look console_accept(const virtio_work *work, const virtio_chain *chain);
int console_receives(const virtio_state *s, int legacy); /* has it a driver that takes input? */
void console_input(virtio_state *s, port_t *port, virtio_work *work, const uint8_t *data, uint32_t length);

#endif
