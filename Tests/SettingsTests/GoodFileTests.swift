import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Settings

/// A whole file with every key, as a user would write it.
let wholeFile = """
    gateway: plant-7
    state: /data/tidegate
    listeners:
      - address: 127.0.0.1:1883
      - { address: "[::]:2883", anonymous: true }
      - { address: "localhost:1884", max-connections: 20, packet-size: 64 KiB, protocol: mqtt }
      - { address: 127.0.0.1:8083, protocol: websocket }
      - { address: "unix:/run/a.sock", mode: 0600, protocol: websocket, path: /things/mqtt }
      - address: unix:/run/tidegate/mqtt.sock
    sessions: { expiry-for-3.1.1: 7d, expiry-max: 30d }
    journal:
      durability: flash-saver
      flash-budget: 2 GiB/day
      endurance: 8 TB
      size-limit: 2 GiB
      segment-size: 2MiB
      allow-volatile: true
      on-failure: exit
    limits:
      connections: 500
      packet-size: 256 KiB
      inflight: 20
      queue-messages: 1000
      connect-timeout: 2500ms
      validate-payload-format: true
    monitoring: { sys-interval: 5s }
    uplinks:
      - name: cloud
        address: mqtt://broker.example.com
        client-id: seven
        version: 5
        credentials: { username: plant-7, password: "p: #1" }
        keep-alive: 90s
        session-expiry: never
        receive-maximum: 50
        reconnect: { min: 500ms, max: 2m }
        routes:
          - { out: "sensors/#", to: "site/${gateway}/sensors/#", qos: 1 }
          - { in: "site/${gateway}/commands/#", to: "commands/#" }
          - { out: "alarms/+/state", qos: 0 }
      - name: second
        addresses: ["mqtt://[fd00::1]:8883"]
        version: 3.1.1
        credentials: { username: u, password-file: /run/credentials/tidegate.service/second }
        routes: [ { out: "#", to: "copy/#" } ]
    """

func parse(_ text: String) throws(SettingsErrors) -> Settings {
    try Settings.parse(Array(text.utf8), file: "t.yaml", hostName: "box")
}

func uplink(_ lines: String) throws -> UplinkSettings {
    let settings = try parse(
        """
        gateway: g
        uplinks:
          - name: c
            address: mqtt://h
            \(lines)
        """)
    return try #require(settings.uplinks.first)
}

func route(_ text: String) throws -> RouteSettings {
    try #require(try uplink("routes: [ { \(text) } ]").routes.first)
}

