/* SPDX-License-Identifier: GPL-2.0-or-later */
/* init.c: the first process: runs what the boot arguments say ("run=work 10"), or the shell; its end is the machine's. */
#include "user.h"

#define RUN "run="

/* What stands behind "run=", NULL if nothing does. */
static char *command_of(char *arguments)
{
    for (char *at = arguments; *at; at++) {
        size_t i = 0;
        while (RUN[i] && at[i] == RUN[i])
            i++;
        if (!RUN[i] && (at == arguments || at[-1] == ' '))
            return at + i;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char *command = command_of(argc > 1 ? argv[1] : "");
    char *shell[] = {"sh", command ? "-c" : NULL, command, NULL};
    int status = -1;
    int child = fork();
    if (child < 0)
        fail("fork");
    if (!child) {
        exec("sh", shell);
        fail("exec sh");
    }
    for (int pid; (pid = wait(&status)) != child;) /* also those whose parents have gone */
        if (pid < 0)
            fail("wait");
    return status;
}
