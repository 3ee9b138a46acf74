/* SPDX-License-Identifier: GPL-2.0-or-later */
/* echo: an interrupt-driven console: prints a prompt, says each line again, sleeps between bytes; `quit` ends it. */
#include "runtime/plic.h"
#include "runtime/uart.h"

#define RING 256 /* a power of two */
#define LINE 128

static volatile uint8_t ring[RING];
static volatile uint32_t ring_in;  /* bytes put in, ever: written by the interrupt handler only */
static volatile uint32_t ring_out; /* bytes taken out, ever: written by read_byte only */

/* From the UART into the ring; with the ring full, the rest waits in the UART. */
static void receive(void)
{
    while (uart_read(UART_LSR) & UART_LSR_DR) {
        if (ring_in - ring_out == RING) {
            uart_write(UART_IER, 0);
            return;
        }
        ring[ring_in % RING] = uart_read(UART_RBR);
        ring_in++;
    }
}

__attribute__((interrupt("machine"), aligned(4))) static void on_interrupt(void)
{
    uint32_t source = plic_claim();
    if (source == UART_IRQ)
        receive();
    plic_complete(source);
}

/* wfi wakes up with interrupts off, too: so no byte slips in between the look and the sleep. */
static uint8_t read_byte(void)
{
    interrupts_off();
    while (ring_in == ring_out) {
        wait_for_interrupt();
        interrupts_on();
        interrupts_off();
    }
    uint8_t byte = ring[ring_out % RING];
    ring_out++;
    uart_write(UART_IER, UART_IER_ERBFI);
    interrupts_on();
    return byte;
}

/* One line, echoed as it is typed, without its end; bytes beyond LINE - 1 are dropped. */
static void read_line(char *line)
{
    uint32_t length = 0;
    for (;;) {
        uint8_t byte = read_byte();
        if (byte == '\r' || byte == '\n')
            break;
        if (byte == 0x7f || byte == '\b') {
            if (length) {
                length--;
                put_text("\b \b");
            }
        } else if (length < LINE - 1) {
            line[length++] = (char)byte;
            put_char((char)byte);
        }
    }
    line[length] = 0;
    put_char('\n');
}

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

int main(void)
{
    char line[LINE];
    receive(); /* what came before: enabling the FIFO clears it */
    uart_write(UART_FCR, UART_FCR_ENABLE);
    uart_write(UART_IER, UART_IER_ERBFI);
    plic_enable(UART_IRQ);
    csr_write(mtvec, on_interrupt);
    csr_write(mie, MIP_MEIP);
    interrupts_on();
    for (;;) {
        put_text("> ");
        read_line(line);
        if (equal(line, "quit"))
            break;
        put_text("you said: ");
        put_text(line);
        put_char('\n');
    }
    put_text("bye\n");
    return 0;
}
