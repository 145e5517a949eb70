import MQTT
import Testing

@testable import GatewayCore

/// What may go unwritten: rules E1 to E7 of the journal's design, as far as the core decides them, each with the power
/// cut on either side of what it promises. How long the journal waits (E4) and when it stops waiting (E6) is tested
/// with the journal.
@Suite("Messages that are never written")
struct ElisionRuleTests {
    /// A publisher, and a persistent subscriber of "t" that is here.
    private static func here() -> Scenario {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t", qos: .exactlyOnce)
        return s
    }

    private static func publish(
        _ s: inout Scenario, _ text: String = "x", id: PacketIdentifier, topic: String = "t",
        qos: QoS = .atLeastOnce, retain: Bool = false, duplicate: Bool = false
    ) {
        s.sends(
            "press", .publish(.text(topic, text, qos: qos, id: id, retain: retain, duplicate: duplicate)))
    }

    /// "client" acknowledges everything that came; returns what that was.
    @discardableResult
    private static func acknowledges(_ s: inout Scenario, _ client: String) -> [Publish] {
        let publishes = s.received(client).publishes
        for publish in publishes { if let id = publish.id { s.sends(client, .puback(Acknowledgement(id))) } }
        return publishes
    }

    // MARK: E1

    @Test("E1 A retained message has one more receiver, which has it only once it is durable")
    func e1Retained() {
        var s = Self.here()
        Self.publish(&s, id: 7, retain: true)
        #expect(s.lastMessageUrgency == .message)
        Self.acknowledges(&s, "archive")
        #expect(s.elided.isEmpty && s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        s.losesPower()
        s.connects("new")
        s.sends("new", .subscribe("t", qos: .atMostOnce))
        s.syncs()
        #expect(s.texts("new") == ["x"])
    }

    @Test("E1 A Will is published and cleared in one Record, which is written")
    func e1Will() {
        var s = Scenario.connected("archive")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.connects("press", will: .text("t", qos: .atLeastOnce))
        s.vanishes("press")
        guard case .message(let record)? = s.journal.last else {
            Issue.record("the Will is the last Record")
            return
        }
        #expect(record.willOf != nil && s.lastMessageUrgency == .message)
        Self.acknowledges(&s, "archive")
        #expect(s.elided.isEmpty)
        s.syncs()
        s.losesPower()
        s.passes(milliseconds: 60_000)
        s.connects("archive")
        s.syncs()
        #expect(s.texts("archive").count <= 1, "it is not published a second time")
    }

    // MARK: E2

    @Test("E2 Who leaves no trace, or gets QoS 0, is owed nothing that would have to be written")
    func e2NoObligation() {
        var s = Self.here()
        s.connects("screen", expiry: 0)
        s.subscribes("screen", "t", qos: .atLeastOnce)
        s.connects("lamp")
        s.subscribes("lamp", "t", qos: .atMostOnce)
        Self.publish(&s, id: 7)
        #expect(s.lastMessageUrgency == .elidable)
        Self.acknowledges(&s, "archive")
        #expect(s.elided.count == 1)
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
    }

    @Test("E2 What a Session that keeps nothing acknowledges, nobody else has because of that")
    func e2VolatileDoesNotCount() {
        var s = Self.here()
        s.connects("screen", expiry: 0)
        s.subscribes("screen", "t", qos: .atLeastOnce)
        Self.publish(&s, id: 7)
        #expect(s.lastMessageUrgency == .elidable)
        Self.acknowledges(&s, "screen")
        #expect(s.elided.isEmpty && s.received("press") == [], "the archive does not have it yet")
        Self.acknowledges(&s, "archive")
        #expect(s.elided.count == 1)
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
    }

    @Test(
        "E2 E5 Who is away, or a group, has it only once it is durable, and nothing lingers", arguments: 0..<2
    )
    func e2Absent(which: Int) {
        var s = Self.here()
        s.connects("other")
        s.subscribes("other", which == 0 ? "t" : "$share/g/t", qos: .atLeastOnce)
        if which == 0 { s.vanishes("other") }
        s.syncs()
        Self.publish(&s, id: 7)
        #expect(s.lastMessageUrgency == .message)
        Self.acknowledges(&s, "archive")
        if which == 1 { Self.acknowledges(&s, "other") }
        #expect(s.elided.isEmpty && s.received("press") == [])
        s.losesPower()
        s.connects("press")
        Self.publish(&s, id: 7, duplicate: true)
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        s.losesPower()
        s.connects("other")
        if which == 0 {
            #expect(s.texts("other") == ["x"])
        } else {
            #expect(s.texts("other") == ["x"], "the group still has it")
        }
    }

