import GatewayCore
import MQTT
import Testing

/// What foreign data can make grow, and what one start or one cut must not do: the bounds of `Limits` and the
/// traps they keep us from.
@Suite("Bounds")
struct BoundsTests {
    private static func uplinkPlan(out: [UplinkRoutes.Route] = [], in filter: String = "#") throws
        -> GatewayPlan
    {
        var plan = GatewayPlan()
        let route = UplinkRoutes.Route(
            filter: try #require(TopicFilter(filter)), rename: nil, maximumQoS: .exactlyOnce)
        plan.uplinks = [UplinkRoutes(name: "cloud", out: out, in: [route])]
        return plan
    }

    private static func large(_ n: Int, qos: QoS = .atLeastOnce, retain: Bool = false) -> Publish {
        Publish(
            message: ApplicationMessage(
                topic: Array("t/\(n)".utf8), payload: [UInt8](repeating: UInt8(n % 250), count: 100_000)),
            qos: qos, id: 7, retain: retain)
    }

    /// A client that comes back to large messages.
    private static func archive(owed count: Int) -> Scenario {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t/#", qos: .atLeastOnce)
        s.vanishes("archive")
        for n in 0..<count {
            s.sends("press", .publish(large(n)))
            s.syncs()
        }
        s.connects("archive")
        return s
    }

    @Test("A window of large messages leaves a round at a time, and all of it leaves")
    func roundsOfLargeMessages() {
        var s = Self.archive(owed: 50)
        var got = s.received("archive").publishes
        #expect(got.count <= 3, "128 KiB, and the message that crosses it")
        for _ in 0..<60 where got.count < 50 {
            s.passes(milliseconds: 1)
            let more = s.received("archive").publishes
            #expect(more.count <= 3)
            got += more
            for publish in more {
                if let id = publish.id { s.sends("archive", .puback(Acknowledgement(id))) }
            }
        }
        #expect(got.map { String(decoding: $0.message.topic, as: UTF8.self) } == (0..<50).map { "t/\($0)" })
    }

    @Test("[MQTT5-3.3.1-9] Retained messages at QoS 0 come a round at a time, after SUBACK, and all of them")
    func roundsOfRetained() throws {
        var s = Scenario.connected("press")
        for n in 0..<30 {
            s.sends("press", .publish(Self.large(n, retain: true)))
            s.syncs()
        }
        s.connects("panel")
        _ = s.received("panel")
        let request = SubscriptionRequest(filter: try #require(TopicFilter("t/#")), maximumQoS: .atMostOnce)
        s.sends("panel", .subscribe(Subscribe(id: 1, requests: [request])))
        #expect(s.received("panel") == [])
        s.syncs()
        let first = s.received("panel")
        #expect(first.first == .suback(Suback(id: 1, reasons: [.grantedQoS0])))
        var count = first.publishes.count
        #expect(count <= 3)
        for _ in 0..<40 {
            s.passes(milliseconds: 1)
            count += s.received("panel").publishes.count
        }
        #expect(count == 30)
    }

    @Test("A message read back from flash brings no more with it than memory has room for")
    func loadsByBytes() {
        let s = Self.archive(owed: 40)
        #expect(!s.loads.isEmpty)
        #expect(s.loads.allSatisfy { $0.1.count == 1 })
    }

    @Test("A cloud that forgot its session is subscribed to only when its old identifiers are durably void")
    func voidedBeforeSubscribe() throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan())
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.cloudSends(0, .publish(.text("a", "old", qos: .exactlyOnce, id: 7)))
        s.syncs()
        s.cloudVanishes()
        _ = s.uplinkControls()
        s.cloudConnects(sessionPresent: false)
        #expect(s.uplinkControls().isEmpty)
        s.syncs()
        let controls = s.uplinkControls()
        #expect(controls.count == 1)
        guard case .subscribe = controls.first else {
            Issue.record("not subscribed: \(controls)")
            return
        }
    }

