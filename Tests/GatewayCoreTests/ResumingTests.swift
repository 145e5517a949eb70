import GatewayCore
import MQTT
import Testing

@Suite("4.4 Message delivery retry")
struct ResumingTests {
    enum Interruption: CaseIterable { case connection, power, powerFromCheckpoint, takeOver }

    private static func interrupt(_ s: inout Scenario, _ how: Interruption) {
        s.syncs()
        switch how {
        case .connection: s.vanishes("archive")
        case .power: s.losesPower()
        case .powerFromCheckpoint: s.losesPowerAndRecoversFromCheckpoint()
        case .takeOver: break
        }
        s.connects("press")
        s.connects("archive")
    }

    @Test(
        "[MQTT5-4.4.0-1] [MQTT311-4.4.0-1] [MQTT5-3.3.1-1] PUBLISH and PUBREL are sent again with their identifiers, in order, with DUP",
        arguments: Interruption.allCases)
    func resends(how: Interruption) {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        for n in 1...5 {
            let qos: QoS = n % 2 == 0 ? .atLeastOnce : .exactlyOnce
            s.sends(
                "press", .publish(.text("t", "\(n)", qos: qos, id: PacketIdentifier(rawValue: UInt16(n)))))
        }
        s.syncs()
        let first = s.received("archive").publishes
        #expect(first.map(\.text) == ["1", "2", "3", "4", "5"])
        #expect(first.filter(\.duplicate) == [])  // [MQTT5-4.3.2-2, MQTT5-4.3.3-2]
        let ids = first.compactMap(\.id)
        guard ids.count == 5 else { return }
        s.sends("archive", .pubrec(Acknowledgement(ids[2])))
        s.sends("archive", .puback(Acknowledgement(ids[1])))
        s.passes(milliseconds: 1000)
        s.syncs()
        s.passes(milliseconds: 86_400)
        #expect(
            s.received("archive") == [.pubrel(Acknowledgement(ids[2]))],
            "nothing is repeated on a live connection")
        Self.interrupt(&s, how)
        let again = s.received("archive")
        // [MQTT5-4.3.2-3, MQTT5-4.3.3-3, MQTT5-4.3.3-5]
        #expect(again.publishes.map(\.text) == ["1", "4", "5"])
        #expect(again.publishes.filter(\.duplicate).count == 3)
        #expect(again.publishes.compactMap(\.id) == [ids[0], ids[3], ids[4]])
        #expect(again.count == 4 && again[1] == .pubrel(Acknowledgement(ids[2])))
        for packet in again { if let answer = packet.subscribersAnswer { s.sends("archive", answer) } }
        #expect(s.drains("archive") == [])
        s.sends("press", .publish(.text("t", "6", qos: .atLeastOnce, id: 9)))
        #expect(s.texts("archive") == ["6"])
    }

    @Test(
        "[MQTT5-4.5.0-1] [MQTT311-3.1.2-5] [MQTT311-4.1.0-1] Messages for a client that is away are kept",
        arguments: [ProtocolVersion.v3_1, .v3_1_1, .v5_0])
    func kept(version: ProtocolVersion) {
        var s = Scenario.connected("press")
        s.connects("archive", version: version)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] {
            s.sends(
                "press", .publish(.text("t", "\(qos.rawValue)", qos: qos, id: qos == .atMostOnce ? nil : 3)))
        }
        s.syncs()
        s.losesPower()
        s.connects("archive", version: version)
        #expect(s.drains("archive").map(\.text) == ["1", "2"])
    }

    @Test(
        "[MQTT5-3.3.1-1] [MQTT311-3.3.1-3] What came while its receiver was away goes out without DUP, also after starts",
        arguments: [false, true])
    func firstSentAfterStart(fromCheckpoint: Bool) {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", "seen", qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.texts("archive") == ["seen"])
        s.vanishes("archive")
        s.sends("press", .publish(.text("t", "new", qos: .atLeastOnce, id: 2)))
        s.sends("press", .publish(.text("t", "newer", qos: .exactlyOnce, id: 3)))
        s.syncs()
        for _ in 0..<2 { fromCheckpoint ? s.losesPowerAndRecoversFromCheckpoint() : s.losesPower() }
        s.connects("archive")
        let got = s.received("archive").publishes
        #expect(got.map(\.text) == ["seen", "new", "newer"])
        #expect(got.map(\.duplicate) == [true, false, false])
        s.syncs()
        fromCheckpoint ? s.losesPowerAndRecoversFromCheckpoint() : s.losesPower()
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.duplicate) == [true, true, true], "now they were sent")
    }

    @Test(
        "[MQTT5-3.3.2-5] A QoS 2 message that nobody was sent expires, whatever starts lie between",
        arguments: [false, true])
    func expiresAcrossStart(fromCheckpoint: Bool) {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        var publish = Publish.text("t", qos: .exactlyOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.syncs()
        fromCheckpoint ? s.losesPowerAndRecoversFromCheckpoint() : s.losesPower()
        s.passes(milliseconds: 10_000)
        s.connects("archive")
        #expect(s.drains("archive") == [])
        let owner = SessionOwner.client(identifier: "archive")
        #expect(s.observations.contains(.dropped(owner: owner, .messageExpired, count: 1)))
    }

    enum OutOfPlace: CaseIterable {
        case pubackAtQoS2, pubackAfterPubrec, pubrecAtQoS1, pubcompAtQoS1, pubcompBeforePubrec
    }

    @Test(
        "[MQTT5-4.13.1-1] An answer that does not belong to what was sent closes the connection, and settles nothing",
        arguments: OutOfPlace.allCases, [ProtocolVersion.v3_1_1, .v5_0])
    func outOfPlace(answer: OutOfPlace, version: ProtocolVersion) {
        let qos: QoS = [.pubrecAtQoS1, .pubcompAtQoS1].contains(answer) ? .atLeastOnce : .exactlyOnce
        var s = Scenario.connected("press")
        s.connects("archive", version: version)
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: qos, id: 9)))
        s.syncs()
        guard let id = s.received("archive").publishes.first?.id else {
            Issue.record("nothing came")
            return
        }
        if answer == .pubackAfterPubrec {
            s.sends("archive", .pubrec(Acknowledgement(id)))
            s.syncs()
            #expect(s.received("archive") == [.pubrel(Acknowledgement(id))])
        }
        switch answer {
        case .pubackAtQoS2, .pubackAfterPubrec: s.sends("archive", .puback(Acknowledgement(id)))
        case .pubrecAtQoS1: s.sends("archive", .pubrec(Acknowledgement(id)))
        case .pubcompAtQoS1, .pubcompBeforePubrec: s.sends("archive", .pubcomp(Acknowledgement(id)))
        }
        #expect(s.closedClients.contains("archive"))
        #expect(s.received("archive") == (version == .v5_0 ? [.disconnect(Disconnect(.protocolError))] : []))
        s.connects("archive", version: version)
        let again = s.received("archive")
        if answer == .pubackAfterPubrec {
            #expect(again == [.pubrel(Acknowledgement(id))])
        } else {
            #expect(again.publishes.map(\.id) == [id])
        }
    }

    @Test("A PUBACK for what was not sent on this connection settles nothing")
    func strangePuback() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.sends("archive", .puback(Acknowledgement(1)))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 9)))
        s.syncs()
        let first = s.received("archive").publishes
        s.vanishes("archive")
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.id) == first.map(\.id))
    }

    @Test(
        "[MQTT5-3.6.2-1] [MQTT5-4.3.3-4] PUBREC for an unknown identifier is answered with 0x92 unless it is an error, PUBREL likewise"
    )
    func unknownIdentifiers() {
        var s = Scenario.connected("press")
        s.sends("press", .pubrec(Acknowledgement(0x8004, .unspecifiedError)))
        s.sends("press", .pubrec(Acknowledgement(0x8005)))
        s.sends("press", .pubrel(Acknowledgement(5)))
        #expect(
            s.received("press") == [
                .pubrel(Acknowledgement(0x8005, .packetIdentifierNotFound)),
                .pubcomp(Acknowledgement(5, .packetIdentifierNotFound)),
            ])
    }

    @Test("[MQTT5-4.3.3-4] PUBREC with an error ends the message, counted")
    func refusedByReceiver() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 9)))
        s.syncs()
        let id = s.received("archive").publishes.first?.id ?? 1
        s.sends("archive", .pubrec(Acknowledgement(id, .quotaExceeded)))
        s.passes(milliseconds: 1000)
        s.syncs()
        #expect(s.received("archive") == [])
        #expect(
            s.observations.contains(
                .dropped(owner: .client(identifier: "archive"), .refusedByReceiver, count: 1)))
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive") == [])  // [MQTT5-4.4.0-2]
    }

    @Test(
        "[MQTT5-4.3.3-10] [MQTT5-4.3.3-12] An identifier in use gets PUBREC again, however often, and no redelivery"
    )
    func inUse() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        for _ in 0..<4 {
            s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 9)))
            s.syncs()
            #expect(s.received("press") == [.pubrec(Acknowledgement(9))])
        }
        #expect(s.drains("screen").count == 1)
        s.sends("press", .pubrel(Acknowledgement(9)))
        s.syncs()
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 9)))
        #expect(s.drains("screen").count == 1, "released, it names a new message")
    }

    @Test("A backlog longer than memory is read back in order")
    func backlog() {
        var plan = GatewayPlan()
        plan.limits.residentBytesOfAbsentMax = 100
        plan.limits.residentBytesMax = 200
        plan.limits.loadedAtOnceMax = 7
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 1...500 {
            let qos: QoS = n % 3 == 0 ? .exactlyOnce : .atLeastOnce
            s.sends("press", .publish(.text("t", "message \(n)", qos: qos, id: 7)))
            s.syncs()
            if qos == .exactlyOnce { s.sends("press", .pubrel(Acknowledgement(7))) }
        }
        s.losesPower()
        s.connects("archive", receiveMaximum: 10)
        #expect(s.drains("archive").map(\.text) == (1...500).map { "message \($0)" })
        #expect(!s.loads.isEmpty)
    }

    @Test("A load brings no more than memory has room for, however small the messages before it were")
    func loadsByBytesOfEach() {
        var plan = GatewayPlan()
        plan.limits.residentBytesOfAbsentMax = 0
        plan.limits.residentBytesMax = 1000
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        let large = String(repeating: "x", count: 900)
        let texts = (0..<60).map { $0 < 30 ? "\($0)" : "\($0)\(large)" }
        for text in texts {
            s.sends("press", .publish(.text("t", text, qos: .atLeastOnce, id: 7)))
            s.syncs()
        }
        s.losesPowerAndRecoversFromCheckpoint()
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == texts)
        let positions = Set(s.loads.flatMap(\.1)).sorted()
        #expect(positions.count == texts.count)
        let ofLarge = Set(positions.suffix(30))
        #expect(s.loads.contains { $0.1.count > 10 })
        #expect(s.loads.allSatisfy { $0.1.count { ofLarge.contains($0) } <= 1 })
    }

    @Test("A message whose bytes are damaged is let go, counted, and the rest delivered")
    func damaged() {
        var plan = GatewayPlan()
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 1...3 { s.sends("press", .publish(.text("t", "\(n)", qos: .atLeastOnce, id: 7))) }
        s.syncs()
        s.losesPowerAndRecoversFromCheckpoint()
        s.answersLoads = false
        s.connects("archive")
        guard let (session, positions) = s.loads.last, positions.count == 3 else {
            Issue.record("three messages are asked for")
            return
        }
        s.handle(
            .storage(
                .loaded(
                    session,
                    positions.enumerated().map { i, position in
                        guard i != 1, case .message(let record) = s.journal[Int(position.number) - 1] else {
                            return (position, nil)
                        }
                        return (position, StoredMessage(record, for: session))
                    })))
        #expect(s.drains("archive").map(\.text) == ["1", "3"])
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "archive"), .damaged, count: 1)))
    }
}
