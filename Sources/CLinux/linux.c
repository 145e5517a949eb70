#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/timex.h>
#include <sys/vfs.h>

int tidegate_lock(int descriptor) {
    // Not F_SETLK: that lock is lost as soon as any descriptor of the file is closed in this process.
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(descriptor, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
}

int tidegate_lock_directory(int descriptor) {
    return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
}

int tidegate_file_system_kind(int descriptor, uint64_t *kind) {
    struct statfs facts;
    if (fstatfs(descriptor, &facts) != 0) return errno;
    // f_type is signed on some machines; the magic numbers have 32 bits.
    *kind = (uint32_t)facts.f_type;
    return 0;
}

int tidegate_clock_is_synchronised(void) {
    struct timex facts = {.modes = 0};
    int state = adjtimex(&facts);
    return state >= 0 && state != TIME_ERROR && (facts.status & STA_UNSYNC) == 0;
}