    @Test("E2 What waits behind a full window has to be durable")
    func e2Window() {
        var s = Scenario.connected("press")
        s.connects("archive", receiveMaximum: 1)
        s.subscribes("archive", "t", qos: .atLeastOnce)
        Self.publish(&s, "a", id: 1)
        #expect(s.lastMessageUrgency == .elidable)
        Self.publish(&s, "b", id: 2)
        #expect(s.lastMessageUrgency == .message)
        #expect(s.texts("archive") == ["a"])
    }

    @Test("E2 The targets are those at its arrival: who subscribes later changes nothing")
    func e2Frozen() {
        var s = Self.here()
        Self.publish(&s, id: 7)
        s.connects("late")
        s.sends("late", .subscribe("t", qos: .atLeastOnce))
        s.elides = true
        Self.acknowledges(&s, "archive")
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
    }

    @Test("E2 A cloud that takes no more than QoS 0 never says that it has a message")
    func e2CloudAtMostOnce() throws {
        var plan = GatewayPlan()
        let filter = try #require(TopicFilter("t"))
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud", out: [.init(filter: filter, rename: nil, maximumQoS: .atLeastOnce)], in: [])
        ]
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(
            UplinkTerms(version: .v5_0, sessionPresent: false, receiveMaximum: 9, maximumQoS: .atMostOnce))
        s.syncs()
        Self.publish(&s, id: 7)
        #expect(s.lastMessageUrgency == .message)
        #expect(s.elided.isEmpty && s.received("press") == [])
    }

    // MARK: E3

    @Test("E3 A1 When the last receiver has it first, it is not written, nor is anything about it")
    func e3() {
        var s = Self.here()
        s.connects("ledger")
        s.subscribes("ledger", "t", qos: .atLeastOnce)
        let before = s.journal.count
        Self.publish(&s, id: 7)
        #expect(s.lastMessageUrgency == .elidable)
        Self.acknowledges(&s, "ledger")
        #expect(s.received("press") == [], "one of two has it")
        Self.acknowledges(&s, "archive")
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        #expect(s.elided == [UInt64(before + 1)])
        s.passes(milliseconds: 5000)
        #expect(s.journal.count == before + 1, "no acknowledgement Record either")
        #expect(!s.gateway.state.owes(from: Position(1), through: Position(UInt64(s.journal.count))))
        s.losesPower()
        for client in ["archive", "ledger"] {
            s.connects(client)
            #expect(s.received(client) == [])
        }
    }

    @Test("E3 A power cut between a receiver's PUBACK and ours costs a legal duplicate, and no message")
    func e3CutBefore() {
        var s = Self.here()
        Self.publish(&s, id: 7)
        s.elides = false
        Self.acknowledges(&s, "archive")
        #expect(s.received("press") == [])
        s.losesPower()
        s.connects("archive")
        s.connects("press")
        Self.publish(&s, id: 7, duplicate: true)
        let again = Self.acknowledges(&s, "archive")
        #expect(again.map(\.text) == ["x"])
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
    }

    @Test("E3 One that is written all the same is promised when that is durable, and settled by Record")
    func e3TooLate() {
        var s = Self.here()
        Self.publish(&s, id: 7)
        s.elides = false
        Self.acknowledges(&s, "archive")
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        s.passes(milliseconds: 1000)
        s.syncs()
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == [])
    }

    @Test("E3 P5 Of what is written or elided no count is kept")
    func e3Forgets() {
        var s = Self.here()
        for id: PacketIdentifier in [1, 2, 3] { Self.publish(&s, id: id) }
        #expect(s.gateway.candidates.count == 3)
        s.syncs()
        #expect(s.gateway.candidates.count == 0)
        Self.publish(&s, id: 4)
        Self.acknowledges(&s, "archive")
        #expect(s.gateway.candidates.count == 0)
    }

    @Test("E3 [MQTT5-4.4.0-1] Elided and written messages keep their numbers through a power cut")
    func e3Numbers() {
        var s = Self.here()
        var sent: [Publish] = []
        for (n, text) in ["a", "b", "c", "d", "e", "f"].enumerated() {
            Self.publish(&s, text, id: PacketIdentifier(rawValue: UInt16(n + 1)) ?? 1)
            let got = s.received("archive").publishes
            if ["b", "d", "f"].contains(text) {
                // These are written before they are acknowledged, and the acknowledgement is lost.
                s.syncs()
                sent += got
            } else {
                for publish in got { s.sends("archive", .puback(Acknowledgement(publish.id ?? 1))) }
            }
        }
        #expect(sent.map(\.text) == ["b", "d", "f"] && s.elided.count == 3)
        for recovery in 0..<2 {
            if recovery == 0 { s.losesPower() } else { s.losesPowerAndRecoversFromCheckpoint() }
            s.connects("archive")
            let again = s.received("archive").publishes
            #expect(again.map(\.text) == ["b", "d", "f"])
            #expect(again.map(\.id) == sent.map(\.id))
            #expect(again.map(\.duplicate) == [true, true, true])
        }
        // A Record about them settles them and not others.
        for id in sent.compactMap(\.id) { s.sends("archive", .puback(Acknowledgement(id))) }
        s.passes(milliseconds: 1000)
        s.syncs()
        Self.reconnected(&s)
        Self.publish(&s, "g", id: 7)
        s.syncs()
        s.losesPower()
        s.connects("archive")
        #expect(s.texts("archive") == ["g"])
    }

    private static func reconnected(_ s: inout Scenario) {
        s.connects("press")
    }

    @Test("E3 A7 Identifiers go round without a Record while everything is elided")
    func e3Identifiers() {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 4
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t", qos: .exactlyOnce)
        let before = s.journal.count
        for n: UInt16 in 1...50 {
            Self.publish(&s, "\(n)", id: PacketIdentifier(rawValue: n) ?? 1)
            let got = Self.acknowledges(&s, "archive")
            #expect(got.map(\.text) == ["\(n)"])
        }
        #expect(s.received("press").count == 50)
        #expect(s.journal.count == before + 50 && s.elided.count == 50)
    }

    @Test("E3 A7 The identifier of a QoS 2 delivery stays its own, whatever is elided behind it")
    func e3ExactlyOnceIdentifier() {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 4
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t", qos: .exactlyOnce)
        Self.publish(&s, "twice never", id: 1, qos: .exactlyOnce)
        s.syncs()
        let first = s.received("archive").publishes
        _ = s.received("press")
        for n: UInt16 in 2...4 {
            Self.publish(&s, "\(n)", id: PacketIdentifier(rawValue: n) ?? 1)
            Self.acknowledges(&s, "archive")
        }
        #expect(s.elided.count == 3)
        // The next would be too far from the unfinished one.
        Self.publish(&s, "5", id: 5)
        #expect(s.lastMessageUrgency != .elidable)
        s.syncs()
        #expect(s.received("archive") == [])
        s.losesPower()
        s.connects("archive")
        let again = s.received("archive").publishes
        #expect(again.first?.id == first.first?.id && again.first?.duplicate == true)
    }

    // MARK: E4

    @Test("E4 When a receiver goes, what it has not acknowledged lingers no longer, and survives")
    func e4() {
        var s = Self.here()
        Self.publish(&s, "a", id: 1)
        Self.publish(&s, "b", id: 2)
        let newest = Position(UInt64(s.journal.count))
        #expect(s.hastened == .zero)
        s.vanishes("archive")
        #expect(s.hastened == newest)
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [1, 2].map { .puback(Acknowledgement($0)) })
        s.losesPower()
        s.connects("archive")
        #expect(s.texts("archive") == ["a", "b"])
    }

    @Test("E4 Before that is durable nothing was promised, and the publisher repeats it")
    func e4CutBefore() {
        var s = Self.here()
        Self.publish(&s, "a", id: 1)
        s.vanishes("archive")
        #expect(s.received("press") == [])
        s.losesPower()
        s.connects("press")
        Self.publish(&s, "a", id: 1, duplicate: true)
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        s.connects("archive")
        #expect(s.texts("archive") == ["a"])
    }

    @Test("E4 Also when its Session is taken over or discarded; not when it owed no answer")
    func e4Ends() {
        for cleanStart in [false, true] {
            var s = Self.here()
            Self.publish(&s, id: 1)
            let newest = Position(UInt64(s.journal.count))
            s.opens(
                "archive",
                Connect(clientIdentifier: "archive", cleanStart: cleanStart, sessionExpirySeconds: 3600))
            #expect(s.hastened == newest)
        }
        var s = Self.here()
        s.connects("ledger")
        s.subscribes("ledger", "t", qos: .atLeastOnce)
        Self.publish(&s, id: 1)
        Self.acknowledges(&s, "archive")
        s.vanishes("archive")
        #expect(s.hastened == .zero)
        s.syncs()
        s.vanishes("ledger")
        #expect(s.hastened == .zero, "what is written need not be hastened")
    }

    @Test("E4 When the uplink goes down, what the cloud has not acknowledged lingers no longer")
    func e4Uplink() throws {
        var plan = GatewayPlan()
        let filter = try #require(TopicFilter("t"))
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud", out: [.init(filter: filter, rename: nil, maximumQoS: .exactlyOnce)], in: [])
        ]
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        Self.publish(&s, "a", id: 1)
        for case .publish(let publish) in s.cloudReceived() {
            s.cloudSends(0, .puback(Acknowledgement(publish.id ?? 1)))
        }
        #expect(s.elided.count == 1 && s.received("press") == [.puback(Acknowledgement(1))])
        Self.publish(&s, "b", id: 2)
        _ = s.cloudReceived()
        s.cloudVanishes()
        #expect(s.hastened == Position(UInt64(s.journal.count)))
        Self.publish(&s, "c", id: 3)
        #expect(s.lastMessageUrgency == .message, "with the link down there is nothing to hope for (E5)")
        s.syncs()
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived().publishes.map(\.text) == ["b", "c"])
    }

    // MARK: E7

    @Test("E7 A QoS 2 message is always written, whoever is here", arguments: [QoS.atMostOnce, .atLeastOnce])
    func e7(granted: QoS) {
        var s = Scenario.connected("press", "archive", "ledger")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.subscribes("ledger", "t", qos: granted)
        Self.publish(&s, id: 7, qos: .exactlyOnce)
        #expect(s.lastMessageUrgency == .handshake)
        #expect(s.received("archive") == [])
        s.syncs()
        Self.acknowledges(&s, "archive")
        #expect(s.elided.isEmpty)
        s.losesPower()
        s.connects("press")
        Self.publish(&s, id: 7, qos: .exactlyOnce, duplicate: true)
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))])
    }

    // MARK: A12

    @Test(
        "A12 [MQTT5-4.6.0-2] PUBACK of an elided message waits for older ones of its publisher, of nobody else"
    )
    func a12() {
        var s = Self.here()
        s.connects("other", "away")
        s.subscribes("away", "u", qos: .atLeastOnce)
        s.vanishes("away")
        s.syncs()
        Self.publish(&s, id: 1, topic: "u")
        Self.publish(&s, id: 2)
        s.sends("other", .publish(.text("t", qos: .atLeastOnce, id: 3)))
        Self.acknowledges(&s, "archive")
        #expect(s.elided.count == 2)
        #expect(s.received("press") == [])
        #expect(s.received("other") == [.puback(Acknowledgement(3))])
        Self.publish(&s, id: 4)
        Self.acknowledges(&s, "archive")
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [1, 2, 4].map { .puback(Acknowledgement($0)) })
        s.losesPower()
        s.connects("away")
        #expect(s.texts("away") == ["x"])
    }

    @Test("A12 The same when the younger of two is elided first")
    func a12OutOfOrder() {
        var s = Self.here()
        Self.publish(&s, id: 1)
        Self.publish(&s, id: 2)
        let ids = s.received("archive").publishes.compactMap(\.id)
        s.sends("archive", .puback(Acknowledgement(ids[1])))
        #expect(s.elided.count == 1 && s.received("press") == [])
        s.sends("archive", .puback(Acknowledgement(ids[0])))
        #expect(s.received("press") == [1, 2].map { .puback(Acknowledgement($0)) })
    }
}

extension Scenario {
    fileprivate mutating func connects(_ first: String, _ second: String) {
        connects(first)
        connects(second)
    }
}
