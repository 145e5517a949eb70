import Glibc
import NIOCore

/// The file of a Unix-domain listener, from its making to its removal. The only place of this module that
/// calls the system itself: NIO can neither tell a stale file from one in use nor set its permissions before
/// clients can connect.
struct UnixSocketFile {
    private let path: String
    /// Which file it is: what is found under the path later may be somebody else's.
    private let device: dev_t
    private let inode: ino_t

    /// Makes the file, with the permissions asked for before anyone can connect.
    ///
    /// What a process that ended without cleaning up left behind is removed; a file that is not a socket, or
    /// that somebody listens on, is not.
    ///
    /// - Returns: the file, and its bound socket that does not listen yet; the caller closes it.
    static func bind(path: String, mode: UInt32) throws(ListenFailure) -> (Self, NIOBSDSocket.Handle) {
        let place = ListenAddress.unix(path: path, mode: mode)
        guard var address = sockaddr_un(path: path) else {
            throw ListenFailure(
                address: place, reason: "the path has more than \(ListenAddress.pathBytesMax) bytes")
        }
        let descriptor = unixSocket()
        guard descriptor >= 0 else { throw ListenFailure(address: place, reason: lastError()) }
        do throws(ListenFailure) {
            try removeStale(path, &address, place)
            var found = stat()
            guard address.with({ Glibc.bind(descriptor, $0, $1) }) == 0, chmod(path, mode_t(mode)) == 0,
                lstat(path, &found) == 0
            else { throw ListenFailure(address: place, reason: lastError()) }
            return (Self(path: path, device: found.st_dev, inode: found.st_ino), descriptor)
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// Removes the file, if it is still the one that was made.
    func remove() {
        var found = stat()
        guard lstat(path, &found) == 0, found.st_dev == device, found.st_ino == inode else { return }
        // It fails only where the directory was taken away meanwhile; the next start removes what stays.
        unlink(path)
    }

    private static func removeStale(
        _ path: String, _ address: inout sockaddr_un, _ place: ListenAddress
    ) throws(ListenFailure) {
        var found = stat()
        guard lstat(path, &found) == 0 else { return }
        guard found.st_mode & S_IFMT == S_IFSOCK else {
            throw ListenFailure(address: place, reason: "the file exists and is not a socket")
        }
        let probe = unixSocket()
        guard probe >= 0 else { throw ListenFailure(address: place, reason: lastError()) }
        defer { close(probe) }
        // Only a refusal proves that nobody listens: a full backlog (EAGAIN) is a listener too.
        guard address.with({ connect(probe, $0, $1) }) != 0, errno == ECONNREFUSED else {
            throw ListenFailure(address: place, reason: "another process listens there")
        }
        guard unlink(path) == 0 || errno == ENOENT else {
            throw ListenFailure(address: place, reason: "the stale socket there stays: \(lastError())")
        }
    }
}

private func unixSocket() -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    return socket(AF_UNIX, kind, 0)
}

private func lastError() -> String {
    let code = errno
    return String(cString: strerror(code))
}

extension sockaddr_un {
    /// nil when the path is too long.
    fileprivate init?(path: String) {
        self.init()
        sun_family = sa_family_t(AF_UNIX)
        let bytes = path.utf8
        guard bytes.count <= ListenAddress.pathBytesMax else { return nil }
        withUnsafeMutableBytes(of: &sun_path) { $0.copyBytes(from: bytes) }
    }

    fileprivate mutating func with(_ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        withUnsafePointer(to: &self) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
