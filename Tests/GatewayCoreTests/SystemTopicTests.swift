import MQTT
import Testing

@testable import GatewayCore

/// The `$SYS/broker/…` tree. Not tested here: `bytes/…` as sockets count them (the transport's part).
@Suite("4.7.2 Topics beginning with $: the $SYS tree")
struct SystemTopicTests {
    private static var plan: GatewayPlan {
        var plan = GatewayPlan()
        plan.systemTopicsMilliseconds = 10_000
        plan.version = "tidegate version 7"
        return plan
    }

    @Test("A new subscription gets the whole tree at QoS 0 with RETAIN 1, behind SUBACK, and no Record of it")
    func subscribing() {
        var s = Scenario.connected("board", plan: Self.plan)
        let before = s.journal.count
        s.sends("board", .subscribe("$SYS/#", qos: .exactlyOnce, identifier: 5))
        #expect(s.received("board") == [])
        s.syncs()
        let packets = s.received("board")
        #expect(packets.first.map { if case .suback = $0 { true } else { false } } == true)
        let tree = packets.publishes
        #expect(tree.allSatisfy { $0.retain && $0.qos == .atMostOnce && $0.subscriptionIdentifiers == [5] })
        #expect(Self.value(of: "version", in: tree) == "tidegate version 7")
        #expect(Self.value(of: "uptime", in: tree) == "0 seconds")
        #expect(Self.value(of: "clients/connected", in: tree) == "1")
        #expect(Self.value(of: "subscriptions/count", in: tree) == "1")
        #expect(Self.value(of: "load/connections/15min", in: tree) == "0.00")
        #expect(Set(tree.map(\.topic)).count == tree.count)
        #expect(s.journal.count == before + 1)
    }

