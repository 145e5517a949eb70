import MQTT
import Testing

@testable import GatewayCore

/// What the cloud is told about a message beside the message, and what comes back of it.
@Suite("Provenance and loops")
struct ProvenanceTests {
    private static func plan(
        _ provenance: UplinkRoutes.Provenance? = .init(gateway: "plant-7"), uplinks: Int = 1
    ) -> GatewayPlan {
        guard let all = TopicFilter("sensors/#"), let commands = TopicFilter("commands/#") else {
            preconditionFailure("Topic Filters")
        }
        var plan = GatewayPlan()
        plan.gateway = "plant-7"
        plan.uplinks = (0..<uplinks).map { n in
            var uplink = UplinkRoutes(
                name: n == 0 ? "cloud" : "cloud-\(n)",
                out: [.init(filter: all, rename: nil, maximumQoS: .exactlyOnce)],
                in: [
                    .init(filter: commands, rename: nil, maximumQoS: .exactlyOnce),
                    .init(filter: all, rename: nil, maximumQoS: .exactlyOnce),
                ])
            uplink.provenance = provenance
            return uplink
        }
        return plan
    }

    private static func established(
        _ plan: GatewayPlan = plan(), _ terms: UplinkTerms = .init(version: .v5_0, sessionPresent: false)
    ) -> Scenario {
        var s = Scenario.connected("press", plan: plan)
        for uplink in plan.uplinks.indices { s.cloudConnects(terms, on: uplink) }
        s.syncs()
        _ = s.cloudReceived()
        return s
    }

    private static func properties(_ publish: Publish?) -> [String: String] {
        var found: [String: String] = [:]
        for property in ForwardedProperties(publish?.message.properties ?? []).userProperties {
            found[property.name] = property.value
        }
        return found
    }

    // MARK: User Properties

