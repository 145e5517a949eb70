import GatewayCore
import MQTT
import Testing

@Suite("4.9 Flow control, pressure, and bounds")
struct FlowTests {
    @Test(
        "[MQTT5-3.3.4-9] [MQTT5-4.9.0-2] No more is in flight to a client than its Receive Maximum",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func receiveMaximum(qos: QoS) {
        var s = Scenario.connected("press")
        s.connects("screen", receiveMaximum: 2)
        s.subscribes("screen", "t")
        for n in 1...5 {
            s.sends(
                "press", .publish(.text("t", "\(n)", qos: qos, id: PacketIdentifier(rawValue: UInt16(n)))))
        }
        s.sends("press", .publish(.text("t", "QoS 0")))
        s.syncs()
        let got = s.received("screen").publishes
        #expect(got.filter { $0.qos == qos }.map(\.text) == ["1", "2"])
        #expect(got.contains { $0.text == "QoS 0" })
        guard let id = got.first(where: { $0.qos == qos })?.id else { return }
        s.sends("screen", qos == .atLeastOnce ? .puback(Acknowledgement(id)) : .pubrec(Acknowledgement(id)))
        s.syncs()
        if qos == .exactlyOnce {
            #expect(s.texts("screen") == [], "PUBREC gives nothing back")
            s.sends("screen", .pubcomp(Acknowledgement(id)))
            s.syncs()
        }
        #expect(s.texts("screen") == ["3"])
    }

    @Test("[MQTT5-3.3.4-7] A client that exceeds our Receive Maximum is disconnected with 0x93")
    func exceeded() {
        var plan = GatewayPlan()
        plan.limits.inFlightMax = 2
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2, duplicate: true)))
        #expect(!s.closedClients.contains("press"))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 3)))
        #expect(s.received("press") == [.disconnect(Disconnect(.receiveMaximumExceeded))])
        #expect(s.closedClients.contains("press"))
    }

    @Test(
        "[MQTT5-3.1.2-24] [MQTT5-3.1.2-25] What is larger than a client takes is let go, counted, and the rest goes on"
    )
    func maximumPacketSize() {
        var s = Scenario.connected("press")
        s.opens(
            "screen",
            Connect(clientIdentifier: "screen", sessionExpirySeconds: 60, maximumPacketSize: 40))
        s.syncs()
        s.subscribes("screen", "t")
        _ = s.received("screen")
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 50), qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", "small", qos: .atLeastOnce, id: 2)))
        s.syncs()
        #expect(s.drains("screen").map(\.text) == ["small"])
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "screen"), .tooLarge, count: 1)))
    }

    @Test("A socket that is full gets nothing until it drains")
    func writability() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        let connection = s.connection(of: "screen")
        s.handle(.writability(connection, false))
        s.sends("press", .publish(.text("t", "1", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", "QoS 0")))
        s.syncs()
        #expect(s.received("screen") == [])
        s.handle(.writability(connection, true))
        #expect(s.texts("screen") == ["1"])
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "screen"), .queueFull, count: 1)))
    }

    // MARK: Expiry

    private static func expiring(_ seconds: UInt32, qos: QoS, id: PacketIdentifier = 1) -> Packet {
        var publish = Publish.text("t", qos: qos, id: id)
        publish.messageExpirySeconds = seconds
        return .publish(publish)
    }

    @Test("[MQTT5-3.3.2-6] The expiry interval goes out less the time waited, through a power cut")
    func countedDown() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.sends("press", Self.expiring(100, qos: .atLeastOnce))
        s.syncs()
        s.passes(milliseconds: 30_000)
        s.losesPower()
        s.passes(milliseconds: 30_000)
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.messageExpirySeconds) == [40])
    }

    @Test(
        "[MQTT5-3.3.2-5] What expired before it was sent is not delivered, and counted",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func expired(qos: QoS) {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.sends("press", Self.expiring(10, qos: qos))
        s.syncs()
        s.passes(milliseconds: 10_000)
        s.connects("archive")
        #expect(s.received("archive") == [])
        #expect(
            s.observations.contains(
                .dropped(owner: .client(identifier: "archive"), .messageExpired, count: 1)))
    }

    @Test("A QoS 2 message that was sent never expires: its handshake must end", arguments: [false, true])
    func committed(powerCut: Bool) {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.sends("press", Self.expiring(10, qos: .exactlyOnce))
        s.syncs()
        let id = s.received("archive").publishes.first?.id
        if powerCut { s.losesPower() } else { s.vanishes("archive") }
        s.passes(milliseconds: 60_000)
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.id) == [id])
    }

    @Test(
        "What expired at QoS 2 is gone for good before anything behind it is sent, so that it cannot come later"
    )
    func expiredForGood() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.sends("press", Self.expiring(10, qos: .exactlyOnce))
        s.sends("press", .publish(Publish.text("t", "younger", qos: .exactlyOnce, id: 2)))
        s.syncs()
        s.passes(milliseconds: 10_000)
        s.opens(
            "archive",
            Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 3600))
        s.syncsOnce()
        // CONNACK was sent, and the message let go; by a Record that the power may still take.
        #expect(
            s.observations.contains(
                .dropped(owner: .client(identifier: "archive"), .messageExpired, count: 1)))
        #expect(s.received("archive").publishes == [])
        s.syncs()
        #expect(s.received("archive").publishes.map(\.text) == ["younger"])
    }

    @Test("What has expired between others goes by one Record, so that they wait once")
    func expiredTogether() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 1...10 as ClosedRange<UInt16> {
            s.sends(
                "press", Self.expiring(10, qos: .exactlyOnce, id: PacketIdentifier(integerLiteral: 2 * n)))
            s.sends(
                "press",
                .publish(
                    Publish.text(
                        "t", "\(n)", qos: .exactlyOnce, id: PacketIdentifier(integerLiteral: 2 * n + 1))))
        }
        s.syncs()
        s.passes(milliseconds: 10_000)
        s.opens(
            "archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 3600))
        s.syncsOnce()
        #expect(s.received("archive").publishes == [])
        s.syncsOnce()
        #expect(s.received("archive").publishes.map(\.text) == (1...10).map { "\($0)" })
    }

    // MARK: Topic Aliases

    @Test(
        "[MQTT5-3.3.2-7] [MQTT5-3.3.2-8] [MQTT5-3.3.2-12] An alias stands for the Topic Name it was last sent with, on its connection only"
    )
    func aliases() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "#")
        func aliased(_ topic: String, _ payload: String) -> Packet {
            var publish = Publish.text(topic, payload)
            publish.topicAlias = 1
            return .publish(publish)
        }
        s.sends("press", aliased("a", "1"))
        s.sends("press", aliased("", "2"))
        s.sends("press", aliased("b", "3"))
        s.sends("press", aliased("", "4"))
        let got = s.received("screen").publishes
        #expect(got.map { $0.topic + $0.text } == ["a1", "a2", "b3", "b4"])
        #expect(got.compactMap(\.topicAlias) == [])
        s.vanishes("press")
        s.connects("press")
        s.sends("press", aliased("", "5"))
        #expect(s.received("press") == [.disconnect(Disconnect(.protocolError))])
        #expect(s.received("screen") == [])
    }

    @Test("[MQTT5-3.2.2-17] [MQTT5-3.3.2-9] An alias above our maximum closes the connection with 0x94")
    func aliasTooHigh() {
        var s = Scenario.connected("press")
        var publish = Publish.text("t")
        publish.topicAlias = 17
        s.sends("press", .publish(publish))
        #expect(s.received("press") == [.disconnect(Disconnect(.topicAliasInvalid))])
    }

    // MARK: Pressure

    @Test("Under pressure MQTT 5 is told 0x97 and nothing is kept; QoS 0 flows on")
    func pressure5() {
        var s = Scenario.connected("press", "screen", "archive")
        s.subscribes("screen", "t")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.handle(.storage(.pressure(true)))
        let before = s.journal.count
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2)))
        s.sends("press", .publish(.text("t", "QoS 0", retain: true)))
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1, .quotaExceeded)), .pubrec(Acknowledgement(2, .quotaExceeded)),
            ])
        #expect(s.journal.count == before)
        #expect(s.texts("screen") == ["QoS 0"])
        s.handle(.storage(.pressure(false)))
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2)))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(2))])
    }

    @Test("Under pressure a retained message is not kept, but one is cleared, at QoS 0: that makes room")
    func pressureRetained() {
        var s = Scenario.connected("press")
        for topic in ["a", "b"] { s.sends("press", .publish(.text(topic, retain: true))) }
        s.syncs()
        #expect(s.gateway.state.retained.count == 2)
        s.handle(.storage(.pressure(true)))
        s.sends("press", .publish(.text("a", "", retain: true)))
        s.sends("press", .publish(.text("c", retain: true)))
        s.syncs()
        #expect(s.gateway.state.retained.count == 1)
    }

    @Test("Under pressure what a 3.1.1 client publishes waits, and is taken in order when there is room")
    func pressure311() {
        var s = Scenario.connected("archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.connects("old", version: .v3_1_1)
        s.handle(.storage(.pressure(true)))
        s.sends("old", .publish(.text("t", "1", qos: .atLeastOnce, id: 1)))
        s.sends("old", .publish(.text("t", "2", qos: .exactlyOnce, id: 2)))
        s.syncs()
        s.passes(milliseconds: 5000)
        #expect(s.received("old") == [])
        s.handle(.storage(.pressure(false)))
        s.syncs()
        #expect(s.received("old") == [.puback(Acknowledgement(1)), .pubrec(Acknowledgement(2))])
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["1", "2"])
    }

    @Test("[MQTT5-3.14.4-1] Whatever a held client sent behind its DISCONNECT is not looked at")
    func heldBehindDisconnect() {
        var s = Scenario.connected("screen")
        s.subscribes("screen", "t")
        s.connects("old", version: .v3_1_1)
        s.handle(.storage(.pressure(true)))
        s.sends("old", .publish(.text("t", "1", qos: .atLeastOnce, id: 1)))
        s.sends("old", .disconnect(Disconnect()))
        s.sends("old", .publish(.text("t", "2")))
        s.handle(.storage(.pressure(false)))
        #expect(s.drains("screen").isEmpty)
        #expect(s.received("old") == [])
    }

    @Test("Under pressure no new persistent Session begins, and an old one goes on")
    func pressureConnect() {
        var s = Scenario.connected("archive")
        s.vanishes("archive")
        s.handle(.storage(.pressure(true)))
        s.opens("fresh", Connect(clientIdentifier: "fresh", sessionExpirySeconds: 60))
        #expect(s.received("fresh").connack?.reason == .quotaExceeded)
        s.connects("archive")
        s.sends("archive", .subscribe("t"))
        s.syncs()
        #expect(s.received("archive").subackReasons == [.quotaExceeded])
    }

    @Test("A client with too many acknowledgements parked is not read until half have left")
    func parked() {
        var plan = GatewayPlan()
        plan.limits.parkedPerConnectionMax = 4
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        for n in 1...4 {
            #expect(!s.pausedClients.contains("press"))
            s.sends(
                "press", .publish(.text("t", qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(n)))))
        }
        #expect(s.pausedClients.contains("press"))
        s.syncs()
        #expect(!s.pausedClients.contains("press"))
        #expect(s.received("press").count == 4)
    }

    @Test("A persistent Session's full queue refuses; it takes again as it drains")
    func queueFull() {
        var plan = GatewayPlan()
        plan.limits.queuedMessagesMax = 2
        var s = Scenario.connected("press", "archive", plan: plan)
        s.connects("old", version: .v3_1_1)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 1...3 {
            s.sends(
                "press",
                .publish(.text("t", "\(n)", qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(n)))))
        }
        s.sends("old", .publish(.text("t", "old", qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1)), .puback(Acknowledgement(2)),
                .puback(Acknowledgement(3, .quotaExceeded)),
            ])
        #expect(s.received("old") == [])
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["1", "2"])
        s.passes(milliseconds: 1000)
        #expect(s.drains("archive").map(\.text) == ["old"])
        #expect(s.received("old") == [.puback(Acknowledgement(1))])
    }

    @Test("A Session that keeps nothing loses the newest when its queue is full, counted")
    func volatileQueueFull() {
        var plan = GatewayPlan()
        plan.limits.queuedMessagesOfVolatileMax = 2
        var s = Scenario.connected("press", plan: plan)
        s.connects("screen", expiry: 0)
        s.subscribes("screen", "t")
        for n in 1...3 { s.sends("press", .publish(.text("t", "\(n)", qos: .atLeastOnce, id: 1))) }
        #expect(s.drains("screen").map(\.text) == ["1", "2"])
        #expect(s.observations.contains(.dropped(owner: .client(identifier: "screen"), .queueFull, count: 1)))
    }

    @Test("Too many topic levels: 0x90 with an identifier, else the connection ends")
    func levels() {
        var plan = GatewayPlan()
        plan.limits.topicLevelsMax = 2
        var s = Scenario.connected("press", plan: plan)
        s.sends("press", .publish(.text("a/b/c", qos: .atLeastOnce, id: 1)))
        #expect(s.received("press") == [.puback(Acknowledgement(1, .topicNameInvalid))])
        s.sends("press", .publish(.text("a/b/c")))
        #expect(s.received("press") == [.disconnect(Disconnect(.topicNameInvalid))])
    }

    @Test(
        "P4: while the disk fails what was acknowledged stays parked, new messages are refused, and QoS 0 flows on"
    )
    func failed() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.handle(.storage(.failed))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 2)))
        s.sends("press", .publish(.text("t", "live")))
        s.passes(milliseconds: 60_000)
        #expect(s.received("press") == [])
        #expect(s.texts("archive").contains("live"))
        #expect(s.observations.contains(.storageFailed))
        s.handle(.storage(.recovered))
        s.syncs()
        #expect(
            s.received("press") == [.puback(Acknowledgement(1)), .puback(Acknowledgement(2, .quotaExceeded))])
        #expect(s.observations.contains(.storageRecovered))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 3)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(3))])
    }

    @Test(
        "P4: while the disk fails nobody is taken in for whom something must be kept; all others are, and later these"
    )
    func failedConnect() {
        var s = Scenario.connected("archive")
        s.vanishes("archive")
        s.handle(.storage(.failed))
        let kept = Connect(clientIdentifier: "kept", sessionExpirySeconds: 60)
        s.opens("kept", kept)
        #expect(s.received("kept").connack?.reason == .quotaExceeded)
        s.opens("archive", Connect(clientIdentifier: "archive"))
        #expect(s.received("archive").connack?.reason == .serverUnavailable)
        s.opens(
            "willing",
            Connect(
                clientIdentifier: "willing",
                will: Will(
                    message: ApplicationMessage(topic: "gone".utf8, payload: "willing".utf8),
                    qos: .atMostOnce,
                    retain: false)))
        #expect(s.received("willing").connack?.reason == .serverUnavailable)
        s.opens("brief", Connect(clientIdentifier: "brief"))
        #expect(s.received("brief").connack?.reason == .success)
        s.handle(.storage(.recovered))
        s.opens("kept again", kept)
        s.syncs()
        #expect(s.received("kept again").connack?.reason == .success)
    }

    @Test(
        "P4: while the disk is full to the last byte who needs a Record is refused at once; all others are let in"
    )
    func stuckConnect() {
        var s = Scenario.connected("archive")
        s.vanishes("archive")
        s.handle(.storage(.pressure(true)))
        s.handle(.storage(.stuck(true)))
        let before = s.gateway.lastPosition
        for _ in 0..<3 {
            s.opens(
                "archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 60))
            #expect(s.received("archive").connack?.reason == .quotaExceeded)
            #expect(s.closedClients.contains("archive"))
        }
        s.opens("archive", Connect(version: .v3_1_1, clientIdentifier: "archive", cleanStart: false))
        #expect(s.received("archive").connack?.reason == .serverUnavailable)
        #expect(s.gateway.lastPosition == before, "attempts leave nothing behind in memory")
        s.opens("brief", Connect(clientIdentifier: "brief"))
        #expect(s.received("brief").connack?.reason == .success)
        #expect(s.observations.filter { $0 == .stuck(true) }.count == 1)
        s.handle(.storage(.stuck(false)))
        s.handle(.storage(.pressure(false)))
        s.opens("archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 60))
        s.syncs()
        #expect(s.received("archive").connack?.sessionPresent == true)
    }
}
