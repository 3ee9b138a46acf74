/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dice: throws dice with numbers from the entropy device; prints the throws and how often each face came. */
#include "runtime/uart.h"

#define ENTROPY_DATA 0 /* read: four fresh random bytes */
#define ENTROPY_ID 4   /* read: the value below */
#define ENTROPY_ID_VALUE 0x656e7431u
#define THROWS 120

/* 1 to 6, each equally likely: the top few values would favour the low faces and are thrown again. */
static uint32_t throw(void)
{
    uint32_t random;
    do
        random = read32(ENTROPY_BASE + ENTROPY_DATA);
    while (random >= UINT32_MAX / 6 * 6);
    return random % 6 + 1;
}

int main(void)
{
    uint32_t times[7] = {0};
    if (read32(ENTROPY_BASE + ENTROPY_ID) != ENTROPY_ID_VALUE) {
        put_text("dice: no entropy device\n");
        return 1;
    }
    for (int i = 1; i <= THROWS; i++) {
        uint32_t face = throw();
        times[face]++;
        put_unsigned(face);
        put_char(i % 40 ? ' ' : '\n');
    }
    for (uint32_t face = 1; face <= 6; face++) {
        put_unsigned(face);
        put_column(times[face], 4);
        put_char(' ');
        for (uint32_t i = 0; i < times[face]; i++)
            put_char('#');
        put_char('\n');
    }
    return 0;
}
