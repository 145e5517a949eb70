import Foundation
import Testing
import Workbench

/// Messages that a real broker refuses, and `tidegate deadletters`.
@Suite("dead letters, the commands", .serialized)
struct DeadLettersTests {
    @Test(
        "What the cloud refuses is listed and shown, sent again once it may, and forgotten when the operator says so"
    )
    func story() throws {
        let rig = try Rig()
        var options = CloudBroker.Options()
        let rules = try rig.place.write("topic readwrite up/#\n", to: "rules")
        chmod(rules, 0o644)
        options.lines = ["acl_file \(rules)"]
        let cloud = try CloudBroker(in: rig.place, options: options)
        try cloud.start()
        defer { cloud.stop() }
        let gateway = try rig.gateway(
            uplinks: [
                Gateway.Uplink(port: cloud.port, routes: ["{ out: \"up/#\" }", "{ out: \"secret/#\" }"])
            ])
        try gateway.start()
        try #require(waitUpTo(15) { gateway.log.contains("uplink \"cloud\" connected") })
        func letters(_ arguments: String...) throws -> (ending: ChildProcess.Ending?, text: String) {
            try command(rig, gateway, arguments)
        }
        #expect(try letters("list").text == "no dead letters\n")

        for (qos, number) in [(1, 1), (2, 2), (1, 3)] {
            try publish(gateway, rig, "secret/\(number)", qos: qos)
        }
        try #require(
            waitUpTo(15) { gateway.log.components(separatedBy: "dead letter").count > 3 }, "\(gateway.log)")
        let listed = waitUpTo(15) { (try? letters("list").text.split(separator: "\n").count) == 3 }
        let list = try letters("list", "--uplink", "cloud").text
        #expect(listed, "\(list)")
        let lines = list.split(separator: "\n")
        #expect(
            lines.allSatisfy { $0.hasPrefix("cloud ") && $0.contains("not authorized (0x87)") }, "\(list)")
        let numbers = lines.compactMap { $0.split(separator: " ").dropFirst().first.map(String.init) }
        try #require(numbers.count == 3)

        let shown = try letters("show", "cloud", numbers[0])
        #expect(
            shown.ending == .exited(0) && shown.text.hasSuffix("the payload of secret/1\n"), "\(shown.text)")
        #expect(try letters("show", "cloud", numbers[0], "--raw").text == "the payload of secret/1")
        let missing = try letters("show", "cloud", "999")
        #expect(missing.ending == .exited(1) && missing.text.contains("has no dead letter 999"))
        #expect(try letters("purge", "cloud").ending == .exited(64), "to mean all takes a word")
        let full = try ChildProcess.run(
            "/bin/sh",
            [
                "-c",
                "exec \(Rig.executable) deadletters show cloud \(numbers[0]) --raw "
                    + "--config \(gateway.configurationPath) > /dev/full",
            ])
        #expect(full.ending == .exited(1) && full.text.contains("No space left on device"), "\(full.text)")
        for verb in ["replay", "purge"] {
            let unknown = try letters(verb, "clod", "--all")
            #expect(unknown.ending == .exited(1), "\(unknown.text)")
            #expect(unknown.text.contains("there is no uplink \"clod\""), "\(unknown.text)")
        }

        // One is forgotten; the others arrive once they may.
        #expect(try letters("purge", "cloud", numbers[2]).text == "1 forgotten\n")
        try "topic readwrite #\n".write(toFile: rules, atomically: false, encoding: .utf8)
        cloud.hangUp()
        let watcher = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(cloud.port)", "-t", "secret/#", "-q", "2", "-C", "2", "-W", "20", "-F", "%q %t %p"])
        usleep(700_000)
        #expect(try letters("replay", "cloud", "--all").text == "2 sent again\n")
        #expect(watcher.process.ended(within: 20) == .exited(0), "\(gateway.log.suffix(1500))")
        #expect(
            watcher.output == "1 secret/1 the payload of secret/1\n2 secret/2 the payload of secret/2\n")
        #expect(waitUpTo(15) { (try? letters("list").text) == "no dead letters\n" })
        #expect(gateway.stop() == .exited(0))
        let stopped = try letters("replay", "cloud", "--all")
        #expect(stopped.ending == .exited(1) && stopped.text.contains("no gateway runs"), "\(stopped.text)")
        let audit = try rig.command("audit", "--config", gateway.configurationPath)
        #expect(audit.ending == .exited(0), "\(audit.text)")
        #expect(audit.text.contains("dropped, the operator said so: 1"), "\(audit.text)")
    }

    @Test(
        "A message too large for the cloud is a dead letter and stands in nobody's way; a stopped store can be read"
    )
    func tooLarge() throws {
        let rig = try Rig()
        var options = CloudBroker.Options()
        options.lines = ["max_packet_size 2000"]
        let cloud = try CloudBroker(in: rig.place, options: options)
        try cloud.start()
        defer { cloud.stop() }
        let gateway = try rig.gateway(uplinks: [
            Gateway.Uplink(port: cloud.port, routes: ["{ out: \"up/#\" }"])
        ])
        try gateway.start()
        try #require(waitUpTo(15) { gateway.log.contains("uplink \"cloud\" connected") })
        let watcher = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(cloud.port)", "-t", "up/#", "-q", "1", "-C", "1", "-W", "20"])
        usleep(500_000)
        let file = try rig.place.write(String(repeating: "x", count: 5000), to: "large")
        try rig.run(
            "/usr/bin/mosquitto_pub", ["-p", "\(gateway.port)", "-t", "up/large", "-q", "1", "-f", file])
        try publish(gateway, rig, "up/small", qos: 1)
        #expect(watcher.process.ended(within: 20) == .exited(0) && watcher.output.hasPrefix("the payload"))
        #expect(gateway.stop() == .exited(0))
        let list = try command(rig, gateway, ["list"])
        #expect(list.text.contains("packet too large (0x95)  up/large"), "\(list.text)")
    }

    private func command(_ rig: Rig, _ gateway: Gateway, _ arguments: [String]) throws -> (
        ending: ChildProcess.Ending?, text: String
    ) {
        try rig.command(
            arguments: ["deadletters"] + arguments + ["--config", gateway.configurationPath])
    }

    private func publish(_ gateway: Gateway, _ rig: Rig, _ topic: String, qos: Int) throws {
        try rig.run(
            "/usr/bin/mosquitto_pub",
            ["-p", "\(gateway.port)", "-t", topic, "-q", "\(qos)", "-m", "the payload of \(topic)"])
    }
}
