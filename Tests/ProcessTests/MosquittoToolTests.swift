import Foundation
import Testing
import Workbench

/// mosquitto_pub and mosquitto_sub as people use them, without special settings.
@Suite("mosquitto_pub and mosquitto_sub", .serialized)
struct MosquittoToolTests {
    static let versions = ["mqttv31", "mqttv311", "mqttv5"]

    @Test("a message arrives at its QoS", arguments: versions, [0, 1, 2])
    func publishes(version: String, qos: Int) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let subscriber = try subscribe(
            rig, gateway, version, ["-t", "hall/+/light", "-q", "2", "-C", "1", "-F", "got %t %q %r %p"])
        try publish(rig, gateway, version, ["-t", "hall/3/light", "-q", "\(qos)", "-m", "on"])
        #expect(subscriber.process.ended(within: 10) == .exited(0))
        #expect(lines(subscriber) == ["got hall/3/light \(qos) 0 on"])
        #expect(gateway.stop() == .exited(0))
    }

    @Test("a retained message reaches a later subscriber, until an empty one clears it", arguments: versions)
    func retains(version: String) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        try publish(rig, gateway, version, ["-t", "meter/7", "-q", "1", "-r", "-m", "kept"])
        let first = try subscribe(
            rig, gateway, version, ["-t", "meter/#", "-q", "1", "-C", "1", "-F", "got %t %q %r %p"])
        #expect(first.process.ended(within: 10) == .exited(0))
        #expect(lines(first) == ["got meter/7 1 1 kept"])
        gateway.kill()
        try gateway.start()
        let afterwards = try subscribe(
            rig, gateway, version, ["-t", "meter/#", "-q", "1", "-C", "1", "-F", "got %t %q %r %p"])
        #expect(afterwards.process.ended(within: 10) == .exited(0))
        #expect(lines(afterwards) == ["got meter/7 1 1 kept"], "the retained message did not survive SIGKILL")
        try publish(rig, gateway, version, ["-t", "meter/7", "-q", "1", "-r", "-n"])
        let second = try subscribe(
            rig, gateway, version,
            ["-t", "meter/#", "-q", "1", "-C", "1", "-W", "1", "-F", "got %t %q %r %p"])
        #expect(second.process.ended(within: 10) == .exited(27), "mosquitto_sub says 27 when nothing came")
        #expect(lines(second) == [])
    }

    @Test("a will is published when its client is gone without DISCONNECT", arguments: versions)
    func publishesWill(version: String) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let witness = try subscribe(
            rig, gateway, version, ["-t", "obituary/#", "-q", "2", "-C", "1", "-F", "got %t %q %r %p"])
        let mortal = try subscribe(
            rig, gateway, version,
            ["-t", "nothing", "--will-topic", "obituary/pump", "--will-qos", "1", "--will-payload", "gone"])
        mortal.process.kill()
        #expect(witness.process.ended(within: 10) == .exited(0))
        #expect(lines(witness) == ["got obituary/pump 1 0 gone"])
    }

    @Test("four hundred lines at once arrive all, in order", arguments: versions, [1, 2])
    func carriesMany(version: String, qos: Int) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let subscriber = try subscribe(
            rig, gateway, version, ["-t", "many", "-q", "\(qos)", "-C", "400", "-F", "got %p"])
        let numbers = try rig.place.write((1...400).map { "\($0)\n" }.joined(), to: "numbers")
        try rig.run(
            "/bin/sh",
            ["-c", "exec mosquitto_pub -p \(gateway.port) -V \(version) -t many -q \(qos) -l < \(numbers)"])
        #expect(subscriber.process.ended(within: 20) == .exited(0))
        #expect(lines(subscriber) == (1...400).map { "got \($0)" })
    }

    @Test("two who share a subscription get each message once between them", arguments: versions, [1, 2])
    func shares(version: String, qos: Int) throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let members = try (0..<2).map { _ in
            try subscribe(
                rig, gateway, version, ["-t", "$share/workers/many/+", "-q", "\(qos)", "-F", "got %p"])
        }
        let numbers = try rig.place.write((1...400).map { "\($0)\n" }.joined(), to: "numbers")
        try rig.run(
            "/bin/sh",
            ["-c", "exec mosquitto_pub -p \(gateway.port) -V \(version) -t many/1 -q \(qos) -l < \(numbers)"])
        let sawAll = waitUpTo(20) { members.reduce(0) { $0 + lines($1).count } >= 400 }
        #expect(sawAll)
        let got = members.map { lines($0).compactMap { Int($0.dropFirst(4)) } }
        #expect(got.flatMap { $0 }.sorted() == Array(1...400))
        #expect(got.allSatisfy { $0 == $0.sorted() && $0.count >= 100 })
        #expect(gateway.stop() == .exited(0))
    }

    /// Starts mosquitto_sub and returns once its subscription is acknowledged.
    private func subscribe(
        _ rig: Rig, _ gateway: Gateway, _ version: String, _ arguments: [String]
    ) throws -> Tool {
        let tool = try rig.tool(
            "/usr/bin/stdbuf",
            ["-oL", "mosquitto_sub", "-d", "-p", "\(gateway.port)", "-V", version] + arguments)
        guard waitUpTo(10, until: { tool.output.contains("Subscribed") }) else {
            throw WorkbenchError("mosquitto_sub is not subscribed: \(tool.output)\(tool.process.log)")
        }
        return tool
    }

    private func publish(_ rig: Rig, _ gateway: Gateway, _ version: String, _ arguments: [String]) throws {
        try rig.run("/usr/bin/mosquitto_pub", ["-p", "\(gateway.port)", "-V", version] + arguments)
    }

    private func lines(_ tool: Tool) -> [String] {
        tool.output.split(separator: "\n").filter { $0.hasPrefix("got ") }.map(String.init)
    }
}
