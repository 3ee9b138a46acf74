/* SPDX-License-Identifier: GPL-2.0-or-later */
/* terminal: lines typed at a virtio console come back in capitals; `quit` ends it. The UART says when it is over. */
#include "runtime/plic.h"
#include "runtime/uart.h"
#include "runtime/virtio.h"

#define CONSOLE_DEVICE 3
#define RECEIVE 0
#define TRANSMIT 1
#define LINE 64
#define BUFFERS 4

static struct queue queues[2];
static struct device console = {.queue = queues};
static uint8_t buffers[BUFFERS][16]; /* what the device fills: it goes round */
static uint16_t received;            /* used entries seen */

__attribute__((interrupt("machine"), aligned(4))) static void on_interrupt(void)
{
    uint32_t source = plic_claim();
    virtio_acknowledge(&console);
    plic_complete(source);
}

static void offer(uint16_t buffer)
{
    virtio_describe(&queues[RECEIVE], buffer, buffers[buffer], sizeof buffers[buffer], DESC_WRITE);
    virtio_notify(&console, RECEIVE, buffer);
}

/* Out in two pieces; the device is done when the store that tells it is. */
static void say(const char *text, uint32_t length)
{
    uint32_t half = length / 2;
    virtio_describe(&queues[TRANSMIT], 0, text, half ? half : length, half ? DESC_NEXT : 0);
    virtio_describe(&queues[TRANSMIT], 1, text + half, length - half, 0);
    virtio_notify(&console, TRANSMIT, 0);
}

/* Sleeps until the device has filled a buffer; returns which, and how many bytes it has. */
static uint16_t next_buffer(uint32_t *length)
{
    interrupts_off();
    while (queues[RECEIVE].used_index == received) {
        wait_for_interrupt();
        interrupts_on();
        interrupts_off();
    }
    interrupts_on();
    uint32_t entry = received++ % ENTRIES;
    *length = queues[RECEIVE].used_ring[entry].written;
    return (uint16_t)queues[RECEIVE].used_ring[entry].head;
}

static char capital(uint8_t byte) { return (char)(byte >= 'a' && byte <= 'z' ? byte - 32 : byte); }

int main(void)
{
    static char line[LINE];
    uint32_t filled = 0;
    if (!virtio_start(&console, CONSOLE_DEVICE, 2)) {
        put_text("terminal: no virtio console\n");
        return 1;
    }
    csr_write(mtvec, on_interrupt);
    plic_enable(console.source);
    csr_write(mie, MIP_MEIP);
    interrupts_on();
    say("> ", 2);
    for (uint16_t buffer = 0; buffer < BUFFERS; buffer++)
        offer(buffer);
    for (;;) {
        uint32_t length;
        uint16_t buffer = next_buffer(&length);
        for (uint32_t i = 0; i < length; i++) {
            line[filled++] = capital(buffers[buffer][i]);
            if (line[filled - 1] != '\n' && filled < LINE)
                continue;
            if (filled == 5 && line[0] == 'Q' && line[1] == 'U' && line[2] == 'I' && line[3] == 'T') {
                put_text("terminal: bye\n");
                return 0;
            }
            say(line, filled);
            say("> ", 2);
            filled = 0;
        }
        offer(buffer);
    }
}
