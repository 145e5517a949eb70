import CLinux
import Glibc
import Journal

/// The files of a store, by system calls: one open directory, and names within it. Closed with its last use.
final class Directory: Sendable {
    private let descriptor: Int32
    let path: String
    /// Whose the files are that root makes here; nil where nothing is to be changed.
    private let owner: (user: uid_t, group: gid_t)?

    /// Opens `path`, and creates it with mode 0700 where it is missing. A new directory is as durable as what
    /// is put into it: its parent is synced.
    init(path: String) throws(SystemError) {
        self.path = path
        if mkdir(path, 0o700) == 0 {
            try Self.syncParent(of: path)
        } else if errno != EEXIST {
            throw SystemError(number: errno)
        }
        descriptor = try call { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        owner = Self.ownerBesideRoot(descriptor)
    }

    /// Opens `path`, which must be there.
    init(existing path: String) throws(SystemError) {
        self.path = path
        descriptor = try call { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        owner = Self.ownerBesideRoot(descriptor)
    }

    /// What root leaves in the gateway's directory the gateway must be able to open when it is nobody special again.
    private static func ownerBesideRoot(_ descriptor: Int32) -> (user: uid_t, group: gid_t)? {
        var facts = stat()
        guard geteuid() == 0, fstat(descriptor, &facts) == 0, facts.st_uid != 0 else { return nil }
        return (facts.st_uid, facts.st_gid)
    }

    deinit { close(descriptor) }

    private static func syncParent(of path: String) throws(SystemError) {
        var trimmed = path[...]
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        var parent = "."
        if let slash = trimmed.lastIndex(of: "/") {
            parent = slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
        }
        let descriptor = try call { open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        defer { close(descriptor) }
        try call { fsync(descriptor) }
    }

    /// All of a file that says it has no size, as those of /proc do.
    static func readAll(_ path: String) throws(SystemError) -> [UInt8] {
        let descriptor = try call { open(path, O_RDONLY | O_CLOEXEC) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = try call {
                part.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            }
            guard count > 0 else { return bytes }
            bytes += part.prefix(count)
        }
    }

    func fileSystemKind() throws(SystemError) -> UInt64 {
        var kind: UInt64 = 0
        let error = tidegate_file_system_kind(descriptor, &kind)
        guard error == 0 else { throw SystemError(number: error) }
        return kind
    }

    func space() -> FileSystemSpace? {
        var facts = statvfs()
        guard fstatvfs(descriptor, &facts) == 0 else { return nil }
        let block = UInt64(facts.f_frsize)
        return FileSystemSpace(free: UInt64(facts.f_bavail) * block, total: UInt64(facts.f_blocks) * block)
    }

    /// The numbers of the device that it is on, as `/proc/self/mountinfo` has them.
    func device() throws(SystemError) -> (major: UInt32, minor: UInt32) {
        var facts = stat()
        try call { fstat(descriptor, &facts) }
        let device = UInt64(facts.st_dev)
        // As the C library's macros take it apart.
        let major = (device >> 8) & 0xFFF | (device >> 32) & 0xFFFF_F000
        let minor = device & 0xFF | (device >> 12) & 0xFFFF_FF00
        return (UInt32(truncatingIfNeeded: major), UInt32(truncatingIfNeeded: minor))
    }

    func facts(of name: String) throws(SystemError) -> (bytes: Int, modifiedSeconds: Int) {
        var facts = stat()
        try call { fstatat(descriptor, name, &facts, AT_SYMLINK_NOFOLLOW) }
        return (Int(facts.st_size), Int(facts.st_mtim.tv_sec))
    }

    /// Of the regular files and directories in it, without the two dots.
    func names() throws(SystemError) -> [String] {
        // A description of its own, because reading moves its place.
        let own = try call { openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard let stream = fdopendir(own) else {
            let error = SystemError(number: errno)
            close(own)
            throw error
        }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw SystemError(number: errno) }
                return names
            }
            let offset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 0
            let name = String(
                cString: UnsafeRawPointer(entry).advanced(by: offset).assumingMemoryBound(to: CChar.self))
            if name != ".", name != ".." { names.append(name) }
        }
    }

    /// Whether something in it says that a store is here, or was.
    func holdsStore() throws(SystemError) -> Bool {
        try names().contains {
            switch StoreFile(name: $0) {
            case .format: true
            case let file?: file.isOfLog
            case nil: false
            }
        }
    }

    func sync() throws(SystemError) { try call { fsync(descriptor) } }

    /// Takes the exclusive lock of this open directory, which asks nothing of the disk.
    func lock() -> LockOutcome { LockOutcome(errorNumber: tidegate_lock_directory(descriptor)) }

    func openFile(_ name: String, _ flags: Int32) throws(SystemError) -> File {
        let creates = flags & O_CREAT != 0
        // What is written is here, and not where a link leads.
        let all = flags | O_CLOEXEC | (flags & (O_WRONLY | O_RDWR) != 0 ? O_NOFOLLOW : 0)
        let file = File(descriptor: try call { openat(descriptor, name, all, 0o600) })
        if creates, let owner { try file.give(to: owner) }
        return file
    }

    /// What is not there is removed already.
    func remove(_ name: String) throws(SystemError) {
        do { try call { unlinkat(descriptor, name, 0) } } catch {
            guard error.number == ENOENT else { throw error }
        }
    }

    func rename(_ old: String, to new: String) throws(SystemError) {
        try call { renameat(descriptor, old, descriptor, new) }
    }

    func makeSubdirectory(_ name: String) throws(SystemError) {
        do { try call { mkdirat(descriptor, name, 0o700) } } catch {
            guard error.number == EEXIST else { throw error }
            var facts = stat()
            try call { fstatat(descriptor, name, &facts, AT_SYMLINK_NOFOLLOW) }
            guard facts.st_mode & S_IFMT == S_IFDIR else { throw SystemError(number: ENOTDIR) }
            return
        }
        if let owner {
            try call { fchownat(descriptor, name, owner.user, owner.group, AT_SYMLINK_NOFOLLOW) }
        }
    }

    func syncSubdirectory(_ name: String) throws(SystemError) {
        let own = try call { openat(descriptor, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        defer { close(own) }
        try call { fsync(own) }
    }

    /// Write under another name, sync, rename, sync: at every moment the old content or the new is there.
    func replace(_ name: String, with bytes: [UInt8]) throws(SystemError) {
        try replace(name) { file throws(SystemError) in try file.write(bytes, at: 0) }
    }

    /// A file of that many bytes, which no file system can store in fewer; there as a whole or not at all.
    func fill(_ name: String, bytes: Int) throws(SystemError) {
        try replace(name) { file throws(SystemError) in
            // The system's own costs a call for each word: a second of a small board's time. xorshift64 is no secret, and
            // cannot be compressed either.
            var word = UInt64.random(in: 1 ... .max)
            var offset = 0
            while offset < bytes {
                let count = min(bytes - offset, 64 << 10)
                let words = (0..<(count + 7) / 8).map { _ in
                    word ^= word << 13
                    word ^= word >> 7
                    word ^= word << 17
                    return word
                }
                try file.write(Array(words.withUnsafeBytes { $0.prefix(count) }), at: offset)
                offset += count
            }
        }
    }

    private func replace(
        _ name: String, writing write: (File) throws(SystemError) -> Void
    ) throws(SystemError) {
        let temporary = name + StoreFile.temporarySuffix
        do {
            let file = try openFile(temporary, O_WRONLY | O_CREAT | O_TRUNC)
            try write(file)
            try file.sync()
        } catch {
            // It would only take room; the error is what counts.
            unlinkat(descriptor, temporary, 0)
            throw error
        }
        try rename(temporary, to: name)
        try sync()
    }
}

/// An open file; closed with its last use.
final class File: Sendable {
    let descriptor: Int32

    fileprivate init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// What root has made here becomes another's; what anybody else owns, or is elsewhere too, stays whose it is.
    fileprivate func give(to owner: (user: uid_t, group: gid_t)) throws(SystemError) {
        var facts = stat()
        try call { fstat(descriptor, &facts) }
        guard facts.st_mode & S_IFMT == S_IFREG, facts.st_nlink == 1, facts.st_uid == 0 else { return }
        try call { fchown(descriptor, owner.user, owner.group) }
    }

    /// - Throws: EISDIR also for whatever else is no regular file.
    func size() throws(SystemError) -> Int {
        var facts = stat()
        try call { fstat(descriptor, &facts) }
        guard facts.st_mode & S_IFMT == S_IFREG else { throw SystemError(number: EISDIR) }
        return Int(facts.st_size)
    }

    /// Writes all of `bytes`, however many calls it takes.
    func write(_ bytes: [UInt8], at offset: Int) throws(SystemError) {
        var written = 0
        while written < bytes.count {
            let count = try call {
                bytes.withUnsafeBytes { buffer in
                    pwrite(
                        descriptor, UnsafeRawBufferPointer(rebasing: buffer[written...]).baseAddress,
                        buffer.count - written, off_t(offset + written))
                }
            }
            // POSIX allows no progress without an error; going round for ever would be worse.
            guard count > 0 else { throw SystemError(number: EIO) }
            written += count
        }
    }

    /// Fewer bytes only at the end of the file.
    func read(at offset: Int, count: Int) throws(SystemError) -> [UInt8] {
        let available = min(count, max(try size() - offset, 0))
        var bytes = [UInt8](repeating: 0, count: available)
        var filled = 0
        while filled < available {
            let count = try call {
                bytes.withUnsafeMutableBytes { buffer in
                    pread(
                        descriptor, UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).baseAddress,
                        buffer.count - filled, off_t(offset + filled))
                }
            }
            guard count > 0 else { break }
            filled += count
        }
        bytes.removeLast(available - filled)
        return bytes
    }

    /// Takes the exclusive lock of this open file.
    func lock() -> LockOutcome { LockOutcome(errorNumber: tidegate_lock(descriptor)) }

    func sync() throws(SystemError) { try call { fsync(descriptor) } }
    func syncData() throws(SystemError) { try call { fdatasync(descriptor) } }

    /// Makes the next read come from the disk: after a failed sync the cache may show what is not there.
    func forgetCache() { posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }
}

/// What came of asking for a lock; it lasts as long as what was asked for it is open.
enum LockOutcome: Equatable {
    case taken
    /// Another open file or directory has it.
    case takenByAnother
    /// The file system has no such locks.
    case impossible(SystemError)

    fileprivate init(errorNumber: Int32) {
        switch errorNumber {
        case 0: self = .taken
        case EAGAIN, EACCES: self = .takenByAnother
        default: self = .impossible(SystemError(number: errorNumber))
        }
    }
}
