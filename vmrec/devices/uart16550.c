/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 16550A UART (National Semiconductor PC16550D data sheet, section 8).
 *
 *     offset   read            write           with LCR.DLAB
 *     0        RBR             THR             DLL
 *     1        IER             IER             DLM
 *     2        IIR             FCR
 *     3        LCR             LCR
 *     4        MCR             MCR
 *     5        LSR             -
 *     6        MSR             -
 *     7        SCR             SCR
 *
 * Which accesses drive the interrupt line anew is as in QEMU 7.2: RBR, an IIR that says "transmitter empty", a LSR that
 * says "overrun"; THR, a change of IER, FCR.
 *
 * Transmission takes no time: THR is empty again at once. The receiver is a FIFO of 16 bytes, of which one is used
 * while FCR.enable is off. There is no line noise and no baud rate; the receive time-out comes at once when fewer
 * bytes than the trigger level wait. An access of more than a byte sees the one register at its address.
 */
#include "device.h"

#define IER_RECEIVE 0x01
#define IER_TRANSMIT 0x02
#define IER_LINE 0x04
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVE 0x02
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_DATA_READY 0x01
#define LSR_OVERRUN 0x02
#define LSR_THR_EMPTY 0x20
#define LSR_IDLE 0x40
#define IIR_NONE 0x01
#define IIR_TRANSMIT 0x02
#define IIR_RECEIVE 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
#define MSR_CONNECTED 0xb0 /* carrier, data set ready, clear to send */

static uint32_t capacity(const uart_state *s)
{
    return (s->fcr & FCR_ENABLE) ? sizeof s->fifo : 1;
}

uint32_t uart_room(const uart_state *s)
{
    return s->fifo_length < capacity(s) ? capacity(s) - s->fifo_length : 0;
}

void uart_receive(uart_state *s, uint8_t byte)
{
    if (uart_room(s))
        s->fifo[s->fifo_length++] = byte;
    else
        s->overrun = 1;
}

static uint8_t take(uart_state *s)
{
    uint8_t byte = s->fifo[0];
    if (!s->fifo_length)
        return 0;
    s->fifo_length--;
    for (uint32_t i = 0; i < s->fifo_length; i++)
        s->fifo[i] = s->fifo[i + 1];
    s->fifo[s->fifo_length] = 0; /* what has been read is no longer state */
    return byte;
}

static uint8_t interrupt_id(const uart_state *s)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};
    if ((s->ier & IER_LINE) && s->overrun)
        return IIR_LINE;
    if ((s->ier & IER_RECEIVE) && s->fifo_length) {
        if (!(s->fcr & FCR_ENABLE) || s->fifo_length >= triggers[s->fcr >> 6])
            return IIR_RECEIVE;
        return IIR_TIMEOUT;
    }
    if ((s->ier & IER_TRANSMIT) && s->thre_pending)
        return IIR_TRANSMIT;
    return IIR_NONE;
}

int uart_irq(const uart_state *s)
{
    return interrupt_id(s) != IIR_NONE;
}

int uart_read(uart_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    uint8_t id;
    (void)size;
    switch (offset) {
    case 0:
        *value = (s->lcr & LCR_DLAB) ? s->dll : take(s);
        port->line_driven = !(s->lcr & LCR_DLAB);
        break;
    case 1: *value = (s->lcr & LCR_DLAB) ? s->dlm : s->ier; break;
    case 2:
        id = interrupt_id(s);
        if (id == IIR_TRANSMIT)
            s->thre_pending = 0;
        port->line_driven = id == IIR_TRANSMIT;
        *value = id | ((s->fcr & FCR_ENABLE) ? IIR_FIFO : 0);
        break;
    case 3: *value = s->lcr; break;
    case 4: *value = s->mcr; break;
    case 5:
        *value = LSR_THR_EMPTY | LSR_IDLE | (s->fifo_length ? LSR_DATA_READY : 0) | (s->overrun ? LSR_OVERRUN : 0);
        port->line_driven = s->overrun;
        s->overrun = 0;
        break;
    case 6: *value = (s->mcr & MCR_LOOP) ? (uint64_t)(s->mcr & 0x0f) << 4 : MSR_CONNECTED; break;
    case 7: *value = s->scr; break;
    default: *value = 0; break;
    }
    return 0;
}

static void clear_receiver(uart_state *s)
{
    for (uint32_t i = 0; i < sizeof s->fifo; i++)
        s->fifo[i] = 0;
    s->fifo_length = 0;
}

int uart_write(uart_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    uint8_t byte = (uint8_t)value;
    (void)size;
    switch (offset) {
    case 0:
        if (s->lcr & LCR_DLAB) {
            s->dll = byte;
        } else {
            if (s->mcr & MCR_LOOP) {
                uart_receive(s, byte);
            } else {
                port->has_output = 1;
                port->output = byte;
            }
            s->thre_pending = 1;
            port->line_driven = 1;
        }
        break;
    case 1:
        if (s->lcr & LCR_DLAB) {
            s->dlm = byte;
        } else {
            if ((byte & IER_TRANSMIT) && !(s->ier & IER_TRANSMIT))
                s->thre_pending = 1; /* THR is empty, and now somebody wants to know */
            port->line_driven = s->ier != (byte & 0x0f);
            s->ier = byte & 0x0f;
        }
        break;
    case 2:
        if (((byte ^ s->fcr) & FCR_ENABLE) || (byte & FCR_CLEAR_RECEIVE))
            clear_receiver(s);
        s->fcr = byte & 0xc9;
        port->line_driven = 1;
        break;
    case 3: s->lcr = byte; break;
    case 4: s->mcr = byte & 0x1f; break;
    case 7: s->scr = byte; break;
    default: break;
    }
    return 0;
}
