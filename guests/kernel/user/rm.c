/* SPDX-License-Identifier: GPL-2.0-or-later */
/* rm.c: removes files. */
#include "user.h"

int main(int argc, char **argv)
{
    int status = 0;
    for (int i = 1; i < argc; i++)
        if (unlink(argv[i])) {
            print("rm: %s: not there, or in use\n", argv[i]);
            status = 1;
        }
    return status;
}
