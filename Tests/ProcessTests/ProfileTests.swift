import Foundation
import Testing
import Workbench

/// Device profiles in files, with the shipped binary, Mosquitto's clients and a real cloud.
@Suite("device profiles", .serialized)
struct ProfileTests {
    private static let meters = """
        profile: meters
        order: 10
        match: { client-id: "meter-*" }
        publish: { allow: "meters/#", deny: meters/secret }
        report-by-exception: { topic: "meters/#", value: /watts, deadband: 5 }
        """

    private func write(_ text: String, to name: String, _ rig: Rig) throws {
        _ = try rig.place.write(text, to: "device-profiles/\(name).yaml")
    }

    /// Publishes each line as a message, on one connection.
    private func publish(_ rig: Rig, _ gateway: Gateway, _ client: String, _ topic: String, _ lines: [String])
        throws
    {
        let file = try rig.place.write(lines.joined(separator: "\n") + "\n", to: "lines")
        let ending = try rig.tool(
            "/bin/sh",
            [
                "-c",
                "mosquitto_pub -p \(gateway.port) -i \(client) -V 5 -q 1 -t \(topic) -l < \(file)",
            ]
        ).process.ended(within: 20)
        #expect(ending == .exited(0))
    }

    @Test(
        "Report by exception: the cloud gets what is news, who subscribes here gets everything, and the books balance"
    )
    func reportByException() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        try write(Self.meters, to: "meters", rig)
        let gateway = try rig.gateway(
            uplinks: [Gateway.Uplink(port: cloud.port, routes: ["{ out: \"meters/#\" }"])])
        try gateway.start()
        try #require(waitUpTo(20) { gateway.log.contains("\"cloud\" connected") }, "\(gateway.log)")
        let values = [100, 102, 104, 107, 108, 99, 98, 95, 94, 93]
        let there = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(cloud.port)", "-t", "#", "-q", "1", "-C", "5", "-W", "20"])
        let here = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-t", "meters/#", "-q", "1", "-C", "11", "-W", "20"])
        usleep(500_000)
        try publish(rig, gateway, "meter-1", "meters/1", values.map { "{\"watts\":\($0)}" })
        // Somebody without a profile is not filtered.
        try publish(rig, gateway, "other", "meters/1", ["{\"watts\":93}"])
        #expect(here.process.ended(within: 20) == .exited(0), "\(here.output)")
        #expect(there.process.ended(within: 20) == .exited(0), "\(there.output)")
        let got = there.output.split(separator: "\n").map(String.init)
        // More than 5 away from the last that went up.
        #expect(got == [100, 107, 99, 93, 93].map { "{\"watts\":\($0)}" })
        let use = try rig.command("profile", "use", "--state", gateway.statePath)
        #expect(use.ending == .exited(0))
        let counts = "0 publishes refused\t0 subscriptions refused\t0 times slowed down\t"
        #expect(use.text.contains("meters\t\(counts)6 kept from uplinks ("), "\(use.text)")
        #expect(use.text.contains("default\t\(counts)0 kept from uplinks (0 bytes)\n"), "\(use.text)")
        usleep(1_500_000)
        #expect(gateway.stop() == .exited(0))
        #expect(!gateway.log.contains("do not balance"), "\(gateway.log)")
        #expect(try rig.command("profile", "use", "--state", gateway.statePath).ending == .exited(1))
        let audit = try rig.command("audit", "--state", gateway.statePath)
        #expect(audit.ending == .exited(0), "\(audit.text)")
    }

    @Test("A profile decides which of the clouds gets what its clients publish")
    func uplinkChoice() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        try write(
            "profile: local\norder: 1\nmatch: { client-id: \"local-*\" }\nuplink: { only: [ none ] }",
            to: "local", rig)
        var none = Gateway.Uplink(port: FreePort.next(), routes: ["{ out: \"t/#\" }"])
        none.name = "none"
        let gateway = try rig.gateway(
            uplinks: [Gateway.Uplink(port: cloud.port, routes: ["{ out: \"t/#\" }"]), none])
        try gateway.start()
        try #require(waitUpTo(20) { gateway.log.contains("\"cloud\" connected") }, "\(gateway.log)")
        let there = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(cloud.port)", "-t", "#", "-q", "1", "-C", "2", "-W", "20"])
        usleep(500_000)
        try publish(rig, gateway, "local-1", "t/a", ["kept"])
        try publish(rig, gateway, "other", "t/a", ["first", "second"])
        #expect(there.process.ended(within: 20) == .exited(0))
        #expect(there.output == "first\nsecond\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test(
        "Reloading changes what profiles say without dropping anybody; a broken file changes nothing and says why"
    )
    func reloading() throws {
        let rig = try Rig()
        let quiet = { (qos: String) in
            "profile: valves\norder: 1\nmatch: { client-id: \"valve-*\" }\npublish: { allow: \"\(qos)\" }"
        }
        try write(quiet("old"), to: "valves", rig)
        let gateway = try rig.gateway()
        try gateway.start()
        let screen = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-i", "valve-1", "-t", "#", "-q", "1", "-C", "2", "-W", "30"])
        usleep(500_000)
        try publish(rig, gateway, "valve-2", "old", ["1"])
        try write(quiet("new"), to: "valves", rig)
        let (ending, text) = try rig.command("reload", "--config", gateway.configurationPath)
        #expect(ending == .exited(0), "\(text)")
        #expect(text.contains("profile \"valves\": changed"), "\(text)")
        let denied = try rig.tool(
            "/usr/bin/mosquitto_pub",
            ["-p", "\(gateway.port)", "-i", "valve-2", "-V", "5", "-q", "1", "-t", "old", "-m", "x"])
        _ = denied.process.ended(within: 10)
        let words = denied.output + denied.process.log
        #expect(words.lowercased().contains("not authorized"), "\(words)")
        try write("profile: valves\norder: one", to: "valves", rig)
        let broken = try rig.command("reload", "--state", gateway.statePath)
        #expect(broken.ending == .exited(1))
        #expect(
            broken.text.contains("device-profiles/valves.yaml:2:8: order is a whole number, not \"one\""),
            "\(broken.text)")
        try publish(rig, gateway, "valve-2", "new", ["2"])
        // Connected all the while, it got both.
        #expect(screen.process.ended(within: 20) == .exited(0), "\(screen.output)")
        #expect(screen.output == "1\n2\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test("profile list, check, explain and schema, and clients, say in plain words what is")
    func commands() throws {
        let rig = try Rig()
        try write(Self.meters, to: "meters", rig)
        let gateway = try rig.gateway(
            uplinks: [Gateway.Uplink(port: FreePort.next(), routes: ["{ out: \"meters/#\" }"])])
        let ask = { (words: [String]) in
            try rig.command(arguments: words + ["--config", gateway.configurationPath])
        }
        let list = try ask(["profile", "list"])
        #expect(list.ending == .exited(0))
        #expect(
            list.text.contains("10\tmeters\t") && list.text.contains("client identifier meter-*"),
            "\(list.text)")
        #expect(list.text.contains("last\tdefault\tbuilt in"), "\(list.text)")
        #expect(try ask(["profile", "check"]).text == "1 device profile is good\n")
        #expect(try rig.command("profile", "schema").text.contains("\"report-by-exception\""))
        let explained = try ask(["profile", "explain", "meter-3", "--topic", "meters/3"])
        #expect(explained.ending == .exited(0))
        #expect(explained.text.contains("meters") && explained.text.contains("meter-*"), "\(explained.text)")
        #expect(
            explained.text.contains("the cloud gets news of: meters/# at /watts: changes of more than 5.0\n"),
            "\(explained.text)")
        #expect(
            explained.text.contains("may publish: meters/#, but not meters/secret\n"), "\(explained.text)")
        let other = try ask(["profile", "explain", "sensor-3"])
        #expect(other.text.contains("default"), "\(other.text)")
        try gateway.start()
        let screen = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-i", "meter-9", "-t", "#", "-q", "1", "-W", "30"])
        usleep(700_000)
        let clients = try ask(["clients"])
        #expect(clients.ending == .exited(0))
        #expect(clients.text.contains("meter-9") && clients.text.contains("meters"), "\(clients.text)")
        screen.process.kill()
        #expect(gateway.stop() == .exited(0))
    }
}
