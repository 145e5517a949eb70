import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Settings

@Suite("Device profile files")
struct ProfileFileTests {
    static let surroundings = ProfileSurroundings(
        listeners: [
            ListenerSettings(.tcp(host: "127.0.0.1", port: 1883)),
            ListenerSettings(.unix(path: "/run/a.sock", mode: 0o660)),
        ], uplinks: ["cloud", "backup"])

    static func parse(_ text: String) throws(SettingsErrors) -> DeviceProfile {
        try ProfileSettings.parse(Array(text.utf8), file: "p.yaml", among: surroundings).profile
    }

    static var shipped: [URL] {
        get throws {
            let directory = URL(fileURLWithPath: #filePath)
                .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
                .appendingPathComponent("device-profiles")
            return try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
                .filter { $0.pathExtension == "yaml" }.sorted { $0.path < $1.path }
        }
    }

    // MARK: What a file may say

    @Test("every key reaches the profile")
    func everything() throws {
        let profile = try Self.parse(
            """
            profile: press
            order: 7
            match:
              - { client-id: "press-*", username: "shop?", listener: "127.0.0.1:1883" }
              - { certificate-subject: "CN=press*", certificate-issuer: "*Plant*" }
            sessions: { expiry-for-3.1.1: never, expiry-max: 2h }
            keep-alive: { min: 30s, max: 5m }
            qos: 1
            receive-maximum: 12
            packet-size: 4 KiB
            publish: { allow: [ "a/${clientid}/#", b ], deny: "a/+/secret" }
            subscribe: { deny: "${gateway}/#" }
            rate: { messages: 10/s, burst: 30, bytes: 16 KiB/s, bytes-burst: 64 KiB }
            queue: { messages: 5, bytes: 8 KiB, when-full: drop-newest }
            durability: flash-saver
            message-expiry: { default: 1h, max: 2h }
            uplink: { only: [ cloud ], priority: low }
            liveness: { silent-for: 2m, topic: "state/${username}", online: up, offline: down }
            report-by-exception:
              - { topic: "a/+/t", deadband: 0.5, min-interval: 10s, max-interval: 15m }
              - { topic: "a/#", value: /x/0, deadband: 5 % }
            keep-last-value: "a/${profile}/#"
            """)
        var expected = DeviceProfile(
            name: "press",
            matches: [
                DeviceMatch(clientIdentifier: Glob("press-*"), username: Glob("shop?"), listener: 0),
                DeviceMatch(certificateSubject: Glob("CN=press*"), certificateIssuer: Glob("*Plant*")),
            ])
        expected.sessionExpirySecondsBefore5 = .max
        expected.sessionExpirySecondsMax = 7200
        expected.keepAliveSecondsMin = 30
        expected.keepAliveSecondsMax = 300
        expected.maximumQoS = .atLeastOnce
        expected.receiveMaximum = 12
        expected.packetBytesMax = 4096
        expected.publish = TopicRights(
            allow: [try TopicTemplate("a/${clientid}/#"), try TopicTemplate("b")],
            deny: [try TopicTemplate("a/+/secret")])
        expected.subscribe = TopicRights(deny: [try TopicTemplate("${gateway}/#")])
        expected.rate = PublishRate(
            messagesPerSecond: 10, bytesPerSecond: 16384, messagesBurst: 30, bytesBurst: 65536)
        expected.queue = QueueBounds(messagesMax: 5, bytesMax: 8192, whenFull: .dropNewest)
        expected.durability = .flashSaver
        expected.messageExpiry = MessageExpiry(defaultSeconds: 3600, secondsMax: 7200)
        expected.uplink = UplinkChoice(names: ["cloud"], priority: .low)
        expected.liveness = Liveness(
            silentSeconds: 120, stateTopic: try TopicTemplate("state/${username}", as: .name), online: "up",
            offline: "down")
        expected.reportByException = [
            ReportByException(
                filter: try TopicTemplate("a/+/t"), deadband: .absolute(0.5), intervalMillisecondsMin: 10_000,
                intervalMillisecondsMax: 900_000),
            ReportByException(
                filter: try TopicTemplate("a/#"), value: JSONPointer("/x/0"), deadband: .relative(0.05)),
        ]
        expected.keepsLastValue = [try TopicTemplate("a/${profile}/#")]
        #expect(profile == expected)
    }

    @Test("a profile that says nothing but its name sets nothing, and is the default")
    func nothing() throws {
        let profile = try Self.parse("profile: default")
        #expect(profile == DeviceProfile(name: "default"))
        #expect(profile.isDefault)
    }

    // MARK: What is wrong

    @Test("a bad file says what, where, and what to write instead", arguments: wrong)
    func wrongFiles(_ text: String, _ expected: String) {
        do throws(SettingsErrors) {
            let profile = try Self.parse("profile: p\n" + text)
            Issue.record("accepted: \(profile)")
        } catch {
            #expect(error.errors.map(\.description) == ["p.yaml:" + expected])
        }
    }

    static let wrong: [(String, String)] = [
        (
            "ordr: 5",
            "2:1: unknown key \"ordr\" in the file; write: order (known here: "
                + ProfileKeys.all.map(\.name).joined(separator: ", ") + ")"
        ),
        (
            "match: { client-id: a }",
            "2:8: a profile with match says in which order it is tried; write: order: 20"
        ),
        (
            "order: 3",
            "2:8: a profile without match is the default, which comes last; write: match beside it, or no order"
        ),
        (
            "order: 3\nmatch: { }",
            "3:8: a match that says nothing would be everybody's; write: client-id: \"battery-*\", or leave match out to make this the default"
        ),
        (
            "order: 3\nmatch: [ { listener: \"1.2.3.4:5\" } ]",
            "3:22: no listener is at \"1.2.3.4:5\"; write: one of 127.0.0.1:1883, unix:/run/a.sock"
        ),
        ("qos: 3", "2:6: qos of 3 is out of bounds; write: a number from 0 to 2"),
        (
            "keep-alive: { min: 2m, max: 1m }",
            "2:13: the shortest keep-alive is longer than the longest; write: min: 60s"
        ),
        (
            "publish: { allow: \"a/${client}/#\" }",
            "2:19: nothing is called \"${client}\"; write: one of ${clientid}, ${username}, ${profile}, ${gateway}"
        ),
        (
            "publish: { allow: [ \"a/#/b\" ] }",
            "2:21: \"a/#/b\" is not a topic filter: # stands alone and last, + stands alone in its level; write: a filter such as \"sensors/${clientid}/#\""
        ),
        (
            "publish: { deny: \"a/${clientid\" }",
            "2:18: \"a/${clientid\" has ${ without }; write: \"${clientid}\""
        ),
        ("rate: { burst: 5 }", "2:16: burst is counted in messages; write: messages: 10/s beside it"),
        ("rate: { }", "2:7: rate has no bound; write: rate: { messages: 10/s }"),
        (
            "rate: { messages: 10 }",
            "2:19: messages does not say for how long; write: messages: 10/s"
        ),
        (
            "queue: { when-full: drop-odlest, messages: 3 }",
            "2:21: when-full is refuse, drop-oldest or drop-newest, not \"drop-odlest\"; write: when-full: drop-oldest"
        ),
        (
            "queue: { when-full: refuse }",
            "2:8: queue has no bound; write: queue: { messages: 10000, when-full: drop-oldest }"
        ),
        (
            "durability: fast",
            "2:13: durability is latency, balanced or flash-saver, not \"fast\"; write: durability: latency"
        ),
        (
            "message-expiry: { default: 2h, max: 1h }",
            "2:28: the default is longer than the longest; write: default: 1h"
        ),
        (
            "uplink: { only: [ cluod ] }",
            "2:19: no uplink is called \"cluod\"; write: one of \"cloud\", \"backup\""
        ),
        (
            "liveness: { topic: \"state/${clientid}\" }",
            "2:11: liveness needs a silent-for; write: silent-for: 10m"
        ),
        (
            "liveness: { silent-for: 5m, topic: state }",
            "2:36: all devices of this profile would share \"state\"; write: topic: \"state/${clientid}\""
        ),
        (
            "liveness: { silent-for: 5m, topic: \"state/${clientid}/#\" }",
            "2:36: topic is one topic, and \"state/${clientid}/#\" has wildcards; write: a topic such as \"state/${clientid}\""
        ),
        (
            "report-by-exception: { topic: a, deadband: 0x10 }",
            "2:44: deadband is a number or a percentage, not \"0x10\"; write: deadband: 0.5, or deadband: 5 %"
        ),
        (
            "report-by-exception: { topic: a, deadband: 1e3 % }",
            "2:44: deadband is a number or a percentage, not \"1e3 %\"; write: deadband: 0.5, or deadband: 5 %"
        ),
        (
            "report-by-exception: { topic: a, deadband: -1 }",
            "2:44: deadband is a number or a percentage, not \"-1\"; write: deadband: 0.5, or deadband: 5 %"
        ),
        (
            "report-by-exception: [ { topic: a, deadband: 1, value: t } ]",
            "2:56: \"t\" is no place in a JSON text (RFC 6901); write: value: /temperature"
        ),
        (
            "report-by-exception: [ { topic: a, deadband: 1, min-interval: 1m, max-interval: 30s } ]",
            "2:81: max-interval is shorter than min-interval; write: max-interval: 1m, or longer"
        ),
    ]

    // MARK: A directory

    private func directory(_ files: [String: String], _ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("tidegate-profiles-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: path, withIntermediateDirectories: true)
        defer { #expect(throws: Never.self) { try FileManager.default.removeItem(at: path) } }
        for (name, text) in files {
            try text.write(to: path.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        try body(path.path)
    }

    @Test("profiles are tried in the order that they say, the default last; other files are left alone")
    func order() throws {
        try directory([
            "a.yaml": "profile: default", "b.yaml": "profile: late\norder: 9\nmatch: { client-id: b }",
            "c.yaml": "profile: early\norder: 2\nmatch: { client-id: c }", ".c.yaml.swp": "x",
            ".hidden.yaml": "x", "README.md": "x",
        ]) { path in
            let profiles = try ProfileSettings.load(path, isNamed: true, among: Self.surroundings)
            #expect(profiles.map(\.profile.name) == ["early", "late", "default"])
        }
    }

    @Test("two profiles of one name, of one order, and two defaults are told apart by nobody: all are said")
    func clashes() throws {
        try directory([
            "a.yaml": "profile: x", "b.yaml": "profile: y",
            "c.yaml": "profile: z\norder: 2\nmatch: { client-id: c }",
            "d.yaml": "profile: z\norder: 2\nmatch: { client-id: d }",
        ]) { path in
            let errors = #expect(throws: SettingsErrors.self) {
                try ProfileSettings.load(path, isNamed: true, among: Self.surroundings)
            }
            #expect(
                errors?.errors.map(\.description) == [
                    "\(path)/d.yaml: \(path)/c.yaml has a profile of the name \"z\" already; write: profile: a name of its own",
                    "\(path)/d.yaml: \(path)/c.yaml has the order 2 already, and one must be tried first; write: order: 3",
                    "\(path)/b.yaml: \(path)/a.yaml is the default already: it has no match; write: match and order in one of them",
                ])
        }
    }

    @Test("what is wrong in any of the files is said at once")
    func manyErrors() throws {
        try directory(["a.yaml": "profile: x\nqos: 7", "b.yaml": "# nothing"]) { path in
            let errors = #expect(throws: SettingsErrors.self) {
                try ProfileSettings.load(path, isNamed: true, among: Self.surroundings)
            }
            #expect(
                errors?.errors.map(\.description) == [
                    "\(path)/a.yaml:2:6: qos of 7 is out of bounds; write: a number from 0 to 2",
                    "\(path)/b.yaml:1:1: the file says nothing; write: profile: battery-sensor, or remove the file",
                ])
        }
    }

    @Test("a directory that is missing is an error where it was named, and none where it was not")
    func missing() throws {
        #expect(try ProfileSettings.load("/nowhere/p", isNamed: false, among: Self.surroundings) == [])
        let errors = #expect(throws: SettingsErrors.self) {
            try ProfileSettings.load("/nowhere/p", isNamed: true, among: Self.surroundings)
        }
        #expect(
            errors?.errors.map(\.description) == [
                "/nowhere/p: the device profiles cannot be read: No such file or directory; write: device-profiles: the directory they are in"
            ])
    }

    @Test("the configuration finds the directory beside it, or the one that it names")
    func besideTheFile() throws {
        try directory(["p.yaml": "profile: p\norder: 1\nmatch: { client-id: p }", "x.txt": ""]) { profiles in
            try directory(["tidegate.yaml": "gateway: g\ndevice-profiles: \(profiles)"]) { home in
                let settings = try Settings.load(path: home + "/tidegate.yaml")
                #expect(settings.deviceProfiles.map(\.profile.name) == ["p"])
                let beside = home + "/device-profiles"
                try FileManager.default.createSymbolicLink(atPath: beside, withDestinationPath: profiles)
                try "gateway: g".write(toFile: home + "/tidegate.yaml", atomically: true, encoding: .utf8)
                #expect(
                    try Settings.load(path: home + "/tidegate.yaml").deviceProfiles.map(\.profile.name) == [
                        "p"
                    ])
            }
        }
    }

    // MARK: What is shipped

    @Test("the profiles that are shipped are good, and there is one for each class that people start from")
    func shippedFiles() throws {
        let path = try #require(try Self.shipped.first).deletingLastPathComponent().path
        let profiles = try ProfileSettings.load(path, isNamed: true, among: Self.surroundings)
        #expect(
            profiles.map(\.profile.name) == [
                "battery-sensor", "mains-sensor", "actuator", "energy-meter", "gateway-device", "diagnostics",
                "default",
            ])
        #expect(profiles.last?.profile == DeviceProfile(name: "default"))
    }
}
