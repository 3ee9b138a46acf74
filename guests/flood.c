/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flood: writes 2 MiB to the console as fast as it can. */
#include "runtime/uart.h"

#define LINES 32768u /* of 64 bytes */

int main(void)
{
    for (uint32_t line = 0; line < LINES; line++) {
        put_column(line, 8);
        put_text(" the quick brown fox jumps over the lazy dog, again..\n");
    }
    return 0;
}
