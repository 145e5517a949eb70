#ifndef TIDEGATE_CCHECKSUM_H
#define TIDEGATE_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli) of `count` bytes, going on from `crc`, the checksum of what came before (0 for nothing).
/// Uses the processor's instructions where it has them.
uint32_t tidegate_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The same by tables only: for processors without the instructions, and to test one against the other.
uint32_t tidegate_crc32c_tables(uint32_t crc, const void *bytes, size_t count);

#endif
