import Foundation
import Workbench

/// A TCP connection to 127.0.0.1 that speaks MQTT 3.1.1 as cheaply as can be: what is measured is the other
/// side. One thread uses it.
final class Wire {
    let descriptor: Int32
    /// Bytes that came and were not looked at, from `consumed` on.
    private(set) var received: [UInt8] = []
    private var consumed = 0
    /// Bytes that the socket did not take yet.
    private var unsent: [UInt8] = []
    private var buffer = [UInt8](repeating: 0, count: 256 << 10)
    /// From the first byte of CONNECT to CONNACK.
    private(set) var greetingSeconds = 0.0

    /// Connects and waits for the CONNACK.
    ///
    /// - Throws: `WorkbenchError` when the server refuses or does not answer within 10 seconds.
    init(port: UInt16, clientIdentifier: String, cleanSession: Bool) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard Loopback.connect(descriptor, port: port) == 0 else {
            close(descriptor)
            throw WorkbenchError("nobody accepts on port \(port)")
        }
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        var connect: [UInt8] = [0, 4] + Array("MQTT".utf8) + [4, cleanSession ? 2 : 0, 0, 0]
        connect += Self.string(clientIdentifier)
        let began = monotonicSeconds()
        send([0x10] + Self.length(connect.count) + connect)
        let answer = try response(bytes: 4, within: 10)
        greetingSeconds = monotonicSeconds() - began
        guard answer[0] == 0x20, answer[3] == 0 else {
            throw WorkbenchError("CONNACK says \(answer[3])")
        }
    }

    deinit { close(descriptor) }

    static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        return [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes
    }

    /// A Remaining Length.
    static func length(_ value: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = value
        repeat {
            let low = UInt8(rest & 127)
            rest >>= 7
            bytes.append(rest > 0 ? low | 128 : low)
        } while rest > 0
        return bytes
    }

    func subscribe(_ filter: String, qos: UInt8) throws {
        let body = [0, 1] + Self.string(filter) + [qos]
        send([0x82] + Self.length(body.count) + body)
        let answer = try response(bytes: 5, within: 10)
        guard answer[0] == 0x90, answer[4] == qos else { throw WorkbenchError("SUBACK says \(answer[4])") }
    }

    func disconnect() {
        send([0xE0, 0])
        shutdown(descriptor, Int32(SHUT_WR))
    }

    /// Sends as much as the socket takes and keeps the rest for `flush`.
    func send(_ bytes: some Collection<UInt8>) {
        unsent.append(contentsOf: bytes)
        flush()
    }

    var hasUnsent: Bool { !unsent.isEmpty }

    func flush() {
        guard !unsent.isEmpty else { return }
        let count = unsent.withUnsafeBytes {
            Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        if count > 0 { unsent.removeFirst(count) }
    }

    /// Reads what is there.
    ///
    /// - Returns: false when the connection has ended.
    func read() -> Bool {
        if consumed > 0 {
            received.removeFirst(consumed)
            consumed = 0
        }
        let count = buffer.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
        if count > 0 {
            received.append(contentsOf: buffer[..<count])
            return true
        }
        return count < 0 && (errno == EAGAIN || errno == EINTR)
    }

    /// What came and was not consumed.
    var pending: ArraySlice<UInt8> { received[consumed...] }

    func consume(_ count: Int) { consumed += count }

    private func response(bytes: Int, within seconds: Double) throws -> [UInt8] {
        let end = monotonicSeconds() + seconds
        while pending.count < bytes {
            flush()
            var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            _ = Glibc.poll(&poll, 1, 50)
            guard read() else { throw WorkbenchError("the server closed the connection") }
            guard monotonicSeconds() < end else { throw WorkbenchError("no answer within \(seconds) s") }
        }
        let answer = Array(pending.prefix(bytes))
        consume(bytes)
        return answer
    }
}
