import Foundation
import Testing
import Workbench

/// Every setting of a device profile with the shipped binary and paho-mqtt, at 3.1.1 and 5.0. What the steps do is in
/// Paho/device_profiles.py; the rest of the settings are in ProfileTests, certificates and listeners in
/// SecureListenerTests.
@Suite("device profiles: each setting", .serialized)
struct ProfileSettingsTests {
    /// One for each step or more, for clients whose identifiers begin with its name.
    private static let profiles: [(name: String, text: String)] = [
        (
            "rights",
            """
            publish: { allow: "mine/${clientid}/#", deny: "mine/+/secret" }
            subscribe: { allow: [ "mine/${clientid}/#", "all" ], deny: "mine/+/secret" }
            """
        ),
        (
            "bounds",
            "keep-alive: { min: 3s, max: 60s }\nqos: 1\nreceive-maximum: 3\npacket-size: 1 KiB"
        ),
        (
            "brief",
            "keep-alive: { max: 1s }\nsessions: { expiry-for-3.1.1: 1s, expiry-max: 1s }"
        ),
        ("refuse", "queue: { messages: 3, when-full: refuse }"),
        ("oldest", "queue: { messages: 3, when-full: drop-oldest }"),
        ("newest", "queue: { messages: 3, when-full: drop-newest }"),
        ("rate", "rate: { messages: 10/s, burst: 10 }"),
        ("bytes", "rate: { bytes: 20 KiB/s, bytes-burst: 20 KiB }"),
        ("expiry", "message-expiry: { default: 2s, max: 4s }"),
        ("live", "liveness: { silent-for: 1s, topic: \"state/${clientid}\" }"),
        ("last", "keep-last-value: \"last/${clientid}/#\""),
        ("latency", "durability: latency"),
        ("saver", "durability: flash-saver"),
        ("steady", "durability: balanced"),
        ("urgent", "uplink: { priority: high }"),
        ("lazy", "uplink: { priority: low }"),
        (
            "meter",
            "report-by-exception: { topic: \"m/#\", deadband: 5, min-interval: 3s, max-interval: 6s }"
        ),
    ]

    private static let named = """
        profile: named
        order: 100
        match: { username: "shop-*" }
        qos: 0
        publish: { allow: "vars/${gateway}/${profile}/${clientid}/${username}" }
        """

    private static let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Paho/device_profiles.py").path

    private func writeProfiles(_ rig: Rig) throws {
        for (n, profile) in Self.profiles.enumerated() {
            let head =
                "profile: \(profile.name)\norder: \(n + 1)\nmatch: { client-id: \"\(profile.name)-*\" }\n"
            _ = try rig.place.write(
                head + profile.text + "\n", to: "device-profiles/\(profile.name).yaml")
        }
        _ = try rig.place.write(Self.named, to: "device-profiles/named.yaml")
    }

    @Test(
        "a setting does what it says",
        arguments: [
            "names", "publish", "subscribe", "sessions", "keepalive", "qos", "inflight", "size", "rate",
            "queue", "expiry", "liveness", "last",
        ], ["3.1.1", "5"])
    func setting(step: String, version: String) throws {
        let rig = try Rig()
        try writeProfiles(rig)
        let gateway = try rig.gateway()
        try gateway.start()
        try rig.run("/usr/bin/python3", [Self.script, "\(gateway.port)", version, step])
        #expect(gateway.stop() == .exited(0))
        #expect(!gateway.log.contains("do not balance"), "\(gateway.log)")
        let audit = try rig.command("audit", "--state", gateway.statePath)
        #expect(audit.ending == .exited(0), "\(audit.text)")
        if step == "queue" {
            // Two went at each of the two policies that let go.
            #expect(audit.text.contains("dropped, the queue was full: 4"), "\(audit.text)")
        }
        if step == "expiry" { #expect(!audit.text.contains("dropped,"), "\(audit.text)") }
    }

    @Test(
        "durability: whatever a class of device waits for, acknowledged is on flash",
        arguments: ["latency", "saver", "steady"], ["mqttv311", "mqttv5"])
    func durability(profile: String, version: String) throws {
        let rig = try Rig()
        try writeProfiles(rig)
        let gateway = try rig.gateway()
        try gateway.start()
        let words = ["-p", "\(gateway.port)", "-V", version]
        let lasting =
            words + ["-i", "reader", "-c", "-q", "2", "-t", "d/#"]
            + (version == "mqttv5" ? ["-x", "1000"] : [])
        try rig.run("/usr/bin/mosquitto_sub", lasting + ["-E"])
        for qos in ["1", "2"] {
            try rig.run(
                "/usr/bin/mosquitto_pub",
                words + ["-i", "\(profile)-1", "-q", qos, "-t", "d/\(qos)", "-m", "kept \(qos)"])
        }
        gateway.kill()
        try gateway.start()
        let got = try rig.run("/usr/bin/mosquitto_sub", lasting + ["-C", "2", "-W", "10"])
        #expect(got == "kept 1\nkept 2\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test("uplink priority: what a class of device publishes leaves ahead of the rest, or behind it")
    func priority() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        try writeProfiles(rig)
        let gateway = try rig.gateway(
            uplinks: [Gateway.Uplink(port: link.port, routes: ["{ out: \"t/#\" }"])])
        try gateway.start()
        try #require(waitUpTo(20) { gateway.log.contains("\"cloud\" connected") }, "\(gateway.log)")
        let there = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(cloud.port)", "-t", "t/#", "-q", "1", "-C", "3", "-W", "30"])
        usleep(500_000)
        link.cut()
        try #require(waitUpTo(20) { gateway.log.contains("\"cloud\" disconnected") }, "\(gateway.log)")
        for client in ["lazy-1", "other-1", "urgent-1"] {
            try rig.run(
                "/usr/bin/mosquitto_pub",
                ["-p", "\(gateway.port)", "-i", client, "-q", "1", "-t", "t/\(client)", "-m", client])
        }
        link.restore()
        #expect(there.process.ended(within: 30) == .exited(0), "\(gateway.log.suffix(2000))")
        #expect(there.output == "urgent-1\nother-1\nlazy-1\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test(
        "report by exception: a change that comes too soon goes up when the interval is over; none for ever does, too"
    )
    func intervals() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        try writeProfiles(rig)
        let gateway = try rig.gateway(
            uplinks: [Gateway.Uplink(port: cloud.port, routes: ["{ out: \"m/#\" }"])])
        try gateway.start()
        try #require(waitUpTo(20) { gateway.log.contains("\"cloud\" connected") }, "\(gateway.log)")
        let there = try rig.tool(
            "/usr/bin/stdbuf",
            ["-oL", "mosquitto_sub", "-p", "\(cloud.port)", "-t", "m/#", "-q", "1", "-W", "40"])
        defer { there.process.kill() }
        usleep(500_000)
        func says(_ value: Int) throws {
            try rig.run(
                "/usr/bin/mosquitto_pub",
                ["-p", "\(gateway.port)", "-i", "meter-1", "-q", "1", "-t", "m/1", "-m", "\(value)"])
        }
        for value in [100, 120, 140] { try says(value) }
        #expect(waitUpTo(10) { there.output == "100\n140\n" }, "\(there.output)")
        try says(141)
        usleep(500_000)
        #expect(there.output == "100\n140\n")
        usleep(6_000_000)
        try says(141)
        #expect(waitUpTo(10) { there.output == "100\n140\n141\n" }, "\(there.output)")
        #expect(gateway.stop() == .exited(0))
    }

