/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ls.c: names and sizes of all files. */
#include "user.h"

int main(void)
{
    struct listed file;
    int found;
    for (unsigned i = 0; (found = list(i, &file)) >= 0; i++)
        if (found)
            print("%s %u\n", file.name, file.size);
    return 0;
}
