import MQTT
import Testing

@testable import GatewayCore

/// The cloud as the core sees it: another receiver with a queue, and another publisher.
@Suite("Uplinks")
struct UplinkTests {
    private static func route(
        _ filter: String, dropping: Int = 0, prepending: String = "", qos: QoS = .exactlyOnce
    ) -> UplinkRoutes.Route {
        guard let filter = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        let rename = TopicRename(dropping: dropping, prepending: Array(prepending.utf8))
        return .init(
            filter: filter, rename: dropping == 0 && prepending.isEmpty ? nil : rename, maximumQoS: qos)
    }

    private static func plan(
        out: [UplinkRoutes.Route] = [route("sensors/#", prepending: "site/")],
        in inbound: [UplinkRoutes.Route] = [route("site/commands/#", dropping: 5)]
    ) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.uplinks = [UplinkRoutes(name: "cloud", out: out, in: inbound)]
        return plan
    }

    /// "press" is here and the cloud is connected, established and has nothing unread.
    private static func established(_ plan: GatewayPlan = plan(), receiveMaximum: UInt16 = 100) -> Scenario {
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false, receiveMaximum: receiveMaximum)
        s.syncs()
        _ = s.cloudReceived()
        _ = s.uplinkControls()
        return s
    }

    private static func controls(_ commands: [UplinkCommand]) -> [String] { commands.map { "\($0)" } }

    @Test(
        "A cloud whose session went back in time uses an identifier again: another message is not taken for a repetition",
        arguments: ["vanishes", "loses power", "loses power behind a checkpoint"])
    func cloudGoesBack(gateway: String) {
        var s = Self.established()
        s.subscribes("press", "commands/#", qos: .exactlyOnce)
        s.vanishes("press")
        s.cloudSends(0, .publish(.text("site/commands/a", "one", qos: .exactlyOnce, id: 7)))
        s.syncs()
        #expect(s.cloudReceived() == [.pubrec(Acknowledgement(7))])
        switch gateway {
        case "vanishes": s.cloudVanishes()
        case "loses power": s.losesPower()
        default: s.losesPowerAndRecoversFromCheckpoint()
        }
        _ = s.cloudReceived()
        s.cloudConnects(sessionPresent: true)
        s.syncs()
        // The repetition that the specification means, also by a cloud that does not say that it is one.
        for duplicate in [true, false] {
            s.cloudSends(
                0, .publish(.text("site/commands/a", "one", qos: .exactlyOnce, id: 7, duplicate: duplicate)))
            s.syncs()
            #expect(s.cloudReceived() == [.pubrec(Acknowledgement(7))])
        }
        s.cloudSends(0, .publish(.text("site/commands/b", "two", qos: .exactlyOnce, id: 7)))
        #expect(s.cloudReceived().isEmpty)
        s.syncs()
        #expect(s.cloudReceived() == [.pubrec(Acknowledgement(7))])
        s.cloudSends(0, .pubrel(Acknowledgement(7)))
        s.syncs()
        #expect(s.cloudReceived() == [.pubcomp(Acknowledgement(7))])
        s.connects("press")
        #expect(s.drains("press").map(\.text) == ["one", "two"])
    }

    @Test("A cloud of 3.1.1 that answers QoS 2 with PUBACK has the message, and is sent QoS 1 from then on")
    func cloudWithoutQoS2() {
        var s = Scenario.connected("press", plan: Self.plan())
        s.cloudConnects(UplinkTerms(version: .v3_1_1, sessionPresent: false))
        s.syncs()
        _ = s.cloudReceived()
        for n: PacketIdentifier in [1, 2] {
            s.sends("press", .publish(.text("sensors/a", "\(n.rawValue)", qos: .exactlyOnce, id: n)))
        }
        s.syncs()
        let sent = s.cloudReceived().publishes
        #expect(sent.map(\.qos) == [.exactlyOnce, .exactlyOnce])
        for publish in sent { s.cloudSends(0, .puback(Acknowledgement(publish.id ?? 1))) }
        #expect(s.observations.filter { $0 == .uplinkLacksQoS2(name: "cloud") }.count == 1)
        s.sends("press", .publish(.text("sensors/a", "3", qos: .exactlyOnce, id: 3)))
        s.syncs()
        let third = s.cloudReceived().publishes
        #expect(third.map(\.qos) == [.atLeastOnce] && third.map(\.text) == ["3"])
    }

    @Test("A cloud that knows QoS 0 at most gets its backlog no faster than the line takes it")
    func backlogForAFullLine() {
        var s = Scenario.connected("press", plan: Self.plan())
        for n: PacketIdentifier in [1, 2, 3] {
            s.sends("press", .publish(.text("sensors/a", "\(n.rawValue)", qos: .atLeastOnce, id: n)))
        }
        s.syncs()
        s.cloudConnects(UplinkTerms(version: .v5_0, sessionPresent: false, maximumQoS: .atMostOnce))
        s.handle(.uplink(UplinkIndex(0), .writability(false)))
        s.syncs()
        #expect(s.cloudReceived().publishes.isEmpty)
        // A new one of QoS 0 is not kept for anybody: it is left out, counted.
        s.sends("press", .publish(.text("sensors/a", "zero")))
        #expect(s.cloudReceived().publishes.isEmpty)
        let dropped = s.observations.filter {
            if case .dropped(.uplink, .queueFull, 1) = $0 { true } else { false }
        }
        #expect(dropped.count == 1)
        s.handle(.uplink(UplinkIndex(0), .writability(true)))
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "2", "3"])
    }

    // MARK: The cloud's session

    @Test("The first connection asks for a clean start, and subscribes only once that is durably known")
    func firstConnection() {
        var s = Scenario(plan: Self.plan())
        #expect(Self.controls(s.uplinkControls()) == ["open(cleanStart: true)"])
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        #expect(s.uplinkControls().isEmpty)
        s.syncs()
        #expect(Self.controls(s.uplinkControls()) == ["subscribe"])
        s.losesPower()
        #expect(Self.controls(s.uplinkControls()) == ["open(cleanStart: false)"])
        s.cloudConnects(sessionPresent: true)
        #expect(Self.controls(s.uplinkControls()) == ["subscribe"])
    }

    @Test("A reconnection does not subscribe before the first one's Record is durable either")
    func reconnectsBeforeDurable() {
        var s = Scenario(plan: Self.plan())
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.cloudVanishes()
        _ = s.uplinkControls()
        s.cloudConnects(sessionPresent: true)
        #expect(s.uplinkControls().isEmpty)
        s.losesPower()
        #expect(Self.controls(s.uplinkControls()) == ["open(cleanStart: true)"])
    }

    @Test(
        "[MQTT5-4.4.0-1] A reconnection with the cloud's session resends PUBLISH and PUBREL under their identifiers",
        arguments: [false, true])
    func resumes(powerCut: Bool) {
        var s = Self.established()
        for n: PacketIdentifier in [1, 2, 3] {
            s.sends(
                "press",
                .publish(
                    .text("sensors/a", "\(n.rawValue)", qos: n == 2 ? .atLeastOnce : .exactlyOnce, id: n)))
        }
        s.syncs()
        let first = s.cloudReceived().publishes
        #expect(first.map(\.text) == ["1", "2", "3"])
        let ids = first.compactMap(\.id)
        guard ids.count == 3 else { return }
        s.cloudSends(0, .pubrec(Acknowledgement(ids[0])))
        #expect(s.cloudReceived() == [], "A6")
        s.syncs()
        #expect(s.cloudReceived() == [.pubrel(Acknowledgement(ids[0]))])
        if powerCut { s.losesPower() } else { s.cloudVanishes() }
        s.cloudConnects(sessionPresent: true)
        let again = s.cloudReceived()
        #expect(again.first == .pubrel(Acknowledgement(ids[0])))
        #expect(again.publishes.compactMap(\.id) == [ids[1], ids[2]])
        #expect(again.publishes.map(\.duplicate) == [true, true])
    }

    @Test(
        "Session Present 0: what was PUBREC'd is the cloud's, the rest is sent as new",
        arguments: [false, true])
    func cloudForgot(powerCut: Bool) {
        var s = Self.established()
        for n: PacketIdentifier in [1, 2] {
            s.sends("press", .publish(.text("sensors/a", "\(n.rawValue)", qos: .exactlyOnce, id: n)))
        }
        s.syncs()
        let ids = s.cloudReceived().publishes.compactMap(\.id)
        s.cloudSends(0, .pubrec(Acknowledgement(ids.first ?? 1)))
        s.syncs()
        if powerCut { s.losesPower() } else { s.cloudVanishes() }
        _ = s.cloudReceived()
        s.cloudConnects(sessionPresent: false)
        let again = s.cloudReceived()
        #expect(again.publishes.map(\.text) == ["2"])
        #expect(again.publishes.map(\.duplicate) == [false])
        #expect(again.count == 1)
    }

    @Test(
        "Session Present 0: identifiers of what the cloud had published are void", arguments: [false, true])
    func inboundVoided(sessionPresent: Bool) {
        var s = Self.established()
        s.subscribes("press", "commands/#")
        s.cloudSends(0, .publish(.text("site/commands/v", "1", qos: .exactlyOnce, id: 5)))
        s.syncs()
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: sessionPresent)
        s.cloudSends(0, .publish(.text("site/commands/v", "1", qos: .exactlyOnce, id: 5)))
        #expect(s.drains("press").map(\.text) == (sessionPresent ? ["1"] : ["1", "1"]))
    }

    @Test(
        "A6 [MQTT5-4.3.3-5] A link that flaps does not let PUBREL leave before PUBREC is durable",
        arguments: [false, true])
    func flapBeforePubrec(powerCut: Bool) {
        var s = Self.established()
        s.sends("press", .publish(.text("sensors/a", qos: .exactlyOnce, id: 1)))
        s.syncs()
        let id = s.cloudReceived().publishes.first?.id ?? 1
        s.cloudSends(0, .pubrec(Acknowledgement(id)))
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [])
        if powerCut {
            s.losesPower()
            s.cloudConnects(sessionPresent: true)
            #expect(s.cloudReceived().publishes.map(\.id) == [id])
        } else {
            s.syncs()
            #expect(s.cloudReceived() == [.pubrel(Acknowledgement(id))])
        }
    }

    @Test("A2 A link that flaps does not let PUBREC leave before the message is durable")
    func flapBeforePublish() {
        var s = Self.established()
        s.subscribes("press", "commands/#")
        let publish = Publish.text("site/commands/v", qos: .exactlyOnce, id: 5)
        s.cloudSends(0, .publish(publish))
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        s.cloudSends(0, .publish(publish))
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived() == [.pubrec(Acknowledgement(5))])
        #expect(s.drains("press").count == 1)
    }

    @Test("A4 A link that flaps does not let PUBCOMP leave before the release is durable")
    func flapBeforePubrel() {
        var s = Self.established()
        s.cloudSends(0, .publish(.text("site/commands/v", qos: .exactlyOnce, id: 5)))
        s.syncs()
        s.cloudSends(0, .pubrel(Acknowledgement(5)))
        _ = s.cloudReceived()
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        s.cloudSends(0, .pubrel(Acknowledgement(5)))
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived() == [.pubcomp(Acknowledgement(5, .packetIdentifierNotFound))])
    }

    @Test("A message that arrives meanwhile does not open the queue before the first Record is durable")
    func queueStaysShut() {
        var s = Scenario.connected("press", plan: Self.plan())
        s.sends("press", .publish(.text("sensors/a", "1", qos: .exactlyOnce, id: 1)))
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.sends("press", .publish(.text("sensors/a", "2", qos: .atLeastOnce, id: 2)))
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "2"])
    }

    // MARK: Out

    @Test("The queue is the outbox: taken while the cloud is away, through a power cut")
    func outbox() {
        var s = Scenario.connected("press", plan: Self.plan())
        s.sends("press", .publish(.text("sensors/a", qos: .exactlyOnce, id: 1)))
        s.sends("press", .publish(.text("other", qos: .exactlyOnce, id: 2)))
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press").count == 2)
        s.losesPower()
        s.cloudConnects(sessionPresent: false)
        #expect(s.cloudReceived() == [], "a power cut now would make the next connection start clean")
        s.syncs()
        let got = s.cloudReceived().publishes
        #expect(got.map(\.topic) == ["site/sensors/a"])
        let id = got.first?.id ?? 1
        s.cloudSends(0, .pubrec(Acknowledgement(id)))
        s.syncs()
        s.cloudSends(0, .pubcomp(Acknowledgement(id)))
        s.passes(milliseconds: 1000)
        s.syncs()
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [])
    }

    @Test(
        "The first route that matches decides topic and QoS",
        arguments: [("a/x", "one/a/x", QoS.atLeastOnce), ("a/y", "two/a/y", .exactlyOnce)])
    func firstRoute(topic: String, sent: String, qos: QoS) {
        var s = Self.established(
            Self.plan(out: [
                Self.route("a/x", prepending: "one/", qos: .atLeastOnce),
                Self.route("a/#", prepending: "two/"),
            ]))
        s.sends("press", .publish(.text(topic, qos: .exactlyOnce, id: 1)))
        s.syncs()
        let got = s.cloudReceived().publishes
        #expect(got.map(\.topic) == [sent])
        #expect(got.map(\.qos) == [qos])
    }

    @Test(
        "[MQTT5-3.2.2-11] The cloud's Maximum QoS is not exceeded, and its answers settle",
        arguments: [QoS.atMostOnce, .atLeastOnce])
    func maximumQoS(maximum: QoS) {
        var s = Scenario.connected("press", plan: Self.plan())
        for n: PacketIdentifier in [1, 2] {
            s.sends("press", .publish(.text("sensors/a", qos: n == 1 ? .exactlyOnce : .atLeastOnce, id: n)))
        }
        s.syncs()
        let terms = UplinkTerms(version: .v5_0, sessionPresent: false, maximumQoS: maximum)
        s.cloudConnects(terms)
        s.syncs()
        let got = s.cloudReceived().publishes
        #expect(got.map(\.qos) == [maximum, maximum])
        for id in got.compactMap(\.id) { s.cloudSends(0, .puback(Acknowledgement(id))) }
        s.passes(milliseconds: 1000)
        s.syncs()
        s.losesPower()
        s.cloudConnects(UplinkTerms(version: .v5_0, sessionPresent: true, maximumQoS: maximum))
        #expect(s.cloudReceived() == [])
    }

    @Test("[MQTT5-3.3.4-7] The cloud's Receive Maximum is not exceeded, and counts anew on each connection")
    func receiveMaximum() {
        var s = Self.established(receiveMaximum: 2)
        for n: PacketIdentifier in [1, 2, 3, 4] {
            s.sends("press", .publish(.text("sensors/a", "\(n.rawValue)", qos: .atLeastOnce, id: n)))
        }
        s.syncs()
        let got = s.cloudReceived().publishes
        #expect(got.map(\.text) == ["1", "2"])
        s.cloudSends(0, .puback(Acknowledgement(got.first?.id ?? 1)))
        #expect(s.cloudReceived().publishes.map(\.text) == ["3"])
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true, receiveMaximum: 1)
        #expect(s.cloudReceived().publishes.map(\.text) == ["2"])
    }

    @Test(
        "PUBACK or PUBREC with an error ends a message, counted", arguments: [QoS.atLeastOnce, .exactlyOnce])
    func refused(qos: QoS) {
        var s = Self.established()
        s.sends("press", .publish(.text("sensors/a", qos: qos, id: 1)))
        s.syncs()
        let id = s.cloudReceived().publishes.first?.id ?? 1
        let answer = Acknowledgement(id, .notAuthorized)
        s.cloudSends(0, qos == .atLeastOnce ? .puback(answer) : .pubrec(answer))
        #expect(s.observations.contains(.deadLetter(uplink: "cloud", .notAuthorized)))
        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [])
    }

    // MARK: In

    @Test(
        "A message from the cloud takes its local name, and is answered only once durable",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func inbound(qos: QoS) {
        var s = Self.established()
        s.subscribes("press", "commands/#")
        s.vanishes("press")
        s.syncs()
        s.cloudSends(0, .publish(.text("site/commands/v", qos: qos, id: 5)))
        #expect(s.cloudReceived() == [])
        s.syncs()
        let answer: Packet = qos == .atLeastOnce ? .puback(Acknowledgement(5)) : .pubrec(Acknowledgement(5))
        #expect(s.cloudReceived() == [answer])
        if qos == .exactlyOnce {
            s.cloudSends(0, .publish(.text("site/commands/v", qos: qos, id: 5, duplicate: true)))
            #expect(s.cloudReceived() == [answer])
            s.cloudSends(0, .pubrel(Acknowledgement(5)))
            #expect(s.cloudReceived() == [], "A4")
            s.syncs()
            #expect(s.cloudReceived() == [.pubcomp(Acknowledgement(5))])
        }
        s.losesPower()
        s.connects("press")
        #expect(s.drains("press").map(\.topic) == ["commands/v"])
    }

    @Test("Before the sync nothing is answered, and the cloud's repetition is the first")
    func inboundCutBefore() {
        var s = Self.established()
        s.subscribes("press", "commands/#")
        s.cloudSends(0, .publish(.text("site/commands/v", qos: .exactlyOnce, id: 5)))
        #expect(s.texts("press") == [])
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        s.cloudSends(0, .publish(.text("site/commands/v", qos: .exactlyOnce, id: 5, duplicate: true)))
        s.connects("press")
        #expect(s.drains("press").map(\.text) == ["x"])
    }

    @Test("A route caps the QoS at which its messages are passed on")
    func inboundCap() {
        var s = Self.established(Self.plan(in: [Self.route("site/#", qos: .atMostOnce)]))
        s.subscribes("press", "#")
        s.cloudSends(0, .publish(.text("site/a", qos: .exactlyOnce, id: 5)))
        s.syncs()
        #expect(s.received("press").publishes.map(\.qos) == [.atMostOnce])
    }

    @Test("What came from an uplink does not go back to it")
    func noLoop() {
        let both = [Self.route("shared/#")]
        var s = Self.established(Self.plan(out: both, in: both))
        s.subscribes("press", "shared/#")
        for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] {
            s.cloudSends(
                0, .publish(.text("shared/a", "\(qos.rawValue)", qos: qos, id: qos == .atMostOnce ? nil : 5)))
        }
        #expect(s.drains("press").map(\.text) == ["0", "1", "2"])
        #expect(s.cloudReceived().publishes == [])
        s.sends("press", .publish(.text("shared/a", "own")))
        #expect(s.cloudReceived().publishes.map(\.text) == ["own"])
    }

    @Test("Under pressure the cloud keeps what we have no room for; QoS 0 flows on")
    func pressure() {
        var s = Self.established()
        s.subscribes("press", "commands/#")
        s.handle(.storage(.pressure(true)))
        s.cloudSends(0, .publish(.text("site/commands/v", "1", qos: .atLeastOnce, id: 5)))
        s.cloudSends(0, .publish(.text("site/commands/v", "QoS 0")))
        s.cloudSends(0, .publish(.text("site/commands/v", "2", qos: .atLeastOnce, id: 6)))
        s.syncs()
        #expect(s.cloudReceived() == [])
        #expect(s.texts("press") == ["QoS 0"])
        s.handle(.storage(.pressure(false)))
        #expect(s.drains("press").map(\.text) == ["1", "2"])
        #expect(s.cloudReceived() == [.puback(Acknowledgement(5)), .puback(Acknowledgement(6))])
    }

    @Test("What the cloud sends while there is no room is held up to so many bytes; the rest it sends again")
    func heldBytes() {
        var plan = Self.plan()
        plan.limits.heldBytesPerUplinkMax = 3000
        var s = Self.established(plan)
        s.subscribes("press", "commands/#")
        s.handle(.storage(.pressure(true)))
        let long = String(repeating: "x", count: 1000)
        func publish(_ n: UInt16) -> Packet {
            .publish(
                .text("site/commands/v", "\(n) \(long)", qos: .atLeastOnce, id: PacketIdentifier(rawValue: n))
            )
        }
        for n: UInt16 in 1...8 { s.cloudSends(0, publish(n)) }
        s.cloudSends(0, .publish(.text("site/commands/v", "QoS 0")))
        s.syncs()
        #expect(s.texts("press") == ["QoS 0"])
        #expect(s.gateway.uplinks[0].held.count == 3 && s.gateway.uplinks[0].heldBytes < 5000)
        s.handle(.storage(.pressure(false)))
        #expect(s.drains("press").map { $0.text.prefix(1) } == ["1", "2", "3"])
        #expect(s.cloudReceived() == ([1, 2, 3] as [PacketIdentifier]).map { .puback(Acknowledgement($0)) })
        // What comes behind those that were let go waits for them, and nobody answers it.
        #expect(Self.controls(s.uplinkControls()) == ["reconnect"])
        s.cloudSends(0, publish(9))
        s.syncs()
        #expect(s.cloudReceived() == [] && s.drains("press").isEmpty)
        s.passes(milliseconds: 5000)
        #expect(Self.controls(s.uplinkControls()) == [])

        s.cloudVanishes()
        s.cloudConnects(sessionPresent: true)
        for n: UInt16 in 4...9 { s.cloudSends(0, publish(n)) }
        s.syncs()
        #expect(s.drains("press").map { $0.text.prefix(1) } == ["4", "5", "6", "7", "8", "9"])
        let ids: [PacketIdentifier] = [4, 5, 6, 7, 8, 9]
        #expect(s.cloudReceived() == ids.map { .puback(Acknowledgement($0)) })
    }

    @Test("A stop closes the uplink; its queue stays")
    func stops() {
        var s = Self.established()
        s.sends("press", .publish(.text("sensors/a", qos: .atLeastOnce, id: 1)))
        s.syncs()
        s.handle(.stop)
        #expect(Self.controls(s.uplinkControls()) == ["close"])
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived().publishes.map(\.text) == ["x"])
    }
}
