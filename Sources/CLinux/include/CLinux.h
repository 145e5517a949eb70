#ifndef TIDEGATE_CLINUX_H
#define TIDEGATE_CLINUX_H

#include <stdint.h>

// What Linux offers and Swift's Glibc module does not.

/// Takes the write lock of an open file description on the whole file, without waiting: 0, or an errno.
int tidegate_lock(int descriptor);

/// Takes the exclusive lock of an open file description, which may be a directory's, without waiting (flock(2)): 0, or
/// an errno.
int tidegate_lock_directory(int descriptor);

/// The kind of file system a descriptor is on (statfs f_type): 0, or an errno.
int tidegate_file_system_kind(int descriptor, uint64_t *kind);

/// 1 when the kernel says that the wall clock is synchronised, 0 when it does not or does not say.
int tidegate_clock_is_synchronised(void);

#endif
