import GatewayCore
import MQTT
import Testing

/// Who waits for what: rules A1 to A12 of the journal's design, each with the power cut just before the sync
/// that it waits for and just after. Breaking a rule in the core fails the test that names it.
@Suite("Acknowledgements wait for flash")
struct AckRuleTests {
    /// A publisher, and a persistent subscriber of "t" that is away.
    private static func withAbsentSubscriber() -> Scenario {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.syncs()
        return s
    }

    // MARK: QoS 1 in

    @Test("A1 [MQTT5-4.3.2-4] [MQTT311-4.3.2-2] PUBACK leaves only once the message is durable")
    func a1() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        s.losesPower()
        s.connects("archive")
        #expect(s.texts("archive") == ["x"])
    }

    @Test("A1 Before the sync nothing was acknowledged, and the publisher's repetition is taken")
    func a1CutBefore() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        #expect(s.received("press") == [])
        s.losesPower()
        s.connects("press")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7, duplicate: true)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(7))])
        s.connects("archive")
        #expect(s.texts("archive") == ["x"])
    }

    // MARK: QoS 2 in

    @Test("A2 [MQTT5-4.3.3-8] PUBREC leaves only once message and Packet Identifier are durable")
    func a2() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))])
        s.losesPower()
        s.connects("press")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, duplicate: true)))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))])
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["x"], "once, for the identifier survived")
    }

    @Test("A2 Before the sync nothing was acknowledged, and the repetition is the first")
    func a2CutBefore() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        s.losesPower()
        s.connects("press")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, duplicate: true)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))])
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["x"])
    }

    @Test("A2 A repetition while the Record is on its way waits for the same position")
    func a2Repeated() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, duplicate: true)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7)), .pubrec(Acknowledgement(7))])
    }

    @Test(
        "A3 A QoS 2 message goes to nobody before it is durable",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce], [UInt32(0), 3600])
    func a3(granted: QoS, expiry: UInt32) {
        var s = Scenario.connected("press")
        s.connects("screen", expiry: expiry)
        s.subscribes("screen", "t", qos: granted)
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        #expect(s.received("screen") == [])
        s.syncs()
        #expect(s.received("screen").publishes.map(\.qos) == [granted])
    }

    @Test("A3 What a power cut takes back nobody has seen")
    func a3CutBefore() {
        var s = Scenario.connected("press", "other", "archive")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.sends("press", .publish(.text("t", "a", qos: .exactlyOnce, id: 7)))
        #expect(s.received("archive") == [])
        s.losesPower()
        s.connects("archive")
        s.connects("other")
        s.connects("press")
        s.sends("other", .publish(.text("t", "b", qos: .exactlyOnce, id: 7)))
        s.sends("press", .publish(.text("t", "a", qos: .exactlyOnce, id: 7, duplicate: true)))
        #expect(s.drains("archive").map(\.text) == ["b", "a"])
    }

    @Test("A3 A retained QoS 2 message goes to no new subscriber before it is durable")
    func a3Retained() {
        var s = Scenario.connected("press")
        s.connects("screen", expiry: 0)
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, retain: true)))
        s.sends("screen", .subscribe("t", qos: .atLeastOnce))
        #expect(s.texts("screen") == [])
        s.syncs()
        #expect(s.texts("screen") == ["x"])
    }

    @Test("A4 [MQTT5-4.3.3-11] PUBCOMP leaves only once the identifier's release is durable")
    func a4() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", "a", qos: .exactlyOnce, id: 7)))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .pubrel(Acknowledgement(7)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubcomp(Acknowledgement(7))])
        s.losesPower()
        s.connects("press")
        s.sends("press", .publish(.text("t", "b", qos: .exactlyOnce, id: 7)))
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["a", "b"], "the identifier was free for a new message")
    }

    @Test("A4 Before the sync the identifier is still held, and PUBREL is answered again")
    func a4CutBefore() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", "a", qos: .exactlyOnce, id: 7)))
        s.syncs()
        s.sends("press", .pubrel(Acknowledgement(7)))
        s.sends("press", .pubrel(Acknowledgement(7)))
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))], "the second PUBREL waits as well")
        s.losesPower()
        s.connects("press")
        s.sends("press", .pubrel(Acknowledgement(7)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubcomp(Acknowledgement(7))])
    }

    // MARK: QoS 2 out

    @Test("A5 A QoS 2 PUBLISH leaves only once its delivery is durable, and keeps its identifier")
    func a5() {
        var s = Scenario.connected("press", "archive")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, retain: true)))
        s.syncs()
        s.sends("archive", .subscribe("t"))
        #expect(s.received("archive") == [], "the message is durable, its delivery is not")
        s.syncs()
        let first = s.received("archive").publishes
        #expect(first.map(\.duplicate) == [false])
        s.losesPower()
        s.connects("archive")
        let second = s.received("archive").publishes
        #expect(second.map(\.id) == first.map(\.id))
        #expect(second.map(\.duplicate) == [true])
    }

    @Test("A5 Before the sync nothing was sent, and after the power cut nothing is owed")
    func a5CutBefore() {
        var s = Scenario.connected("press", "archive")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7, retain: true)))
        s.syncs()
        s.sends("archive", .subscribe("t"))
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == [])
        s.sends("archive", .subscribe("t"))
        #expect(s.drains("archive").map(\.text) == ["x"])
    }

    /// "archive" is here and has got a QoS 2 message under the returned identifier.
    private static func delivered(_ s: inout Scenario) -> PacketIdentifier {
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        s.syncs()
        return s.received("archive").publishes.first?.id ?? 1
    }

    @Test(
        "A6 [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] PUBREL leaves only once PUBREC is durable, and PUBLISH never again"
    )
    func a6() {
        var s = Scenario.connected("press", "archive")
        let id = Self.delivered(&s)
        s.sends("archive", .pubrec(Acknowledgement(id)))
        #expect(s.received("archive") == [])
        s.syncs()
        #expect(s.received("archive") == [.pubrel(Acknowledgement(id))])
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == [.pubrel(Acknowledgement(id))])
    }

    @Test("A6 Before the sync PUBREL was not sent, and PUBLISH is repeated under its identifier")
    func a6CutBefore() {
        var s = Scenario.connected("press", "archive")
        let id = Self.delivered(&s)
        s.sends("archive", .pubrec(Acknowledgement(id)))
        s.sends("archive", .pubrec(Acknowledgement(id)))
        #expect(s.received("archive") == [], "a repeated PUBREC waits as well")
        s.losesPower()
        s.connects("archive")
        let again = s.received("archive").publishes
        #expect(again.map(\.id) == [id])
        #expect(again.map(\.duplicate) == [true])
    }

    /// Packet Identifiers are kept apart for two deliveries only.
    private static func narrow() -> Scenario {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 2
        return Scenario.connected("press", "archive", plan: plan)
    }

    /// Two of three QoS 2 messages to "archive" are completed, and no Record says so yet.
    private static func completed(_ s: inout Scenario) -> [PacketIdentifier] {
        s.subscribes("archive", "t")
        for id: PacketIdentifier in [1, 2, 3] {
            s.sends("press", .publish(.text("t", "\(id.rawValue)", qos: .exactlyOnce, id: id)))
        }
        s.syncs()
        let ids = s.received("archive").publishes.compactMap(\.id)
        for id in ids { s.sends("archive", .pubrec(Acknowledgement(id))) }
        s.syncs()
        _ = s.received("archive")
        for id in ids { s.sends("archive", .pubcomp(Acknowledgement(id))) }
        return ids
    }

    @Test("A7 [MQTT5-2.2.1-4] An identifier is used anew only once the completion before is durable")
    func a7() {
        var s = Self.narrow()
        let ids = Self.completed(&s)
        #expect(ids.count == 2)
        #expect(s.received("archive") == [])
        s.syncs()
        #expect(s.texts("archive") == ["3"])
        s.losesPower()
        s.connects("archive")
        #expect(s.texts("archive") == ["3"])
    }

    @Test("A7 Before the sync the completed deliveries are completed again, and nothing is sent anew")
    func a7CutBefore() {
        var s = Self.narrow()
        let ids = Self.completed(&s)
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == ids.map { .pubrel(Acknowledgement($0)) })
        for id in ids { s.sends("archive", .pubcomp(Acknowledgement(id))) }
        #expect(s.drains("archive").map(\.text) == ["3"])
    }

    // MARK: QoS 1 out

    @Test("A8 A subscriber's PUBACK is recorded within a second, and nobody waits for it")
    func a8() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        s.syncs()
        #expect(s.drains("archive").map(\.text) == ["x"])
        let before = s.journal.count
        s.passes(milliseconds: 1000)
        #expect(s.journal.count == before + 1)
        #expect(s.lastUrgency == .lazy)
        s.syncs()
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == [])
    }

    @Test("A8 A PUBACK that no Record covers costs a redelivery with DUP")
    func a8CutBefore() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        let first = s.drains("archive")
        s.losesPower()
        s.connects("archive")
        let again = s.received("archive").publishes
        #expect(again.map(\.id) == first.map(\.id))
        #expect(again.map(\.duplicate) == [true])
    }

    // MARK: Sessions

    @Test("A9 SUBACK and UNSUBACK of a persistent Session leave only once durable")
    func a9() {
        var s = Scenario.connected("press", "archive")
        s.sends("archive", .subscribe("t"))
        #expect(s.received("archive") == [])
        s.syncs()
        #expect(s.received("archive").subackReasons == [.grantedQoS2])
        s.sends("archive", .unsubscribe("t"))
        s.sends("archive", .unsubscribe("t", id: 997))
        #expect(s.received("archive") == [], "neither the first nor the one that found nothing left")
        s.syncs()
        #expect(
            s.received("archive") == [
                .unsuback(Unsuback(id: 998, reasons: [.success])),
                .unsuback(Unsuback(id: 997, reasons: [.noSubscriptionExisted])),
            ])
    }

    @Test(
        "A9 Before the sync the subscription is neither confirmed nor there; after it is both",
        arguments: [false, true])
    func a9Subscription(isSynced: Bool) {
        var s = Scenario.connected("press", "archive")
        s.sends("archive", .subscribe("t"))
        if isSynced { s.syncs() }
        #expect(s.received("archive").count == (isSynced ? 1 : 0))
        s.losesPower()
        s.connects("press")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        s.syncs()
        s.connects("archive")
        #expect(s.texts("archive") == (isSynced ? ["x"] : []))
    }

    @Test(
        "A9 SUBACK waits for what is retained too: who has it does not ask again",
        arguments: [QoS.atLeastOnce, .exactlyOnce],
        [RetainHandling.sendOnSubscribe, .sendIfNewSubscription])
    func a9Retained(qos: QoS, handling: RetainHandling) {
        var s = Scenario.connected("press", "archive")
        s.sends("press", .publish(.text("t", qos: qos, id: 7, retain: true)))
        s.syncs()
        for synced in 0...1 {
            s.sends("archive", .subscribe("t", retainHandling: handling))
            s.syncsNext(synced)
            #expect(s.received("archive").subackReasons == nil, "both must be durable")
            s.losesPower()
            s.connects("archive")
            #expect(s.received("archive").subackReasons == nil)
        }
        s.sends("archive", .subscribe("t", retainHandling: handling))
        s.syncs()
        #expect(s.received("archive").subackReasons == [.grantedQoS2])
        s.losesPower()
        s.connects("archive")
        #expect(Set(s.texts("archive")) == ["x"])
    }

    @Test("A9 CONNACK that begins a persistent Session leaves only once durable", arguments: [false, true])
    func a9Connack(isSynced: Bool) {
        var s = Scenario()
        let connect = Connect(clientIdentifier: "press", cleanStart: false, sessionExpirySeconds: 60)
        s.opens("press", connect)
        #expect(s.received("press") == [])
        if isSynced { s.syncs() }
        #expect(s.received("press").connack?.sessionPresent == (isSynced ? false : nil))
        s.losesPower()
        s.opens("press", connect)
        s.syncs()
        #expect(s.received("press").connack?.sessionPresent == isSynced)
    }

    @Test("A9 CONNACK that discards a Session leaves only once durable", arguments: [false, true])
    func a9CleanStart(isSynced: Bool) {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        s.syncs()
        s.opens("archive", Connect(clientIdentifier: "archive", cleanStart: true))
        #expect(s.received("archive") == [])
        if isSynced { s.syncs() }
        #expect(s.received("archive").connack?.sessionPresent == (isSynced ? false : nil))
        s.losesPower()
        s.opens(
            "archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 60))
        s.syncs()
        let packets = s.received("archive")
        #expect(packets.connack?.sessionPresent == !isSynced)
        #expect(packets.publishes.map(\.text) == (isSynced ? [] : ["x"]))
    }

    @Test(
        "A9 Nor does the CONNACK of who asks once more for what is discarded already",
        arguments: [false, true])
    func a9CleanStartAgain(isSynced: Bool) {
        var s = Self.withAbsentSubscriber()
        s.opens("archive", Connect(clientIdentifier: "archive", cleanStart: true))
        s.vanishes("archive")
        s.opens("archive", Connect(clientIdentifier: "archive", cleanStart: true))
        #expect(s.received("archive") == [])
        if isSynced { s.syncs() }
        #expect(s.received("archive").connack?.sessionPresent == (isSynced ? false : nil))
        s.losesPower()
        s.opens(
            "archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 60))
        s.syncs()
        #expect(s.received("archive").connack?.sessionPresent == !isSynced)
    }

    @Test(
        "A10 CONNACK of a client with a Will leaves only once the Will is durable", arguments: [false, true])
    func a10(isSynced: Bool) {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "gone/#")
        s.opens("press", Connect(clientIdentifier: "press", cleanStart: true, will: .text("gone/press")))
        #expect(s.received("press") == [])
        if isSynced { s.syncs() }
        #expect((s.received("press").connack != nil) == isSynced)
        s.losesPower()
        s.connects("watch")
        s.passes(milliseconds: 60_000)
        s.syncs()
        #expect(s.texts("watch") == (isSynced ? ["gone"] : []))
    }

    @Test(
        "A10 A Will deleted by DISCONNECT does not come back once that is durable", arguments: [false, true])
    func a10Cleared(isSynced: Bool) {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "gone/#")
        s.connects("press", will: .text("gone/press"))
        s.leaves("press")
        #expect(s.lastUrgency == .control)
        if isSynced { s.syncs() }
        s.losesPower()
        s.connects("watch")
        s.passes(milliseconds: 60_000)
        s.syncs()
        #expect(s.texts("watch") == (isSynced ? [] : ["gone"]))
    }

    @Test("A11 A publisher whose Session ends with its connection leaves no identifier in the journal")
    func a11() {
        var s = Self.withAbsentSubscriber()
        s.connects("probe", expiry: 0)
        s.sends("probe", .publish(.text("t", "a", qos: .exactlyOnce, id: 7)))
        #expect(s.received("probe") == [])
        s.syncs()
        #expect(s.received("probe") == [.pubrec(Acknowledgement(7))])
        guard case .message(let record)? = s.journal.last else {
            Issue.record("the message is the last Record")
            return
        }
        #expect(record.inboundID == nil && record.publisher == nil)
        s.losesPower()
        s.connects("probe", expiry: 0)
        s.sends("probe", .publish(.text("t", "b", qos: .exactlyOnce, id: 7)))
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["a", "b"])
    }

    @Test(
        "A12 [MQTT5-4.6.0-2] [MQTT311-4.6.0-2] Acknowledgements leave in the order of their PUBLISH packets")
    func a12() {
        var s = Self.withAbsentSubscriber()
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("nobody", qos: .atLeastOnce, id: 2)))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 3)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1)), .puback(Acknowledgement(2, .noMatchingSubscribers)),
                .puback(Acknowledgement(3)),
            ])
    }

    @Test("A12 [MQTT311-4.6.0-3] PUBREC packets leave in the order of their PUBLISH packets")
    func a12ExactlyOnce() {
        var s = Self.withAbsentSubscriber()
        s.connects("old", version: .v3_1_1, cleanStart: true)
        for id: PacketIdentifier in [3, 1, 2] {
            s.sends("old", .publish(.text(id == 1 ? "nobody" : "t", qos: .exactlyOnce, id: id)))
        }
        #expect(s.received("old") == [])
        s.syncs()
        #expect(s.received("old") == [3, 1, 2].map { .pubrec(Acknowledgement($0)) })
    }
}
