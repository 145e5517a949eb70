import Foundation
import Testing
import Workbench

/// The script in the README that says at the cloud what is missing.
@Suite("the gap checker of the README", .serialized)
struct GapCheckerTests {
    @Test("It names what is missing and what came later, for each queue of each gateway, and nothing else")
    func names() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        let checker = try start(rig, cloud)
        // Sent by a gateway's hand: seq 3 late, 5 never, another queue with a gap of two, one message twice.
        for (queue, number) in [
            ("plant", 1), ("plant", 2), ("plant", 4), ("plant", 3), ("plant", 4), ("plant", 6), ("other", 9),
            ("plant high", 1), ("plant high", 4), ("other", 10),
        ] {
            try publish(rig, cloud, queue, number)
        }
        try rig.run("/usr/bin/mosquitto_pub", ["-p", "\(cloud.port)", "-t", "site/other", "-m", "without"])
        #expect(checker.process.ended(within: 40) == .exited(0))
        #expect(
            checker.output == """
                missing so far: plant seq 3
                came later: plant seq 3
                missing so far: plant seq 5
                missing so far: plant lane:high seq 2
                missing so far: plant lane:high seq 3

                """)
    }

    @Test("It finds nothing missing in what a gateway sends, whichever queues it comes by")
    func finds() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        var uplink = Gateway.Uplink(
            port: link.port,
            routes: [
                "{ out: \"a/#\", to: \"site/a/#\" }", "{ out: \"b/#\", to: \"site/b/#\", priority: high }",
                "{ out: \"c/#\", to: \"site/c/#\", order: live-first }",
            ])
        uplink.extra = ["provenance: true"]
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        try #require(waitUpTo(15) { gateway.log.contains("uplink \"cloud\" connected") })
        let seen = try rig.tool(
            "/usr/bin/mosquitto_sub",
            [
                "-V", "5", "-p", "\(cloud.port)", "-t", "site/#", "-q", "1", "-W", "20", "-F", "%P", "-C",
                "300",
            ])
        let checker = try start(rig, cloud)
        for round in 1...5 {
            if round % 2 == 0 { link.cut() }
            for topic in ["a", "b", "c"] {
                let lines = String(repeating: "\(round)\n", count: 20)
                let file = try rig.place.write(lines, to: "lines")
                try rig.run(
                    "/bin/sh", ["-c", "mosquitto_pub -p \(gateway.port) -q 1 -t \(topic)/x -l < \(file)"])
            }
            link.restore()
        }
        #expect(seen.process.ended(within: 30) == .exited(0), "\(gateway.log.suffix(2000))")
        #expect(checker.process.ended(within: 40) == .exited(0))
        let lines = seen.output.split(separator: "\n")
        #expect(lines.allSatisfy { $0.contains("gateway:plant") && $0.contains("seq:") })
        #expect(lines.contains { $0.contains("lane:high") })
        let missing = checker.output.split(separator: "\n").filter { $0.hasPrefix("missing") }.count
        let came = checker.output.split(separator: "\n").filter { $0.hasPrefix("came later") }.count
        #expect(missing == came, "\(checker.output)")
    }

    /// Starts the README's script with this cloud instead of its example; it ends by itself, 25 seconds later.
    private func start(_ rig: Rig, _ cloud: CloudBroker) throws -> Tool {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let readme = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
        let block = try #require(
            readme.components(separatedBy: "```").first { $0.hasPrefix("sh\nmosquitto_sub -V 5") })
        let script = block.dropFirst(3).replacing(
            "-h broker.example.com -p 1883 -i gaps", with: "-h 127.0.0.1 -p \(cloud.port) -i gaps -W 25")
        try #require(script.contains("-W 25"))
        let tool = try rig.tool("/bin/sh", [try rig.place.write(String(script), to: "gaps.sh")])
        usleep(700_000)
        return tool
    }

    private func publish(_ rig: Rig, _ cloud: CloudBroker, _ queue: String, _ number: Int) throws {
        let words = queue.split(separator: " ").map(String.init)
        var properties = [("gateway", words[0]), ("seq", "\(number)")]
        if words.count > 1 { properties.append(("lane", words[1])) }
        properties.append(("received-at", "2026-01-01T00:00:00.000Z"))
        try rig.run(
            "/usr/bin/mosquitto_pub",
            ["-V", "5", "-p", "\(cloud.port)", "-t", "site/a", "-q", "1", "-m", "m"]
                + properties.flatMap { ["-D", "publish", "user-property", $0.0, $0.1] })
    }
}