    @Test("The names are those Mosquitto's users read")
    func names() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.subscribes("board", "$SYS/#")
        let names = Set(
            s.received("board").publishes.map { String($0.topic.dropFirst("$SYS/broker/".count)) })
        let loads = [
            "messages/received", "messages/sent", "publish/received", "publish/sent", "publish/dropped",
            "bytes/received", "bytes/sent", "sockets", "connections",
        ].flatMap { name in ["1min", "5min", "15min"].map { "load/\(name)/\($0)" } }
        #expect(
            names
                == Set(
                    loads + [
                        "version", "uptime", "clients/total", "clients/connected", "clients/active",
                        "clients/disconnected", "clients/inactive", "clients/maximum", "clients/expired",
                        "messages/received", "messages/sent", "messages/stored", "store/messages/count",
                        "publish/messages/received", "publish/messages/sent", "publish/messages/dropped",
                        "publish/bytes/received", "publish/bytes/sent", "bytes/received", "bytes/sent",
                        "subscriptions/count", "shared_subscriptions/count", "retained messages/count",
                    ]))
    }

    @Test("Each interval tells what has changed, with RETAIN 0, and nothing else")
    func changes() {
        var s = Scenario.connected("board", "press", plan: Self.plan)
        s.subscribes("board", "$SYS/broker/publish/#")
        s.subscribes("board", "$SYS/broker/version")
        s.subscribes("board", "$SYS/broker/load/publish/received/1min")
        _ = s.received("board")
        s.sends("press", .publish(.text("t", "12345")))
        s.passes(milliseconds: 10_000)
        let told = s.received("board").publishes
        #expect(told.allSatisfy { !$0.retain && $0.qos == .atMostOnce })
        #expect(Self.value(of: "publish/messages/received", in: told) == "1")
        #expect(Self.value(of: "publish/bytes/received", in: told) == "5")
        // One in ten seconds is 6 a minute, of which a tenth of the last minute's weight counts so far.
        #expect(Self.value(of: "load/publish/received/1min", in: told) == "0.92")
        #expect(Self.value(of: "version", in: told) == nil)
    }

    @Test("Retain As Published keeps RETAIN 1 on what has changed")
    func retainAsPublished() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.sends("board", .subscribe("$SYS/broker/uptime", retainAsPublished: true))
        s.syncs()
        _ = s.received("board")
        s.passes(milliseconds: 20_000)
        let told = s.received("board").publishes
        #expect(told.map(\.text) == ["10 seconds", "20 seconds"])
        #expect(told.allSatisfy { $0.retain })
    }

    @Test("Without a subscription nothing is told; without an interval there is no tree")
    func silence() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.subscribes("board", "#")
        s.passes(milliseconds: 60_000)
        #expect(s.received("board") == [])

        var none = Scenario.connected("board")
        none.subscribes("board", "$SYS/#")
        none.passes(milliseconds: 60_000)
        #expect(none.received("board") == [])
    }

    @Test("Who is away misses it: a persistent Session gets none of it afterwards")
    func away() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.subscribes("board", "$SYS/#")
        s.vanishes("board")
        s.passes(milliseconds: 30_000)
        s.connects("board")
        #expect(s.drains("board") == [])
    }

    @Test("Clients, Sessions, subscriptions, retained and waiting messages are counted")
    func census() {
        var s = Scenario.connected("board", "press", "lamp", plan: Self.plan)
        s.subscribes("lamp", "t/#")
        s.vanishes("lamp")
        s.sends("press", .publish(.text("t/1", qos: .atLeastOnce, id: 1, retain: true)))
        s.sends("press", .publish(.text("t/2", qos: .atLeastOnce, id: 2)))
        s.syncs()
        s.connects("short", expiry: 1)
        s.vanishes("short")
        s.passes(milliseconds: 2000)
        s.subscribes("board", "$SYS/#")
        let tree = s.received("board").publishes
        #expect(Self.value(of: "clients/total", in: tree) == "3")
        #expect(Self.value(of: "clients/connected", in: tree) == "2")
        #expect(Self.value(of: "clients/disconnected", in: tree) == "1")
        #expect(Self.value(of: "clients/maximum", in: tree) == "3")
        #expect(Self.value(of: "clients/expired", in: tree) == "1")
        #expect(Self.value(of: "subscriptions/count", in: tree) == "2")
        #expect(Self.value(of: "retained messages/count", in: tree) == "1")
        #expect(Self.value(of: "store/messages/count", in: tree) == "3")
        // Four CONNECT, two SUBSCRIBE, two PUBLISH; four CONNACK, one SUBACK (the second was not sent yet), two PUBACK.
        #expect(Self.value(of: "messages/received", in: tree) == "8")
        #expect(Self.value(of: "messages/sent", in: tree) == "7")
    }

    @Test("Taken over, refused and unfinished connections leave the count of clients right")
    func connectedCount() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.connects("board")
        s.opens("bad", Connect(clientIdentifier: "bad", authenticationMethod: "SCRAM"))
        s.vanishes("bad")
        s.handle(.opened(ConnectionID(90), listener: 0))
        s.passes(milliseconds: 11_000)
        s.handle(.closed(ConnectionID(90)))
        s.subscribes("board", "$SYS/broker/clients/connected")
        #expect(s.texts("board") == ["1"])
    }

    @Test("The transport's totals are told, and their averages")
    func bytes() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.handle(.traffic(bytesReceived: 600, bytesSent: 1200))
        s.subscribes("board", "$SYS/broker/bytes/#")
        s.subscribes("board", "$SYS/broker/load/bytes/received/1min")
        #expect(s.texts("board") == ["600", "1200", "0.00"])
        s.passes(milliseconds: 600_000)
        s.handle(.traffic(bytesReceived: 1600, bytesSent: 1200))
        _ = s.received("board")
        s.passes(milliseconds: 10_000)
        #expect(Set(s.texts("board")) == ["1600", "921.13"])
    }

    @Test(
        "e to the power of -x is right",
        arguments: [
            (0.0, 1.0), (0.2, 0.8187307530779818), (1, 0.36787944117144233), (10, 4.5399929762484854e-05),
            (100, 0),
        ])
    func exponential(x: Double, expected: Double) {
        #expect(abs(LoadAverage.Decay.exponential(x) - expected) < 1e-12)
    }

    // MARK: Publishing there

    @Test("PUBLISH under $SYS: MQTT 5 is told 0x87", arguments: ["$SYS", "$SYS/broker/version"])
    func notAuthorized(topic: String) {
        var s = Scenario.connected("board", "liar", plan: Self.plan)
        s.subscribes("board", "$SYS/#")
        _ = s.received("board")
        s.sends("liar", .publish(.text(topic, "lie", qos: .atLeastOnce, id: 1, retain: true)))
        s.sends("liar", .publish(.text(topic, "lie", qos: .exactlyOnce, id: 2)))
        s.sends("liar", .publish(.text(topic, "lie")))
        s.syncs()
        let reasons = s.received("liar").compactMap { packet -> ReasonCode? in
            switch packet {
            case .puback(let answer), .pubrec(let answer): answer.reason
            default: nil
            }
        }
        #expect(reasons == [.notAuthorized, .notAuthorized])
        #expect(s.received("board") == [])
        #expect(s.gateway.state.retained.count == 0)
    }

    @Test("PUBLISH under $SYS: a 3.1.1 client is answered, and nothing comes of it")
    func ignoredBefore5() {
        var s = Scenario.connected("board", plan: Self.plan)
        s.connects("liar", version: .v3_1_1)
        s.subscribes("board", "$SYS/#")
        _ = s.received("board")
        s.sends("liar", .publish(.text("$SYS/x", "lie", qos: .atLeastOnce, id: 1, retain: true)))
        s.sends("liar", .publish(.text("$SYS/x", "lie", qos: .exactlyOnce, id: 2, retain: true)))
        s.syncs()
        s.sends("liar", .pubrel(Acknowledgement(2)))
        s.syncs()
        #expect(
            s.received("liar") == [
                .puback(Acknowledgement(1)), .pubrec(Acknowledgement(2)), .pubcomp(Acknowledgement(2)),
            ])
        #expect(s.received("board") == [])
        #expect(s.gateway.state.retained.count == 0)
    }

    @Test("A topic that only begins like $SYS is anybody's")
    func lookAlike() {
        var s = Scenario.connected("board", "press", plan: Self.plan)
        s.subscribes("board", "$SYSTEM/#")
        s.sends("press", .publish(.text("$SYSTEM/x")))
        #expect(s.texts("board") == ["x"])
    }

    @Test(
        "A bridge says under $SYS whether it is connected: its Will is taken, its state kept and passed on",
        arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func stateOfBridge(version: ProtocolVersion) {
        let topic = "$SYS/broker/connection/hall/state"
        var s = Scenario.connected("board", plan: Self.plan)
        s.subscribes("board", "$SYS/broker/connection/+/state")
        s.connects("hall", version: version, will: .text(topic, "0", retain: true))
        s.sends("hall", .publish(.text(topic, "1", qos: .atLeastOnce, id: 1, retain: true)))
        s.syncs()
        #expect(s.received("hall") == [.puback(Acknowledgement(1))])
        #expect(s.drains("board").map(\.text) == ["1"])
        s.vanishes("hall")
        #expect(s.drains("board").map(\.text) == ["0"])
        s.connects("late")
        s.subscribes("late", "$SYS/broker/connection/#")
        #expect(s.texts("late") == ["0"])
    }

    @Test(
        "What only resembles a bridge's state is the gateway's alone",
        arguments: ["", "state", "/state", "hall", "hall/state/x", "hall/x/state", "hallstate"])
    func notStateOfBridge(rest: String) {
        let topic = "$SYS/broker/connection/" + rest
        var s = Scenario(plan: Self.plan)
        s.opens("liar", Connect(clientIdentifier: "liar", will: .text(topic)))
        #expect(s.received("liar").connack?.reason == .notAuthorized)
    }

    @Test("A Will under $SYS is refused with CONNECT")
    func will() {
        var s = Scenario(plan: Self.plan)
        s.opens("liar", Connect(clientIdentifier: "liar", will: .text("$SYS/x")))
        #expect(s.received("liar").connack?.reason == .notAuthorized)
    }

    // MARK: Uplinks

    private static func withUplink(out: String, in inbound: String = "cmd/#") throws -> GatewayPlan {
        var plan = plan
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud",
                out: [
                    .init(filter: try #require(TopicFilter(out)), rename: nil, maximumQoS: .exactlyOnce)
                ],
                in: [
                    .init(
                        filter: try #require(TopicFilter(inbound)),
                        rename: TopicRename(dropping: 4, prepending: Array("$SYS/".utf8)),
                        maximumQoS: .exactlyOnce)
                ])
        ]
        return plan
    }

    @Test("An uplink carries the tree only on a route that begins with $SYS", arguments: ["#", "$SYS/#"])
    func uplink(filter: String) throws {
        var s = Scenario(plan: try Self.withUplink(out: filter))
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.passes(milliseconds: 10_000)
        #expect(s.cloudReceived().publishes.isEmpty == (filter == "#"))
    }

    @Test("What a cloud publishes under $SYS is acknowledged and goes nowhere")
    func fromTheCloud() throws {
        var s = Scenario(plan: try Self.withUplink(out: "up/#"))
        s.connects("board")
        s.subscribes("board", "$SYS/#")
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        // Of the uplink's own state.
        _ = s.received("board")
        s.cloudSends(0, .publish(.text("cmd/lie", "lie", qos: .atLeastOnce, id: 3, retain: true)))
        s.syncs()
        #expect(s.cloudReceived().contains { if case .puback(let p) = $0 { p.id == 3 } else { false } })
        #expect(s.received("board") == [])
        #expect(s.gateway.state.retained.count == 0)
    }

    private static func value(of name: String, in tree: [Publish]) -> String? {
        tree.first { $0.topic == "$SYS/broker/\(name)" }?.text
    }
}
