import Glibc

/// The control socket of a gateway: a file in its state directory, for its owner only.
package struct ControlPath: Hashable, Sendable, CustomStringConvertible {
    private let path: String

    /// - Parameter state: the state directory.
    package init(state: String) { path = state + (state.hasSuffix("/") ? "" : "/") + "control.sock" }

    package var description: String { path }

    /// Makes the socket, with the permissions it is to have before anyone can connect.
    ///
    /// What an earlier process left is removed: the state directory is locked by this one.
    ///
    /// - Returns: a bound socket that does not listen yet; the caller closes it.
    func bind() throws(ControlFailure) -> CInt {
        guard var address = sockaddr_un(path: path) else { throw tooLong }
        var found = stat()
        if lstat(path, &found) == 0 {
            guard found.st_mode & S_IFMT == S_IFSOCK else {
                throw ControlFailure("\(path) exists and is not a socket")
            }
            guard unlink(path) == 0 else { throw ControlFailure("\(path): \(Self.lastError())") }
        }
        let descriptor = Self.socket(nonBlocking: true)
        guard descriptor >= 0 else { throw ControlFailure(Self.lastError()) }
        guard address.with({ Glibc.bind(descriptor, $0, $1) }) == 0, chmod(path, 0o600) == 0 else {
            let failure = ControlFailure("\(path): \(Self.lastError())")
            close(descriptor)
            throw failure
        }
        return descriptor
    }

    func remove() { unlink(path) }

    /// Asks a running gateway; blocks until it has answered.
    package func ask(_ command: AdminCommand) throws(ControlFailure) -> AdminAnswer {
        guard var address = sockaddr_un(path: path) else { throw tooLong }
        let descriptor = Self.socket(nonBlocking: false)
        guard descriptor >= 0 else { throw ControlFailure(Self.lastError()) }
        defer { close(descriptor) }
        var patience = timeval(tv_sec: AdminLimits.answerSeconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, size)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, size)
        guard address.with({ connect(descriptor, $0, $1) }) == 0 else {
            if errno == ENOENT || errno == ECONNREFUSED {
                throw ControlFailure("no gateway runs on this state directory (\(path) does not answer)")
            }
            throw ControlFailure("\(path): \(Self.lastError())")
        }
        let line = Array((command.line + "\n").utf8)
        guard line.count <= AdminLimits.lineBytesMax else {
            throw ControlFailure("so many numbers at once are not taken: ask for fewer, or for all")
        }
        var sent = 0
        while sent < line.count {
            let count = line.withUnsafeBytes {
                send(descriptor, $0.baseAddress?.advanced(by: sent), line.count - sent, CInt(MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            // Who refuses without listening has answered: what they say is read below.
            guard count > 0 else { break }
            sent += count
        }
        guard let answer = AdminAnswer(try Self.receive(descriptor)) else {
            throw ControlFailure("the gateway gave no answer that is understood; its log may say more")
        }
        return answer
    }

    private static func receive(_ descriptor: CInt) throws(ControlFailure) -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while bytes.count <= AdminLimits.answerBytesMax {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw ControlFailure(
                    errno == EAGAIN
                        ? "the gateway did not answer within \(AdminLimits.answerSeconds) seconds"
                        : lastError())
            }
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk[..<count])
        }
        return bytes
    }

    private var tooLong: ControlFailure {
        ControlFailure("\(path) is longer than the path of a socket can be: use a shorter state directory")
    }

    private static func socket(nonBlocking: Bool) -> CInt {
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        return Glibc.socket(AF_UNIX, nonBlocking ? kind | CInt(SOCK_NONBLOCK.rawValue) : kind, 0)
    }

    private static func lastError() -> String {
        let code = errno
        return String(cString: strerror(code))
    }
}

/// Why the control socket cannot be used.
package struct ControlFailure: Error, Hashable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

extension sockaddr_un {
    /// nil when the path is too long; the last byte stays the zero that ends it.
    fileprivate init?(path: String) {
        self.init()
        sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let fits = withUnsafeMutableBytes(of: &sun_path) { room in
            guard bytes.count < room.count else { return false }
            room.copyBytes(from: bytes)
            return true
        }
        guard fits else { return nil }
    }

    fileprivate mutating func with(_ call: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
        withUnsafePointer(to: &self) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