@Suite("A good file")
struct GoodFileTests {
    @Test("Every key reaches its value")
    func everyKey() throws {
        var expected = Settings(gateway: "plant-7", state: "/data/tidegate")
        expected.listeners = [
            ListenerSettings(.tcp(host: "127.0.0.1", port: 1883)),
            ListenerSettings(.tcp(host: "::", port: 2883), isAnonymous: true),
            ListenerSettings(.tcp(host: "127.0.0.1", port: 1884)),
            ListenerSettings(.tcp(host: "127.0.0.1", port: 8083)),
            ListenerSettings(.unix(path: "/run/a.sock", mode: 0o600)),
            ListenerSettings(.unix(path: "/run/tidegate/mqtt.sock", mode: 0o660)),
        ]
        expected.listeners[2].connections = 20
        expected.listeners[2].packetBytes = 64 << 10
        expected.listeners[3].speech = .webSocket(paths: ["/mqtt", "/"])
        expected.listeners[4].speech = .webSocket(paths: ["/things/mqtt"])
        expected.sessions.expiryFor311Seconds = 7 * 86_400
        expected.sessions.expiryMaxSeconds = 30 * 86_400
        expected.journal.durability = .flashSaver
        expected.journal.flashBudgetBytesPerDay = 2 << 30
        expected.journal.enduranceBytes = 8_000_000_000_000
        expected.journal.sizeLimitBytes = 2 << 30
        expected.journal.segmentBytes = 2 << 20
        expected.journal.allowsVolatile = true
        expected.journal.onFailure = .exit
        expected.limits.connections = 500
        expected.limits.packetBytes = 256 << 10
        expected.limits.inflight = 20
        expected.limits.queueMessages = 1000
        expected.limits.connectTimeoutMilliseconds = 2500
        expected.limits.validatesPayloadFormat = true
        expected.monitoring.sysIntervalMilliseconds = 5000
        var cloud = UplinkSettings(
            name: "cloud", host: "broker.example.com", port: 1883, clientIdentifier: "seven")
        cloud.credentials = CredentialSettings(userName: "plant-7", password: .written("p: #1"))
        cloud.keepAliveSeconds = 90
        cloud.sessionExpirySeconds = .max
        cloud.receiveMaximum = 50
        cloud.reconnectMinMilliseconds = 500
        cloud.reconnectMaxMilliseconds = 120_000
        cloud.routes = [
            RouteSettings(
                direction: .out, filter: try #require(TopicFilter("sensors/#")),
                rename: TopicRename(dropping: 7, prepending: Array("site/plant-7/sensors".utf8)),
                qos: .atLeastOnce),
            RouteSettings(
                direction: .in, filter: try #require(TopicFilter("site/plant-7/commands/#")),
                rename: TopicRename(dropping: 21, prepending: Array("commands".utf8)), qos: .exactlyOnce),
            RouteSettings(
                direction: .out, filter: try #require(TopicFilter("alarms/+/state")), rename: nil,
                qos: .atMostOnce),
        ]
        var second = UplinkSettings(
            name: "second", host: "fd00::1", port: 8883, clientIdentifier: "plant-7-second")
        second.version = .v3_1_1
        second.credentials = CredentialSettings(
            userName: "u", password: .file("/run/credentials/tidegate.service/second"))
        second.routes = [
            RouteSettings(
                direction: .out, filter: try #require(TopicFilter("#")),
                rename: TopicRename(dropping: 0, prepending: Array("copy/".utf8)), qos: .exactlyOnce)
        ]
        expected.uplinks = [cloud, second]
        let read = try parse(wholeFile)
        #expect(read == expected)
    }

    @Test(
        "A file that says nothing gives the defaults",
        arguments: ["", "\n", "# only this\n", "---\n", "null\n"])
    func nothing(text: String) throws {
        #expect(try parse(text) == Settings(gateway: "box"))
    }

    @Test("sys-interval: never means that there is no $SYS tree")
    func noSystemTopics() throws {
        #expect(try parse("monitoring: { sys-interval: never }").monitoring.sysIntervalMilliseconds == nil)
        #expect(try parse("").monitoring.sysIntervalMilliseconds == 10_000)
    }

    @Test("The shipped example gives the defaults")
    func shippedExample() throws {
        #expect(try parse(shipped()) == Settings(gateway: "box"))
    }

    @Test("The shipped example gives the defaults also where its defaults are uncommented")
    func shippedDefaults() throws {
        // Blocks marked "example" are no defaults; they end at a blank line.
        let blocks = try shipped().components(separatedBy: "\n\n").filter { !$0.contains("example") }
        let key = try Regex("^# ( *[a-z0-9.-]+:( .*)?)$").anchorsMatchLineEndings()
        let text = blocks.joined(separator: "\n\n").replacing(key) {
            String($0.output[1].substring ?? "")
        }
        for section in [
            "state:", "sessions:", "journal:", "limits:", "expiry-max:", "connect-timeout:",
        ] {
            #expect(text.contains("\n\(section)") || text.contains("  \(section)") || text.hasPrefix(section))
        }
        #expect(try parse(text) == Settings(gateway: "box"))
    }

    @Test("The shipped example's uplink is a good one, with the defaults where it writes them")
    func shippedUplink() throws {
        let blocks = try shipped().components(separatedBy: "\n\n")
        let block = try #require(blocks.first { $0.contains("# uplinks:") })
        let lines = block.split(separator: "\n").drop { !$0.hasPrefix("# uplinks:") }
        let read = try parse("gateway: plant-7\n" + lines.map { $0.dropFirst(2) }.joined(separator: "\n"))
        var expected = UplinkSettings(
            name: "cloud", host: "broker.example.com", port: 1883, clientIdentifier: "plant-7-cloud")
        expected.credentials = CredentialSettings(
            userName: "plant-7", password: .file("/etc/tidegate/cloud.password"))
        expected.routes = try #require(read.uplinks.first).routes
        #expect(read.uplinks == [expected])
        #expect(expected.routes.map(\.qos) == [.exactlyOnce, .exactlyOnce, .atLeastOnce])
    }