    @Test("A retained message from the cloud deeper than our limit is passed on and not kept")
    func deepTopicFromCloud() throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan())
        s.subscribes("press", "#")
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        let deep = String(repeating: "/", count: 65_000)
        s.cloudSends(0, .publish(.text(deep, "deep", qos: .atLeastOnce, id: 7, retain: true)))
        s.syncs()
        #expect(s.received("press").publishes.map(\.text) == ["deep"])
        #expect(s.cloudReceived() == [.puback(Acknowledgement(7))])
        s.losesPower()
        #expect(s.gateway.state.retained.count == 0)
    }

    @Test("What no route asks for is answered, counted, and goes no further")
    func noRoute() throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan(in: "commands/#"))
        s.subscribes("press", "#")
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.cloudSends(0, .publish(.text("old/route", qos: .exactlyOnce, id: 7)))
        s.syncs()
        #expect(s.cloudReceived() == [.pubrec(Acknowledgement(7, .noMatchingSubscribers))])
        s.cloudSends(0, .pubrel(Acknowledgement(7)))
        s.syncs()
        #expect(s.cloudReceived() == [.pubcomp(Acknowledgement(7))])
        #expect(s.received("press") == [])
        #expect(s.observations.contains(.dropped(owner: .uplink(name: "cloud"), .noRoute, count: 1)))
    }

    @Test("What no route asks for is not retained, nor does it clear anything", arguments: ["new", ""])
    func noRouteNoRetained(text: String) throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan(in: "commands/#"))
        s.sends("press", .publish(.text("old/route", "mine", retain: true)))
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.cloudSends(0, .publish(.text("old/route", text, qos: .atLeastOnce, id: 7, retain: true)))
        s.cloudSends(0, .publish(.text("other", text, qos: .atLeastOnce, id: 8, retain: true)))
        s.syncs()
        s.subscribes("press", "#")
        #expect(s.texts("press") == ["mine"])
    }

    @Test(
        "A message from the cloud that is larger than we take is answered like any other, counted, and not kept",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce], [true, false])
    func tooLargeFromCloud(qos: QoS, waitsForRoom: Bool) throws {
        var s = Scenario.connected("press", plan: try Self.uplinkPlan())
        s.subscribes("press", "#")
        s.sends("press", .publish(.text("t", "kept", retain: true)))
        _ = s.received("press")
        s.cloudConnects(
            UplinkTerms(version: .v3_1_1, sessionPresent: false))
        s.syncs()
        if waitsForRoom { s.handle(.storage(.pressure(true))) }
        s.cloudSends(0, .publish(.text("t", "first", qos: .atLeastOnce, id: 6)))
        let id: PacketIdentifier? = qos == .atMostOnce ? nil : 7
        let large = Publish.text("t", "", qos: qos, id: id, retain: true)
        s.handle(.uplink(UplinkIndex(0), .receivedTooLarge(large)))
        if waitsForRoom {
            s.syncs()
            #expect(s.cloudReceived() == [])
            s.handle(.storage(.pressure(false)))
        }
        s.syncs()
        var answers: [Packet] = [.puback(Acknowledgement(6))]
        if qos == .atLeastOnce { answers.append(.puback(Acknowledgement(7))) }
        if qos == .exactlyOnce { answers.append(.pubrec(Acknowledgement(7))) }
        #expect(s.cloudReceived() == answers)
        if qos == .exactlyOnce {
            // Sent again it is known, and not counted again.
            s.handle(.uplink(UplinkIndex(0), .receivedTooLarge(large)))
            s.cloudSends(0, .pubrel(Acknowledgement(7)))
            s.syncs()
            #expect(s.cloudReceived() == [.pubrec(Acknowledgement(7)), .pubcomp(Acknowledgement(7))])
        }
        #expect(s.texts("press") == ["first"])
        let dropped = Observation.dropped(owner: .uplink(name: "cloud"), .largerThanTaken, count: 1)
        #expect(s.observations.filter { $0 == dropped }.count == 1)
        s.connects("board")
        s.subscribes("board", "t")
        #expect(s.texts("board") == ["kept"])
    }

    @Test("A Will that falls due at a start goes up as well")
    func willAtStartReachesUplink() throws {
        let route = UplinkRoutes.Route(
            filter: try #require(TopicFilter("wills/#")), rename: nil, maximumQoS: .exactlyOnce)
        var s = Scenario(plan: try Self.uplinkPlan(out: [route]))
        let will = Will(
            message: ApplicationMessage(topic: Array("wills/press".utf8), payload: [1]), qos: .atLeastOnce,
            retain: false, delaySeconds: 60)
        s.connects("press", will: will)
        s.vanishes("press")
        s.syncs()
        s.skipsTime(milliseconds: 120_000)
        s.losesPower()
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.passes(milliseconds: 30_000)
        s.syncs()
        #expect(s.cloudReceived().publishes.map { Array($0.message.topic) } == [Array("wills/press".utf8)])
    }

    @Test("[MQTT5-3.2.2-6] More Sessions than the limit are refused, each version in its words")
    func sessionLimit() {
        var plan = GatewayPlan()
        plan.limits.sessionsMax = 2
        var s = Scenario.connected("one", "two", plan: plan)
        s.opens("three", Connect(clientIdentifier: "three", cleanStart: false, sessionExpirySeconds: 60))
        #expect(s.received("three").map(\.connackReason) == [.quotaExceeded])
        s.opens("four", Connect(version: .v3_1_1, clientIdentifier: "four", cleanStart: false))
        #expect(s.received("four").map(\.connackReason) == [.serverUnavailable])
        // Who leaves no trace, and who is known, may come.
        s.connects("five", cleanStart: true, expiry: 0)
        s.vanishes("two")
        s.connects("two")
    }

    @Test("[MQTT5-3.3.1-5] Retained messages beyond the limit are refused at QoS 1, and not kept at QoS 0")
    func retainedLimit() {
        var plan = GatewayPlan()
        plan.limits.retainedBytesMax = 25
        var s = Scenario.connected("press", plan: plan)
        s.sends("press", .publish(.text("a", "1234567890", qos: .atLeastOnce, id: 1, retain: true)))
        s.sends("press", .publish(.text("b", "1234567890", qos: .atLeastOnce, id: 2, retain: true)))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .publish(.text("c", "1234567890", qos: .atLeastOnce, id: 3, retain: true)))
        #expect(s.received("press").map(\.pubackReason) == [.quotaExceeded])
        s.sends("press", .publish(.text("c", "1234567890", retain: true)))
        #expect(s.gateway.state.retained.count == 2)
        // What is there may be replaced and removed.
        s.sends("press", .publish(.text("a", "0987654321", qos: .atLeastOnce, id: 4, retain: true)))
        s.sends("press", .publish(.text("b", "", qos: .atLeastOnce, id: 5, retain: true)))
        s.syncs()
        #expect(s.received("press").allSatisfy { $0.pubackReason?.isError == false })
        #expect(s.gateway.state.retained.count == 1)
    }
}

extension Packet {
    fileprivate var connackReason: ReasonCode? {
        if case .connack(let connack) = self { connack.reason } else { nil }
    }

    fileprivate var pubackReason: ReasonCode? {
        if case .puback(let puback) = self { puback.reason } else { nil }
    }
}
