#pragma once
#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

// A function of libfuse 3.14 that is a macro in later ones, which Swift does not see.
static inline struct fuse_session *session_of_file_system(
    struct fuse_args *arguments, const struct fuse_lowlevel_ops *operations, void *server) {
    return fuse_session_new(arguments, operations, sizeof *operations, server);
}