    @Test(
        "Pages from elsewhere are kept out of a loopback listener, unless anyone may connect",
        arguments: [
            ("127.0.0.1:1, anonymous: false", true), ("127.0.0.1:1, anonymous: true", false),
            ("0.0.0.0:1, anonymous: true", false), ("unix:/a, anonymous: false", false),
        ])
    func pages(listener: String, isForLocalPagesOnly: Bool) throws {
        let settings = try parse("listeners: [ { address: \(listener), protocol: websocket } ]")
        #expect(settings.listeners.map(\.isForLocalPagesOnly) == [isForLocalPagesOnly])
    }

    @Test("The shipped example's listeners are good ones")
    func shippedListeners() throws {
        let blocks = try shipped().components(separatedBy: "\n\n")
        let block = try #require(blocks.first { $0.contains("# listeners:") })
        let lines = block.split(separator: "\n").drop { !$0.hasPrefix("# listeners:") }
        let read = try parse(lines.map { $0.dropFirst(2) }.joined(separator: "\n"))
        var open = ListenerSettings(.tcp(host: "0.0.0.0", port: 1883), isAnonymous: true)
        open.connections = 1000
        open.packetBytes = 64 << 10
        var web = ListenerSettings(.tcp(host: "127.0.0.1", port: 8083))
        web.speech = .webSocket(paths: ["/mqtt"])
        let unix = ListenerSettings(.unix(path: "/run/tidegate/mqtt.sock", mode: 0o660))
        #expect(read.listeners == [open, web, unix])
    }

    private func shipped() throws -> String {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return try String(contentsOf: root.appending(path: "systemd/tidegate.yaml"), encoding: .utf8)
    }
}

@Suite("Routes")
struct RouteTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var from: String
        var to: String
        var topic: String
        var becomes: String
        var testDescription: String { "\(from) → \(to): \(topic)" }
    }

    @Test(
        "Only the part before the first wildcard changes",
        arguments: [
            Case(
                from: "sensors/#", to: "site/g/sensors/#", topic: "sensors/a/b", becomes: "site/g/sensors/a/b"
            ),
            Case(from: "sensors/#", to: "site/g/sensors/#", topic: "sensors", becomes: "site/g/sensors"),
            Case(from: "#", to: "site/#", topic: "a/b", becomes: "site/a/b"),
            Case(from: "site/#", to: "#", topic: "site/a/b", becomes: "a/b"),
            Case(from: "site/#", to: "#", topic: "site/a", becomes: "a"),
            Case(from: "a/+/t", to: "long/er/+/t", topic: "a/x/t", becomes: "long/er/x/t"),
            Case(from: "long/er/+/t", to: "+/t", topic: "long/er/x/t", becomes: "x/t"),
            Case(from: "a/b", to: "c", topic: "a/b", becomes: "c"),
            Case(from: "a/#", to: "$aws/things/${gateway}/#", topic: "a/1", becomes: "$aws/things/g/1"),
        ])
    func renames(_ c: Case) throws {
        let route = try route("out: \"\(c.from)\", to: \"\(c.to)\"")
        let topic = Array(c.topic.utf8)
        #expect(route.filter.matches(topic))
        let rename = try #require(route.rename)
        // The filter must never let through a topic that is shorter than what the rename takes away.
        try #require(rename.dropping <= topic.count)
        let result = rename.prepending + topic.dropFirst(rename.dropping)
        #expect(String(decoding: result, as: UTF8.self) == c.becomes)
    }

    @Test("A route that would leave nothing of its parent level does not carry it")
    func emptyParent() throws {
        let route = try route("in: \"site/#\", to: \"#\"")
        #expect(!route.filter.matches(Array("site".utf8)))
        #expect(route.filter.matches(Array("site/a/b/c".utf8)))
    }

    @Test("The same topic on both sides is no rename")
    func same() throws {
        #expect(try route("out: \"a/#\", to: \"a/#\"").rename == nil)
    }
}
