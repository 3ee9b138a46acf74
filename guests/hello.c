/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hello: prints one line and powers off. */
#include "runtime/uart.h"

int main(void)
{
    put_text("hello from the guest\n");
    return 0;
}
