/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sh.c: the shell: `name argument ... > file ; name ... &`; sh -c "commands" runs them and ends. */
#include "user.h"

#define LINE 256

static int status; /* of the last command */

/* Cuts the next word out of *line, which moves behind it; NULL at its end. ; & and > are words of their own. */
static char *next_word(char **line, char *cut)
{
    static char sign[2];
    char *at = *line;
    if (*cut) { /* the sign that ended the last word */
        sign[0] = *cut;
        *cut = 0;
        return sign;
    }
    while (*at == ' ')
        at++;
    if (!*at)
        return NULL;
    char *word = at;
    while (*at && *at != ' ' && *at != ';' && *at != '&' && *at != '>')
        at++;
    if (*at) {
        if (*at != ' ')
            *cut = *at;
        *at++ = 0;
    }
    *line = at;
    return *word ? word : next_word(line, cut);
}

/* Runs one command; `output`: of its standard output, NULL for the console. */
static void run(int argc, char **argv, const char *output, int background)
{
    if (!argc)
        return;
    argv[argc] = NULL;
    if (text_equal(argv[0], "exit"))
        exit(argc > 1 ? (int)number_of(argv[1], 1) : status);
    int child = fork();
    if (child < 0) {
        print("sh: no room for another process\n");
        return;
    }
    if (!child) {
        if (output) {
            close(1); /* open() takes the lowest that is free */
            if (open(output, O_WRITE | O_CREATE | O_TRUNCATE) != 1)
                exit(1);
        }
        exec(argv[0], argv);
        print("sh: %s: there is no such program\n", argv[0]);
        exit(127);
    }
    if (!background)
        while (wait(&status) != child)
            ;
}

static void run_line(char *line)
{
    char *argv[MAX_ARGS], *word, cut = 0;
    const char *output = NULL;
    int argc = 0;
    while ((word = next_word(&line, &cut))) {
        if (word[0] == '>') {
            output = next_word(&line, &cut);
        } else if (word[0] == ';' || word[0] == '&') {
            run(argc, argv, output, word[0] == '&');
            argc = 0;
            output = NULL;
        } else if (argc < MAX_ARGS - 1) {
            argv[argc++] = word;
        }
    }
    run(argc, argv, output, 0);
}

int main(int argc, char **argv)
{
    char line[LINE];
    if (argc > 2 && text_equal(argv[1], "-c")) {
        run_line(argv[2]);
        return status;
    }
    for (;;) {
        print("$ ");
        long size = read(0, line, LINE - 1);
        if (size <= 0) {
            print("\n");
            return status;
        }
        line[size] = 0;
        if (line[size - 1] == '\n')
            line[size - 1] = 0;
        run_line(line);
    }
}
