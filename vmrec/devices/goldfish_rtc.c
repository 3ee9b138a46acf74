/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goldfish real-time clock with alarm (Android goldfish virtual hardware: "Goldfish RTC").
 *
 *     0x00  TIME_LOW         ns since 1970; reading it latches TIME_HIGH; writing it sets the clock
 *     0x04  TIME_HIGH        to be written before TIME_LOW
 *     0x08  ALARM_LOW        writing it arms the alarm
 *     0x0c  ALARM_HIGH       to be written before ALARM_LOW
 *     0x10  IRQ_ENABLED
 *     0x14  CLEAR_ALARM
 *     0x18  ALARM_STATUS     1 while armed
 *     0x1c  CLEAR_INTERRUPT
 *
 * Its time is the recording's base plus guest time, so it needs no event of its own. Words only.
 */
#include "device.h"

#define NS_PER_TICK 100

uint64_t rtc_now(const rtc_state *s, const port_t *port)
{
    return port->base + port->mtime * NS_PER_TICK + s->time_offset;
}

/* To be called when time has moved, and after every access. */
void rtc_tick(rtc_state *s, const port_t *port)
{
    if (s->alarm_armed && rtc_now(s, port) >= s->alarm) {
        s->alarm_armed = 0;
        s->irq_pending = 1;
    }
}

int rtc_irq(const rtc_state *s)
{
    return s->irq_pending && s->irq_enabled;
}

int rtc_read(rtc_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    uint64_t now = rtc_now(s, port);
    if (size != 4 || (offset & 3))
        return -1;
    switch (offset) {
    case 0x00:
        s->time_high = (uint32_t)(now >> 32);
        *value = (uint32_t)now;
        break;
    case 0x04: *value = s->time_high; break;
    case 0x08: *value = (uint32_t)s->alarm; break;
    case 0x0c: *value = s->alarm >> 32; break;
    case 0x10: *value = s->irq_enabled; break;
    case 0x18: *value = s->alarm_armed; break;
    default: *value = 0; break;
    }
    return 0;
}

int rtc_write(rtc_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    uint64_t low = value & 0xffffffff, now = rtc_now(s, port);
    if (size != 4 || (offset & 3))
        return -1;
    switch (offset) {
    case 0x00: s->time_offset += ((now & 0xffffffff00000000ull) | low) - now; break;
    case 0x04: s->time_offset += (low << 32 | (now & 0xffffffff)) - now; break;
    case 0x08:
        s->alarm = (s->alarm & 0xffffffff00000000ull) | low;
        s->alarm_armed = 1;
        break;
    case 0x0c: s->alarm = low << 32 | (s->alarm & 0xffffffff); break;
    case 0x10: s->irq_enabled = low & 1; break;
    case 0x14: s->alarm_armed = 0; break;
    case 0x1c: s->irq_pending = 0; break;
    default: break;
    }
    port->deadline_moved = 1;
    port->line_driven = 1;
    rtc_tick(s, port);
    return 0;
}