    @Test(
        "a moment is written as RFC 3339 has it",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (1_709_210_096_007, "2024-02-29T12:34:56.007Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"), (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
        ] as [(Int64, String)])
    func moments(_ milliseconds: Int64, _ text: String) { #expect(UTC.text(milliseconds) == text) }

    @Test("gateway, sequence number and time go with each message; a resend says the same")
    func stamps() {
        var s = Self.established()
        s.handle(.wallClock(milliseconds: 1_767_225_600_000))
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("sensors/a", "2", qos: .exactlyOnce, id: 2)))
        s.syncs()
        let first = s.cloudReceived().publishes
        #expect(Self.properties(first.first)["gateway"] == "plant-7")
        #expect(first.map { Self.properties($0)["seq"] } == ["0", "1"])
        #expect(Self.properties(first.first)["received-at"] == "2026-01-01T00:00:00.000Z")
        s.passes(milliseconds: 5000)
        s.cloudVanishes()
        s.handle(.wallClock(milliseconds: 1_767_225_605_000))
        s.cloudConnects(sessionPresent: true)
        let again = s.cloudReceived().publishes
        #expect(again.map(\.duplicate) == [true, true])
        #expect(again.map { Self.properties($0) } == first.map { Self.properties($0) })
    }

    @Test("time off that is proven counts; as long as the wall clock is not believed nothing is said")
    func timeOff() {
        var s = Self.established()
        s.cloudVanishes()
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        s.syncs()
        s.passes(milliseconds: 1000)
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        let unproven = s.cloudReceived().publishes.first
        #expect(Self.properties(unproven)["received-at"] == nil && Self.properties(unproven)["seq"] == "0")
        s.cloudVanishes()
        s.learns(offFor: 3_600_000)
        s.handle(.wallClock(milliseconds: 1_767_225_600_000 + 3_601_000))
        s.cloudConnects(sessionPresent: true)
        let proven = s.cloudReceived().publishes.first
        #expect(Self.properties(proven)["received-at"] == "2026-01-01T00:00:00.000Z")
        s.handle(.wallClock(milliseconds: nil))
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        #expect(Self.properties(s.cloudReceived().publishes.first)["received-at"] == nil)
    }

    @Test("a dead letter that is sent again still says when the message came")
    func deadLetter() {
        var s = Self.established()
        s.handle(.wallClock(milliseconds: 1_767_225_600_000))
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        s.syncs()
        let id = s.cloudReceived().publishes.first?.id ?? 1
        s.cloudSends(0, .puback(Acknowledgement(id, .quotaExceeded)))
        s.syncs()
        s.losesPower()
        s.learns(offFor: 60_000)
        s.passes(milliseconds: 5000)
        s.handle(.wallClock(milliseconds: 1_767_225_665_000))
        s.cloudConnects(sessionPresent: true)
        #expect(s.replays() == 1)
        let sent = s.cloudReceived().publishes.first
        #expect(Self.properties(sent)["received-at"] == "2026-01-01T00:00:00.000Z")
        #expect(Self.properties(sent)["seq"] == "1")
    }

    @Test("QoS 0 has no number, MQTT 3.1.1 no room, and what the publisher said stays in front")
    func lessOften() {
        var s = Self.established()
        s.handle(.wallClock(milliseconds: 1_767_225_600_000))
        let said = ForwardedProperties(userProperties: [UserProperty("unit", "bar")])
        s.sends(
            "press",
            .publish(
                Publish(
                    message: ApplicationMessage(
                        topic: Array("sensors/a".utf8), properties: said.bytes, payload: [1]))))
        let sent = s.cloudReceived().publishes.first
        let names = ForwardedProperties(sent?.message.properties ?? []).userProperties.map(\.name)
        #expect(names == ["unit", "gateway", "received-at"])

        var old = Self.established(Self.plan(), .init(version: .v3_1_1, sessionPresent: false))
        old.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        #expect(old.cloudReceived().publishes.first?.message.properties.isEmpty == true)
    }

    @Test("a message that fits only without its provenance goes without")
    func tight() {
        var s = Self.established(
            Self.plan(), .init(version: .v5_0, sessionPresent: false, maximumPacketSize: 40))
        s.sends("press", .publish(.text("sensors/a", "123", qos: .atLeastOnce, id: 1)))
        #expect(s.cloudReceived().publishes.map { Self.properties($0).isEmpty } == [true])
    }

    // MARK: Loops

    @Test("what says that this gateway sent it is answered, counted and goes no further, from whatever cloud")
    func ownGateway() {
        var s = Self.established(Self.plan(uplinks: 2))
        s.subscribes("press", "sensors/#")
        let own = ForwardedProperties(userProperties: [UserProperty("gateway", "plant-7")]).bytes
        let others = ForwardedProperties(userProperties: [UserProperty("gateway", "plant-8")]).bytes
        for (id, properties) in [(1, own), (2, others)] as [(UInt16, [UInt8])] {
            s.cloudSends(
                1,
                .publish(
                    Publish(
                        message: ApplicationMessage(
                            topic: Array("sensors/a".utf8), properties: properties, payload: [UInt8(id)]),
                        qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))))
        }
        s.syncs()
        #expect(s.received("press").publishes.map { Array($0.message.payload) } == [[2]])
        #expect(s.cloudReceived(0).publishes.map { Array($0.message.payload) } == [[2]])
        let answers = s.cloudReceived(1)
        #expect(answers.count == 2 && answers.publishes.isEmpty)
        #expect(s.observations.contains(.dropped(owner: .uplink(name: "cloud-1"), .loop, count: 1)))
    }

    @Test(
        "of a cloud that sends back what it is sent each echo is swallowed once; the same again is another's")
    func echoes() {
        var s = Self.established(
            Self.plan(nil), .init(version: .v3_1_1, sessionPresent: false, returnsOwnMessages: true))
        s.subscribes("press", "sensors/#")
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("sensors/b", "1", qos: .atMostOnce)))
        s.syncs()
        #expect(s.cloudReceived().publishes.count == 2)
        _ = s.drains("press")
        let echo = Publish.text("sensors/a", "1", qos: .exactlyOnce, id: 9)
        s.cloudSends(0, .publish(echo))
        s.cloudSends(0, .publish(echo))
        s.cloudSends(0, .pubrel(Acknowledgement(9)))
        s.cloudSends(0, .publish(.text("sensors/b", "1")))
        s.syncs()
        #expect(s.received("press").publishes == [])
        s.cloudSends(0, .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 10)))
        s.cloudSends(0, .publish(.text("sensors/b", "2")))
        s.syncs()
        #expect(s.received("press").publishes.map(\.topic) == ["sensors/a", "sensors/b"])
        #expect(
            s.observations.filter { $0 == .dropped(owner: .uplink(name: "cloud"), .loop, count: 1) }.count
                == 2)
    }

    @Test("what is sent again comes back once, so that another's like it is not taken for an echo")
    func echoOfResend() {
        let terms = UplinkTerms(version: .v3_1_1, sessionPresent: false, returnsOwnMessages: true)
        var s = Self.established(Self.plan(nil), terms)
        s.subscribes("press", "sensors/#")
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atLeastOnce, id: 1)))
        s.syncs()
        _ = s.drains("press")
        s.cloudVanishes()
        s.cloudConnects(.init(version: .v3_1_1, sessionPresent: true, returnsOwnMessages: true))
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.duplicate) == [false, true])
        s.cloudSends(0, .publish(.text("sensors/a", "1")))
        s.syncs()
        #expect(s.received("press").publishes == [])
        s.cloudSends(0, .publish(.text("sensors/a", "1")))
        s.syncs()
        #expect(s.received("press").publishes.map(\.topic) == ["sensors/a"])
    }

    @Test("an echo is expected for a minute, and only of topics that come down")
    func echoesEnd() {
        var s = Self.established(
            Self.plan(nil), .init(version: .v3_1_1, sessionPresent: false, returnsOwnMessages: true))
        s.subscribes("press", "#")
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atMostOnce)))
        _ = s.drains("press")
        s.passes(milliseconds: 60_000)
        s.cloudSends(0, .publish(.text("sensors/a", "1")))
        #expect(s.received("press").publishes.count == 1)
    }

    @Test("a cloud that honours the bridge bit may send what looks the same")
    func noEchoes() {
        var s = Self.established(Self.plan(nil), .init(version: .v3_1_1, sessionPresent: false))
        s.subscribes("press", "sensors/#")
        s.sends("press", .publish(.text("sensors/a", "1", qos: .atMostOnce)))
        _ = s.drains("press")
        s.cloudSends(0, .publish(.text("sensors/a", "1")))
        #expect(s.received("press").publishes.count == 1)
    }

    // MARK: State

    @Test("the state of an uplink is told at once when it changes, and retained for who asks later")
    func state() {
        let topic = "$SYS/broker/connection/plant-7.cloud/state"
        var s = Scenario.connected("board", plan: Self.plan())
        s.subscribes("board", "$SYS/broker/connection/#")
        let asked = s.received("board").publishes
        #expect(asked.map(\.topic) == [topic] && asked.map(\.text) == ["0"] && asked.allSatisfy(\.retain))
        s.cloudConnects(sessionPresent: false)
        #expect(s.texts("board") == ["1"])
        s.cloudVanishes()
        #expect(s.texts("board") == ["0"])
        s.cloudConnects(sessionPresent: true)
        _ = s.received("board")
        s.connects("late")
        s.subscribes("late", topic)
        #expect(s.texts("late") == ["1"])
    }

    @Test("nobody else tells the state of an uplink; a bridge tells its own")
    func statesAreOurs() {
        var s = Scenario.connected("bridge", plan: Self.plan())
        for (n, name) in ["plant-7.cloud", "plant-8.cloud"].enumerated() {
            let id = PacketIdentifier(rawValue: UInt16(n + 1))
            s.sends(
                "bridge",
                .publish(
                    .text(
                        "$SYS/broker/connection/\(name)/state", "1", qos: .atLeastOnce, id: id, retain: true))
            )
        }
        s.syncs()
        #expect(
            s.received("bridge") == [
                .puback(Acknowledgement(1, .notAuthorized)),
                .puback(Acknowledgement(2, .noMatchingSubscribers)),
            ])
        s.subscribes("bridge", "$SYS/broker/connection/#")
        #expect(Set(s.texts("bridge")) == ["0", "1"])
    }
}
