/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is: a register file, deterministic given its events.
 *
 * A device is two functions over its own state record (the records stand in native/vmrec.h, where Python finds them
 * to save, restore and digest). It knows no clock, file or thread, and not whether it is being recorded. All that it
 * needs from the machine comes in the port, all that it does to the outside goes out through the port:
 *
 *     guest load or store ──▶ read / write (state, port, offset, size) ──▶ port.output, port.stop, port.pull
 *                                                     │
 *                                  x_irq(state) ──▶ the level of its interrupt line, asked after every access
 *
 * Return value of read and write: 0 done, -1 the register does not take this size or offset (the guest gets an
 * access fault). An access that sets port.pull or port.missing returns 0 and is repeated once the machine has the bytes
 * or the page; it must not have changed its state by then.
 *
 * The virtio devices also work on RAM and drives, through the dma calls: native/dma.c, virtio.h.
 */
#ifndef VMREC_DEVICE_H
#define VMREC_DEVICE_H

#include "virtio.h"
#include "vmrec.h"

struct port {
    /* in */
    vm_t *machine;      /* for the dma and port calls alone */
    uint64_t mtime;     /* ticks of the timebase, 100 ns each */
    uint64_t base;      /* RTC: ns since 1970 at mtime 0 */
    int has_pulled;     /* the answer to an earlier pull is here */
    const uint8_t *pulled;
    uint32_t pulled_length;
    int latches;        /* machine revision 2: the PLIC's gateways do */
    /* out */
    int has_output;     /* a byte left for the console */
    uint8_t output;
    int stop;           /* enum vm_stop */
    uint64_t stop_code;
    uint32_t pull;      /* bytes wanted from outside before the access can be done */
    int missing;        /* a page is */
    uint64_t missing_page;
    int deadline_moved; /* a timer was programmed */
    int line_driven;    /* the device has set its interrupt line, whether or not to another level */
    int room_made;      /* the guest has made room for console input */
    virtio_work *work;  /* of virtio devices: what is to be done when the store has been */
};

enum dma { DMA_READY, DMA_OUTSIDE, DMA_MISSING };
enum dma dma_ready(port_t *port, uint64_t address, uint64_t length);
void dma_load(const port_t *port, uint64_t address, void *to, uint64_t length);
void dma_store(port_t *port, uint64_t address, const void *from, uint64_t length);
int dma_drive_ready(port_t *port, uint32_t drive, uint64_t at, uint64_t length, int write);
void dma_from_drive(port_t *port, uint32_t drive, uint64_t at, uint64_t address, uint64_t length);
void dma_to_drive(port_t *port, uint32_t drive, uint64_t at, uint64_t address, uint64_t length);
/* Outputs, at the position of the step. */
void port_console(port_t *port, const uint8_t *data, uint32_t length);
void port_written(port_t *port, uint32_t drive, uint64_t sector, uint64_t bytes);

int clint_read(clint_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int clint_write(clint_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value);
int plic_read(plic_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int plic_write(plic_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value);
void plic_line(plic_state *s, uint32_t source, int level);
void plic_drive(plic_state *s, uint32_t source, int level, int anew);
int plic_irq(const plic_state *s);
int plic_is_supervisor(uint64_t offset);
int plic_irq_supervisor(const plic_state *s, const supervisor_state *context);
int plic_read_supervisor(plic_state *s, const supervisor_state *context, uint64_t offset, uint32_t size,
                         uint64_t *value);
int plic_write_supervisor(plic_state *s, supervisor_state *context, uint64_t offset, uint32_t size, uint64_t value);
int uart_read(uart_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int uart_write(uart_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value);
int uart_irq(const uart_state *s);
uint32_t uart_room(const uart_state *s);
void uart_receive(uart_state *s, uint8_t byte);
int finisher_read(port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int finisher_write(port_t *port, uint64_t offset, uint32_t size, uint64_t value);
int rtc_read(rtc_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int rtc_write(rtc_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value);
void rtc_tick(rtc_state *s, const port_t *port);
int rtc_irq(const rtc_state *s);
uint64_t rtc_now(const rtc_state *s, const port_t *port);
int entropy_read(entropy_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value);
int entropy_write(entropy_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value);
int virtio_read(const virtio_state *s, const virtio_device *device, port_t *port, uint64_t offset, uint32_t size,
                uint64_t *value);
int virtio_write(virtio_state *s, const virtio_device *device, port_t *port, uint64_t offset, uint32_t size,
                 uint64_t value);

#endif
