// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build withcgo

package main

/*
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

// A copy of this process with one thread, which does nothing.
static void copy(void) {
  if (fork() != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) pause();
}
*/
import "C"
import "runtime"

func init() {
	copyProcess = func() {
		runtime.LockOSThread() // the copy ends with the thread that has made it
		C.copy()
	}
}