    @Test(
        "rights withdrawn by a reload: nothing comes any more, of what waited either, until it is allowed again",
        arguments: ["mqttv311", "mqttv5"])
    func withdrawn(version: String) throws {
        let rig = try Rig()
        let say = { (rights: String) in
            _ = try rig.place.write(
                "profile: screens\norder: 1\nmatch: { client-id: \"screen-*\" }\nsubscribe: { allow: \(rights) }",
                to: "device-profiles/screens.yaml")
        }
        try say("[ a, b ]")
        let gateway = try rig.gateway()
        try gateway.start()
        let expiry = version == "mqttv5" ? ["-x", "1000"] : []
        let words = ["-p", "\(gateway.port)", "-V", version, "-q", "1"]
        let topics = ["-t", "a", "-t", "b", "-F", "%t %p"]
        let away = words + ["-i", "screen-2", "-c"] + expiry + topics
        try rig.run("/usr/bin/mosquitto_sub", away + ["-E"])
        let here = try rig.tool(
            "/usr/bin/stdbuf", ["-oL", "mosquitto_sub"] + words + ["-i", "screen-1", "-W", "60"] + topics)
        defer { here.process.kill() }
        usleep(700_000)
        func publish(_ text: String) throws {
            for topic in ["a", "b"] {
                try rig.run("/usr/bin/mosquitto_pub", words + ["-i", "pub", "-t", topic, "-m", text])
            }
        }
        func reloads(_ rights: String) throws {
            try say(rights)
            let (ending, text) = try rig.command("reload", "--config", gateway.configurationPath)
            #expect(ending == .exited(0), "\(text)")
        }
        try publish("1")
        #expect(waitUpTo(10) { here.output == "a 1\nb 1\n" }, "\(here.output)")
        try reloads("[ b ]")
        #expect(
            gateway.log.contains(
                "1 subscription of \"screen-1\" is not allowed any more by profile \"screens\""),
            "\(gateway.log)")
        let clients = try rig.command("clients", "--config", gateway.configurationPath).text
        #expect(clients.contains("2 subscriptions, 1 of them not allowed any more"), "\(clients)")
        try publish("2")
        #expect(waitUpTo(10) { here.output == "a 1\nb 1\nb 2\n" }, "\(here.output)")
        // Its session is there, and so is what it may have of what waited.
        let back = try rig.run(
            "/usr/bin/mosquitto_sub",
            words + ["-i", "screen-2", "-c"] + expiry + ["-t", "b", "-F", "%t %p", "-C", "2", "-W", "10"])
        #expect(back == "b 1\nb 2\n")
        try reloads("[ a, b ]")
        try publish("3")
        #expect(waitUpTo(10) { here.output == "a 1\nb 1\nb 2\na 3\nb 3\n" }, "\(here.output)")
        #expect(gateway.stop() == .exited(0))
        let audit = try rig.command("audit", "--state", gateway.statePath)
        #expect(audit.ending == .exited(0), "\(audit.text)")
        #expect(
            audit.text.contains("dropped, their receiver's device profile does not allow them any more: 1"),
            "\(audit.text)")
    }
}
