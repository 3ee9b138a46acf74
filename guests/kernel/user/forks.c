/* SPDX-License-Identifier: GPL-2.0-or-later */
/* forks.c: as many processes as fit, one variable at one address in each, and every page given back. */
#include "user.h"

static volatile int mine = 1;

/* Forks until there is no room; every child changes its `mine` and checks that nobody else did. */
static unsigned fill_up(void)
{
    unsigned children = 0;
    for (;;) {
        int pid = fork();
        if (pid < 0)
            return children;
        if (!pid) {
            mine = getpid();
            for (int i = 0; i < 5; i++) {
                yield();
                if (mine != getpid())
                    exit(1);
            }
            exit(0);
        }
        children++;
    }
}

int main(void)
{
    unsigned before = 0;
    for (int round = 0; round < 3; round++) {
        unsigned children = fill_up();
        for (unsigned i = 0; i < children; i++) {
            int status;
            if (wait(&status) < 0 || status)
                fail("forks: a child saw another one's variable");
        }
        if (wait(NULL) != -1)
            fail("forks: there was a child more");
        if (round && children != before)
            fail("forks: processes get lost");
        before = children;
    }
    print("forks: 3 times %u processes, mine is %d: ok\n", before, mine);
    return mine != 1;
}
