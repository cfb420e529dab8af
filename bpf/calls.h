/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* Functions of the kernel that it need not have. Declared as libbpf wants it (__ksym __weak), one that is missing would be
 * looked for in all modules, which needs CAP_SYS_ADMIN, and without that the probe would not load. So programs call a helper
 * that nobody has, behind `if (has_…)`, and user space puts the function in its place before it loads them. */
#ifndef BOXO_BPF_CALLS_H
#define BOXO_BPF_CALLS_H

#define CALL_RDONLY_CAST 0x7ffe0001

#endif
