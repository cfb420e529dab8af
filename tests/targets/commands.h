// SPDX-License-Identifier: MIT OR Apache-2.0
// What the target programs share: a line on standard input is a command (a verb and up to two numbers), a
// line on standard output its answer.
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command {
  char verb[32];
  long a;
  long b;
};

static inline void die(const char* what) {
  perror(what);
  exit(1);
}

static inline void answer(const char* format, ...) {
  va_list values;
  va_start(values, format);
  vprintf(format, values);
  va_end(values);
  putchar('\n');
  fflush(stdout);
}

/// Waits for the next command; the program ends with its standard input.
static inline struct command next_command(void) {
  struct command next = {.verb = ""};
  char line[128];
  if (!fgets(line, sizeof line, stdin)) exit(0);
  if (sscanf(line, "%31s %ld %ld", next.verb, &next.a, &next.b) < 1) next.verb[0] = '\0';
  return next;
}

static inline int is(const struct command* command, const char* verb) {
  return strcmp(command->verb, verb) == 0;
}

static inline long number(int argc, char** argv, int at, long otherwise) {
  return argc > at ? atol(argv[at]) : otherwise;
}
