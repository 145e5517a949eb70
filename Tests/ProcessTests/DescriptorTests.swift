import Foundation
import Testing
import Workbench

/// A gateway that may not open another file.
@Suite("Few descriptors", .serialized)
struct DescriptorTests {
    private static let messages = 400

    /// Leaves a backlog for `reader` that takes many segments.
    private static func fill(_ rig: Rig, _ gateway: Gateway) throws {
        let way = ["-h", "127.0.0.1", "-p", "\(gateway.port)", "-q", "1"]
        try rig.run("/usr/bin/mosquitto_sub", way + ["-c", "-i", "reader", "-t", "hall/#", "-E"])
        try rig.run(
            "/bin/sh",
            [
                "-c",
                "seq -f '%08000g' 1 \(messages) | mosquitto_pub \(way.joined(separator: " ")) -t hall/1 -l",
            ])
    }

    private static func read(_ rig: Rig, _ gateway: Gateway) throws -> Tool {
        try rig.tool(
            "/usr/bin/mosquitto_sub",
            [
                "-h", "127.0.0.1", "-p", "\(gateway.port)", "-q", "1", "-c", "-i", "reader", "-t", "hall/#",
                "-C", "\(messages)", "-W", "90",
            ])
    }

    private static func expectAll(_ reader: Tool, _ gateway: Gateway) {
        #expect(reader.process.ended(within: 100) == .exited(0))
        #expect(reader.output.split(separator: "\n").compactMap { Int($0) } == Array(1...messages))
        #expect(!gateway.log.contains("damaged"))
    }

    @Test("what cannot be read for want of a descriptor waits for one, and is not given up")
    func reads() throws {
        let rig = try Rig()
        let gateway = try rig.gateway(journal: ["segment-size: 256 KiB"])
        try gateway.start()
        defer { gateway.kill() }
        let pid = try #require(gateway.pid)
        try Self.fill(rig, gateway)
        // The log goes on in the segment that is open, everything else has to be opened; and who filled it is gone.
        var count = -1
        try waitUpTo(10) {
            let before = count
            usleep(300_000)
            count = try Self.descriptors(of: pid).count
            return count == before
        }
        let taken = Set(try Self.descriptors(of: pid))
        // One is left, for the client.
        let free = (0...1000).filter { !taken.contains($0) }
        try rig.run("/usr/bin/prlimit", ["--pid", "\(pid)", "--nofile=\(free[1]):"])
        let reader = try Self.read(rig, gateway)
        #expect(waitUpTo(20) { gateway.log.contains("its session goes on") })
        usleep(1_500_000)
        #expect(reader.output.split(separator: "\n").count < Self.messages / 2)
        #expect(gateway.log.contains("no connection can be accepted: Too many open files; trying again"))
        try rig.run("/usr/bin/prlimit", ["--pid", "\(pid)", "--nofile=1000:"])
        Self.expectAll(reader, gateway)
    }

    private static func descriptors(of pid: pid_t) throws -> [Int] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").compactMap { Int($0) }
    }

    @Test("clients are let in only as far as there are descriptors for everything else")
    func crowd() throws {
        let rig = try Rig()
        let gateway = try rig.gateway(journal: ["segment-size: 256 KiB"])
        gateway.descriptorsMax = 100
        try gateway.start()
        defer { gateway.kill() }
        #expect(gateway.log.contains("at most 51 clients are let in, not the 10000 of limits.connections"))
        try Self.fill(rig, gateway)
        var crowd: [Int32] = []
        defer { crowd.forEach { close($0) } }
        for _ in 0..<50 { crowd.append(try Self.connect(gateway)) }
        let reader = try Self.read(rig, gateway)
        Self.expectAll(reader, gateway)
        // One more is let in now, and the others are not: what they took would be missing elsewhere.
        for _ in 0..<150 { crowd.append(try Self.connect(gateway)) }
        #expect(waitUpTo(10) { gateway.log.contains("connections closed at once") })
        #expect(gateway.stop() == .exited(0))
        #expect(!gateway.log.contains("Too many open files"))
    }

    /// A client that does not go on to CONNECT, for as long as it is let.
    private static func connect(_ gateway: Gateway) throws -> Int32 {
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(Loopback.connect(client, port: gateway.port) == 0)
        return client
    }
}
