import Foundation
import Synchronization

/// TCP ports on 127.0.0.1 nobody listens on.
///
/// They are taken below the kernel's ephemeral range, so that no outgoing connection can occupy one between
/// here and the moment its server starts, or while its server is being restarted.
package enum FreePort {
    private static let given = Mutex<Set<UInt16>>([])

    /// A port that could be bound just now and was never returned before by this process.
    package static func next() -> UInt16 {
        while true {
            let port = UInt16.random(in: 15_000..<32_000)
            guard given.withLock({ $0.insert(port).inserted }) else { continue }
            if canBind(port) { return port }
        }
    }

    private static func canBind(_ port: UInt16) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        return Loopback.bind(descriptor, port: port) == 0
    }
}

/// The few socket calls the harness makes by itself, all on 127.0.0.1.
package enum Loopback {
    package static func bind(_ descriptor: Int32, port: UInt16) -> Int32 {
        withAddress(port) { Glibc.bind(descriptor, $0, $1) }
    }

    package static func connect(_ descriptor: Int32, port: UInt16) -> Int32 {
        withAddress(port) { Glibc.connect(descriptor, $0, $1) }
    }

    /// Whether somebody accepts connections on `port`.
    package static func accepts(_ port: UInt16) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        return connect(descriptor, port: port) == 0
    }

    private static func withAddress(
        _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
