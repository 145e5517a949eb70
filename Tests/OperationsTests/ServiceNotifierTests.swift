import Foundation
import Testing

@testable import Operations

/// A datagram socket that plays systemd.
private final class Listener {
    let descriptor: CInt
    let path: String
    private let file: String?

    init(isAbstract: Bool) throws {
        let name = "tidegate-notify-\(UUID().uuidString.prefix(8))"
        path = isAbstract ? "@\(name)" : "/tmp/\(name)"
        file = isAbstract ? nil : path
        descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array((isAbstract ? "\u{0}\(name)" : path).utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(2 + bytes.count + (isAbstract ? 0 : 1))
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) }
        }
        try #require(bound == 0)
    }

    /// The next datagram; nil when none waits.
    func next() -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &buffer, buffer.count, CInt(MSG_DONTWAIT))
        return count < 0 ? nil : String(decoding: buffer.prefix(count), as: UTF8.self)
    }

    deinit {
        close(descriptor)
        if let file { unlink(file) }
    }
}

@Suite("Telling systemd")
struct ServiceNotifierTests {
    @Test("Each message arrives as sd_notify(3) writes it", arguments: [false, true])
    func messages(isAbstract: Bool) throws {
        let listener = try Listener(isAbstract: isAbstract)
        let notifier = ServiceNotifier(environment: ["NOTIFY_SOCKET": listener.path].lookUp)
        notifier.ready(status: "2 listeners\nWATCHDOG=trigger")
        notifier.status("draining")
        notifier.watchdog()
        notifier.stopping()
        #expect(listener.next() == "READY=1\nSTATUS=2 listeners WATCHDOG=trigger")
        #expect(listener.next() == "STATUS=draining")
        #expect(listener.next() == "WATCHDOG=1")
        #expect(listener.next() == "STOPPING=1\nSTATUS=stopping")
        #expect(listener.next() == nil)
    }

    @Test(
        "Without a usable NOTIFY_SOCKET nothing happens",
        arguments: [nil, "", "@", "relative", "/nowhere/notify", "/" + String(repeating: "x", count: 200)])
    func unset(path: String?) {
        let notifier = ServiceNotifier(environment: { $0 == "NOTIFY_SOCKET" ? path : nil })
        notifier.ready(status: "x")
        notifier.watchdog()
        #expect(notifier.watchdogIntervalMilliseconds == nil)
    }

    @Test("The watchdog is fed twice as often as it bites, and only by the process it watches")
    func watchdog() {
        func interval(_ environment: [String: String]) -> UInt64? {
            ServiceNotifier(environment: environment.lookUp).watchdogIntervalMilliseconds
        }
        #expect(interval(["WATCHDOG_USEC": "30000000"]) == 15_000)
        #expect(interval(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "\(getpid())"]) == 15_000)
        #expect(interval(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"]) == nil)
        #expect(interval(["WATCHDOG_USEC": "x"]) == nil)
        #expect(interval(["WATCHDOG_USEC": "0"]) == nil)
    }
}

extension [String: String] {
    fileprivate var lookUp: (String) -> String? { { self[$0] } }
}
