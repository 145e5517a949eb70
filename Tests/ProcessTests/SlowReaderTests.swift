import Foundation
import Testing
import Workbench

/// A client whose link is slower than its messages are large.
@Suite("Slow readers", .serialized)
struct SlowReaderTests {
    @Test("who is still reading a large message is answered behind it, and not cut")
    func largeMessage() throws {
        let rig = try Rig()
        let gateway = try rig.gateway(settings: ["limits: { packet-size: 32 MiB }"])
        try gateway.start()
        defer { gateway.kill() }
        let reader = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(reader) }
        var few: Int32 = 4096
        setsockopt(reader, SOL_SOCKET, SO_RCVBUF, &few, socklen_t(MemoryLayout<Int32>.size))
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(reader, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        try #require(Loopback.connect(reader, port: gateway.port) == 0)
        // CONNECT and SUBSCRIBE, as MQTT 3.1.1 writes them.
        try Self.send([0x10, 13, 0, 4] + Array("MQTT".utf8) + [4, 2, 0, 0, 0, 1, 0x72], on: reader)
        try Self.send([0x82, 6, 0, 1, 0, 1, 0x62, 1], on: reader)
        try #require(Self.receive(9, from: reader)?.suffix(5) == [0x90, 3, 0, 1, 1])

        let size = 16 << 20
        let large = try rig.place.write(String(repeating: "x", count: size), to: "large")
        try rig.run(
            "/usr/bin/mosquitto_pub",
            ["-h", "127.0.0.1", "-p", "\(gateway.port)", "-q", "1", "-t", "b", "-f", large])
        usleep(300_000)
        // PINGREQ, while most of it waits in the gateway.
        try Self.send([0xC0, 0], on: reader)
        usleep(300_000)
        // Header, Topic Name, Packet Identifier, payload; then PINGRESP.
        let all = try #require(Self.receive(5 + 3 + 2 + size + 2, from: reader), "it was cut")
        #expect(all.first == 0x32 && all.suffix(3) == [0x78, 0xD0, 0])
    }

    private static func send(_ bytes: [UInt8], on descriptor: Int32) throws {
        try #require(Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    }

    /// nil when the connection ends before, or nothing comes for long.
    private static func receive(_ count: Int, from descriptor: Int32) -> [UInt8]? {
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 16)
        while all.count < count {
            let received = recv(descriptor, &part, min(part.count, count - all.count), 0)
            guard received > 0 else { return nil }
            all += part[..<received]
        }
        return all
    }
}
