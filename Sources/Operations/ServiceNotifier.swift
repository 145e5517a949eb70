import Glibc

/// Tells systemd how the gateway is doing: sd_notify(3) in a few lines, without libsystemd.
///
/// Without NOTIFY_SOCKET in the environment everything here does nothing, so that the gateway runs the same
/// from a shell. A message that cannot be sent is dropped: the socket is systemd's, and if it does not listen,
/// its own watchdog draws the conclusion.
package struct ServiceNotifier: ~Copyable {
    private let descriptor: CInt
    /// The socket's address; nil when nobody wants to know.
    private let address: (sockaddr_un, length: socklen_t)?
    /// How often `watchdog` must be called, in milliseconds: half of what systemd allows, as sd_watchdog_enabled(3)
    /// advises. nil when systemd does not watch this process.
    package let watchdogIntervalMilliseconds: UInt64?

    /// - Parameter environment: looks up a variable; the process environment by default.
    package init(environment: (String) -> String? = ServiceNotifier.processEnvironment) {
        address = environment("NOTIFY_SOCKET").flatMap(Self.address)
        descriptor =
            address == nil ? -1 : socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        watchdogIntervalMilliseconds = Self.watchdogInterval(environment, process: getpid())
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// The journal is recovered and every listener is open.
    ///
    /// - Parameter status: one line for `systemctl status`.
    package func ready(status: String) { send("READY=1\nSTATUS=\(Self.oneLine(status))") }

    /// A new line for `systemctl status`.
    package func status(_ text: String) { send("STATUS=\(Self.oneLine(text))") }

    /// The gateway was asked to stop and is closing connections.
    package func stopping() { send("STOPPING=1\nSTATUS=stopping") }

    /// The gateway's loop turns and its disk answers.
    package func watchdog() { send("WATCHDOG=1") }

    package static func processEnvironment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }

    private func send(_ text: String) {
        guard descriptor >= 0, var address else { return }
        let bytes = Array(text.utf8)
        withUnsafePointer(to: &address.0) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                _ = sendto(
                    descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT),
                    generic,
                    address.length)
            }
        }
    }

    /// A line end would begin another variable.
    private static func oneLine(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }

    /// A path, or with a leading `@` a name in the abstract namespace; nil when it is neither or too long.
    private static func address(_ path: String) -> (sockaddr_un, length: socklen_t)? {
        var bytes = Array(path.utf8)
        let isAbstract = bytes.first == UInt8(ascii: "@")
        guard bytes.count > 1, isAbstract || bytes.first == UInt8(ascii: "/") else { return nil }
        if isAbstract { bytes[0] = 0 }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
            // A path keeps its NUL; an abstract name is exactly as long as the address says.
            guard bytes.count < room.count else { return false }
            room.copyBytes(from: bytes)
            return true
        }
        guard fits, let start = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) else { return nil }
        return (address, socklen_t(start + bytes.count + (isAbstract ? 0 : 1)))
    }

    private static func watchdogInterval(_ environment: (String) -> String?, process: pid_t) -> UInt64? {
        guard let microseconds = environment("WATCHDOG_USEC").flatMap(UInt64.init), microseconds > 0 else {
            return nil
        }
        // Inherited from a parent that is the one being watched.
        if let watched = environment("WATCHDOG_PID"), pid_t(watched) != process { return nil }
        return max(1, microseconds / 2000)
    }
}
