// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Page cache misses: what the target's reads and writes newly brought into the page cache, readahead included. Pages are
 * added where the kernel may sleep, so the current task is the one that needs them. */
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

COUNTERS(filled, 1);

PROBE = {.help = "what the target newly brings into the page cache (misses and readahead)"};

METRICS = {
	{
		.map = "filled",
		.name = "boxo_resource_page_cache_filled_bytes_total",
		.help = "Bytes that threads of the target newly brought into the page cache by reading, writing or mapping files.",
		.unit = UNIT_BYTES,
	},
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Before 5.16 the argument is a page, then a folio that begins like one and says in its second page how large it is. */
struct folio {
	unsigned long _flags_1;
	unsigned char _folio_order; /* of 6.1 to 6.5; since then in the lowest byte of these flags */
};

#pragma clang attribute pop

enum pageflags { PG_head = 6 };

const volatile u32 page_size = 4096;

SEC("tp_btf/mm_filemap_add_to_page_cache")
int TIMED_PROG(on_add)
{
	u32 order = 0;

	if (!current_is_member())
		return 0;
	struct folio *folio = (struct folio *)ctx[0];

	if (bpf_core_field_exists(folio->_flags_1)) {
		unsigned long flags = 0;

		bpf_probe_read_kernel(&flags, sizeof(flags), folio); /* its first field on every kernel */
		bool large = flags >> bpf_core_enum_value(enum pageflags, PG_head) & 1;

		if (large && bpf_core_field_exists(folio->_folio_order))
			order = BPF_CORE_READ(folio, _folio_order);
		else if (large)
			order = BPF_CORE_READ(folio, _flags_1) & 0xff;
	}
	count(&filled, 0, (u64)page_size << (order & 31));
	return 0;
}
