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
        addresses: ["mqtts://[fd00::1]:8884", "wss://backup.example.com/a?b=c", "ws://10.0.0.1", "mqtt://h:1"]
        fail-back: 1h
        tls:
          ca: /etc/ca.pem
          certificate: /etc/gw.pem
          key: /etc/gw.key
          server-name: cloud.example.com
          alpn: [ mqtt, x-amzn-mqtt-ca ]
          minimum: 1.3
        proxy: "http://me:p%40ss:%25@proxy.example.com:3128/"
        topic-aliases: 3
        ack-timeout: never
        status: { topic: "site/${gateway}/status", online: up, offline: down, qos: 2, retain: false }
        provenance: [ seq, received-at ]
        drain: { messages: 500/s, bytes: 64 KiB/s }
        dead-letters: { messages: 5, bytes: 1 MiB }
        routes:
          - { out: "a/#", to: "b/#", except: [ "a/x/#", "+/y" ], retain: false, priority: high }
          - { both: "s/#", to: "site/${gateway}/s/#", except: "s/${gateway}", qos: 1, order: live-first, priority: low }
          - { out: c, order: as-received, queue: { messages: 9, bytes: 1 MiB, when-full: drop-newest } }
      - name: third
        address: mqtt://h
        version: 3.1.1
        credentials: { username: u, password-file: /run/credentials/tidegate.service/third }
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
            name: "cloud", addresses: [AddressSettings(host: "broker.example.com", port: 1883)],
            clientIdentifier: "seven")
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
        var third = UplinkSettings(
            name: "third", addresses: [AddressSettings(host: "h", port: 1883)],
            clientIdentifier: "plant-7-third")
        third.version = .v3_1_1
        third.credentials = CredentialSettings(
            userName: "u", password: .file("/run/credentials/tidegate.service/third"))
        third.routes = [
            RouteSettings(
                direction: .out, filter: try #require(TopicFilter("#")),
                rename: TopicRename(dropping: 0, prepending: Array("copy/".utf8)), qos: .exactlyOnce)
        ]
        expected.uplinks = [cloud, try second(), third]
        let read = try parse(wholeFile)
        #expect(read == expected)
    }

    private func second() throws -> UplinkSettings {
        var second = UplinkSettings(
            name: "second",
            addresses: [
                AddressSettings(.mqtts, host: "fd00::1", port: 8884),
                AddressSettings(.wss, host: "backup.example.com", port: 443, path: "/a?b=c"),
                AddressSettings(.ws, host: "10.0.0.1", port: 80, path: "/mqtt"),
                AddressSettings(host: "h", port: 1),
            ], clientIdentifier: "plant-7-second")
        second.failBackMilliseconds = 3_600_000
        var security = SecuritySettings()
        security.authorityFile = "/etc/ca.pem"
        security.certificateFile = "/etc/gw.pem"
        security.keyFile = "/etc/gw.key"
        security.serverName = "cloud.example.com"
        security.protocols = ["mqtt", "x-amzn-mqtt-ca"]
        security.minimum = .tls13
        second.security = security
        second.proxy = ProxySettings(
            host: "proxy.example.com", port: 3128, userName: "me", password: "p@ss:%")
        second.topicAliasMax = 3
        second.ackTimeoutSeconds = 0
        var status = StatusSettings(topic: Array("site/plant-7/status".utf8))
        (status.online, status.offline, status.qos, status.isRetained) = ("up", "down", .exactlyOnce, false)
        second.status = status
        (second.provenance.addsSequence, second.provenance.addsReceivedAt) = (true, true)
        second.drain = UplinkRoutes.Drain(messagesPerSecond: 500, bytesPerSecond: 64 << 10)
        (second.deadLetters, second.deadLetterBytes) = (5, 1 << 20)

        var up = RouteSettings(
            direction: .out, filter: try #require(TopicFilter("a/#")),
            rename: TopicRename(dropping: 1, prepending: Array("b".utf8)), qos: .exactlyOnce)
        up.except = try [#require(TopicFilter("a/x/#")), #require(TopicFilter("+/y"))]
        (up.carriesRetain, up.priority) = (false, .high)
        var shared = RouteSettings(
            direction: .out, filter: try #require(TopicFilter("s/#")),
            rename: TopicRename(dropping: 1, prepending: Array("site/plant-7/s".utf8)), qos: .atLeastOnce)
        shared.except = [try #require(TopicFilter("s/plant-7"))]
        (shared.isLiveFirst, shared.priority) = (true, .low)
        var back = RouteSettings(
            direction: .in, filter: try #require(TopicFilter("site/plant-7/s/#")),
            rename: TopicRename(dropping: 14, prepending: Array("s".utf8)), qos: .atLeastOnce)
        back.except = [try #require(TopicFilter("site/plant-7/s/plant-7"))]
        var last = RouteSettings(
            direction: .out, filter: try #require(TopicFilter("c")), rename: nil, qos: .exactlyOnce)
        last.queue = QueueBounds(messagesMax: 9, bytesMax: 1 << 20, whenFull: .dropNewest)
        second.routes = [up, shared, back, last]
        return second
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
            name: "cloud",
            addresses: [
                AddressSettings(.mqtts, host: "broker.example.com", port: 8883),
                AddressSettings(.wss, host: "backup.example.com", port: 443, path: "/mqtt"),
            ], clientIdentifier: "plant-7-cloud")
        expected.credentials = CredentialSettings(
            userName: "plant-7", password: .file("/etc/tidegate/cloud.password"))
        // What has no default is an example, and everything else must be one.
        let shown = try #require(read.uplinks.first)
        expected.security = shown.security
        expected.proxy = shown.proxy
        expected.status = StatusSettings(topic: Array("site/plant-7/status".utf8))
        expected.provenance = shown.provenance
        expected.drain = UplinkRoutes.Drain(messagesPerSecond: 500, bytesPerSecond: 64 << 10)
        expected.routes = shown.routes
        #expect(read.uplinks == [expected])
        #expect(shown.security?.files.count == 3 && shown.proxy?.userName == "user")
        #expect(shown.routes.map(\.direction) == [.out, .in, .out, .in, .out, .out])
        #expect(shown.routes.map(\.priority) == [.normal, .normal, .normal, .normal, .high, .normal])
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
        var secure = ListenerSettings(.tcp(host: "0.0.0.0", port: 8883))
        var security = ListenerSecuritySettings(
            certificateFile: "/etc/tidegate/gateway.pem", keyFile: "/etc/tidegate/gateway.key")
        security.clientAuthorityFile = "/etc/tidegate/devices.pem"
        security.requiresCertificate = true
        secure.security = security
        #expect(read.listeners == [open, secure, web, unix])
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

    @Test(
        "What a route excepts must be part of it",
        arguments: [
            ("a/#", "a/b", true), ("a/#", "a", true), ("a/#", "+", true), ("a/#", "b/#", false),
            ("+/x", "a/+", true), ("+/x", "a/y", false), ("a/b", "a/b/#", true), ("a/b", "a/b/c", false),
            ("#", "x", true), ("a/+/c", "a/b/c/d", false),
        ])
    func overlaps(a: String, b: String, do: Bool) throws {
        let (a, b) = try (#require(TopicFilter(a)), #require(TopicFilter(b)))
        #expect(a.overlaps(b) == `do` && b.overlaps(a) == `do`)
    }

    @Test("A route both ways without `to` carries the same names each way")
    func bothPlain() throws {
        let routes = try uplink("routes: [ { both: \"a/#\", except: [ \"a/x\" ] } ]").routes
        #expect(routes.map(\.direction) == [.out, .in])
        #expect(routes.map(\.rename) == [nil, nil])
        #expect(routes[0].except == routes[1].except && routes[0].except.count == 1)
    }

    @Test("Seven further queues are as many as an uplink has")
    func lanes() throws {
        let lines = (1...7).map { "{ out: \"r\($0)\", queue: { messages: 5 } }" } + ["{ out: s }"]
        #expect(try uplink("routes: [ \(lines.joined(separator: ", ")) ]").routes.count == 8)
    }

    @Test("The same topic on both sides is no rename")
    func same() throws {
        #expect(try route("out: \"a/#\", to: \"a/#\"").rename == nil)
    }
}
