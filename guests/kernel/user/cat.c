/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cat.c: copies files, or standard input, to standard output. */
#include "user.h"

static void copy(int fd)
{
    static char buffer[512];
    for (long size; (size = read(fd, buffer, sizeof buffer)) > 0;)
        if (write(1, buffer, (size_t)size) != size)
            fail("cat: write");
}

int main(int argc, char **argv)
{
    if (argc == 1)
        copy(0);
    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_READ);
        if (fd < 0) {
            print("cat: %s: there is no such file\n", argv[i]);
            return 1;
        }
        copy(fd);
        close(fd);
    }
    return 0;
}
