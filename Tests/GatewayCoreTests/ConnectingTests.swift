import GatewayCore
import MQTT
import Testing

/// CONNECT, CONNACK, Keep Alive, DISCONNECT and Session Expiry. The encoding of the packets, and that nothing
/// but CONNECT comes first, is the codec's and tested there.
@Suite("3.1 CONNECT to 3.2 CONNACK")
struct ConnectingTests {
    /// Connects once more and says whether the gateway had the Session.
    private static func isPresent(_ s: inout Scenario, _ client: String, version: ProtocolVersion = .v5_0)
        -> Bool
    {
        s.opens(
            client,
            Connect(
                version: version, clientIdentifier: client, cleanStart: false,
                sessionExpirySeconds: version == .v5_0 ? 60 : nil))
        s.syncs()
        return s.received(client).connack?.sessionPresent ?? false
    }

    @Test(
        "[MQTT5-3.1.4-3] [MQTT311-3.1.4-2] A second connection of a client takes over: 0x8E, and the first is closed"
    )
    func takeOver() {
        var s = Scenario.connected("press")
        let first = s.connection(of: "press")
        s.opens(
            "other-socket", Connect(clientIdentifier: "press", cleanStart: false, sessionExpirySeconds: 60))
        #expect(s.received("press") == [.disconnect(Disconnect(.sessionTakenOver))])
        #expect(s.closed.contains(first))
        s.syncs()
        #expect(s.received("other-socket").connack?.sessionPresent == true)
        s.handle(.closed(first))
        s.sends("other-socket", .pingreq)
        #expect(
            s.received("other-socket") == [.pingresp], "the end of the first socket does not end the second")
    }

    @Test("[MQTT311-3.1.4-2] A 3.1.1 client that is taken over is closed without a word")
    func takeOver311() {
        var s = Scenario()
        s.connects("press", version: .v3_1_1)
        s.opens("other-socket", Connect(version: .v3_1_1, clientIdentifier: "press", cleanStart: false))
        #expect(s.received("press") == [])
        #expect(s.closedClients.contains("press"))
    }

    @Test("[MQTT5-3.1.2-4] Clean Start discards the Session; [MQTT5-3.1.2-5] without it, it goes on")
    func cleanStart() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.connects("archive", cleanStart: true)
        s.sends("press", .publish(.text("t")))
        #expect(s.received("archive") == [])
        s.vanishes("archive")
        #expect(Self.isPresent(&s, "archive"))
    }

    @Test(
        "[MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT311-3.2.2-2] Session Present tells the truth",
        arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func sessionPresent(version: ProtocolVersion) {
        var s = Scenario()
        #expect(false == Self.isPresent(&s, "press", version: version))
        s.vanishes("press")
        #expect(Self.isPresent(&s, "press", version: version))
        s.losesPower()
        #expect(Self.isPresent(&s, "press", version: version))
        s.losesPowerAndRecoversFromCheckpoint()
        #expect(Self.isPresent(&s, "press", version: version))
        s.connects("press", version: version, cleanStart: true, expiry: 0)
        s.vanishes("press")
        #expect(false == Self.isPresent(&s, "press", version: version))
    }

    @Test(
        "[MQTT5-3.2.2-3] A Session that ends with its connection is not present after a power cut, Will or none"
    )
    func volatileIsNotPresent() {
        var s = Scenario()
        s.connects("press", expiry: 0, will: .text("gone"))
        s.subscribes("press", "t")
        s.losesPowerAndRecoversFromCheckpoint()
        s.opens("press", Connect(clientIdentifier: "press", cleanStart: false))
        s.syncs()
        #expect(s.received("press").connack?.sessionPresent == false)
    }

    @Test(
        "[MQTT5-3.1.2-23] [MQTT5-4.1.0-2] A Session is kept for its expiry interval, and not longer",
        arguments: [59, 60])
    func expiry(seconds: UInt64) {
        var s = Scenario()
        s.connects("press", expiry: 60)
        s.vanishes("press")
        s.passes(milliseconds: seconds * 1000)
        #expect(Self.isPresent(&s, "press") == (seconds < 60))
    }

    @Test("[MQTT5-3.1.2-23] Session expiry goes on through a power cut")
    func expiryThroughPowerCut() {
        var s = Scenario()
        s.connects("press", expiry: 60)
        s.vanishes("press")
        s.syncs()
        s.passes(milliseconds: 59_000)
        s.losesPower()
        s.passes(milliseconds: 1000)
        #expect(false == Self.isPresent(&s, "press"))
    }

    @Test("Coming and going does not bring the end nearer")
    func expiryStartsAnew() {
        var s = Scenario()
        for _ in 0..<10 {
            s.connects("press", expiry: 60)
            s.vanishes("press")
            s.passes(milliseconds: 40_000)
        }
        s.passes(milliseconds: 19_000)
        #expect(true == Self.isPresent(&s, "press"))
        s.vanishes("press")
        s.passes(milliseconds: 60_000)
        #expect(false == Self.isPresent(&s, "press"))
    }

    @Test("[MQTT5-3.2.2.3.2] An expiry beyond the plan's is capped, and CONNACK says so")
    func expiryCap() {
        var plan = GatewayPlan()
        plan.expirySecondsMax = 100
        var s = Scenario(plan: plan)
        s.opens("press", Connect(clientIdentifier: "press", sessionExpirySeconds: .max))
        s.syncs()
        #expect(s.received("press").connack?.sessionExpirySeconds == 100)
        s.leaves("press", Disconnect(sessionExpirySeconds: 5000))
        s.passes(milliseconds: 100_000)
        #expect(false == Self.isPresent(&s, "press"))
    }

    @Test("0xFFFFFFFF never expires", arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func neverExpires(version: ProtocolVersion) {
        var s = Scenario()
        s.connects("press", version: version, expiry: .max)
        s.vanishes("press")
        s.passes(milliseconds: 10 * 365 * 86_400_000)
        #expect(Self.isPresent(&s, "press", version: version))
    }

    @Test("The plan may bound Sessions of 3.1.1 clients")
    func expiryBefore5() {
        var plan = GatewayPlan()
        plan.expirySecondsBefore5 = 100
        var s = Scenario(plan: plan)
        s.connects("press", version: .v3_1_1)
        s.vanishes("press")
        s.passes(milliseconds: 100_000)
        #expect(false == Self.isPresent(&s, "press", version: .v3_1_1))
    }

    @Test("[MQTT311-3.1.2-6] A Session begun with Clean Session 1 lasts as long as its connection")
    func cleanSession311() {
        var s = Scenario()
        s.connects("press", version: .v3_1_1, cleanStart: true)
        s.vanishes("press")
        #expect(false == Self.isPresent(&s, "press", version: .v3_1_1))
    }

    @Test("[MQTT5-3.14.2.2.2] DISCONNECT may change the expiry", arguments: [UInt32(0), 10])
    func disconnectChangesExpiry(seconds: UInt32) {
        var s = Scenario()
        s.connects("press", expiry: 3600)
        s.leaves("press", Disconnect(sessionExpirySeconds: seconds))
        s.passes(milliseconds: UInt64(seconds) * 1000)
        #expect(false == Self.isPresent(&s, "press"))
    }

    @Test("[MQTT5-3.14.2.2.2] DISCONNECT may not raise the expiry from 0")
    func disconnectFromZero() {
        var s = Scenario()
        s.connects("press", expiry: 0)
        s.sends("press", .disconnect(Disconnect(sessionExpirySeconds: 10)))
        #expect(s.received("press") == [.disconnect(Disconnect(.protocolError))])
        #expect(s.closedClients.contains("press"))
        #expect(false == Self.isPresent(&s, "press"))
    }

    @Test("[MQTT5-3.1.3-6] [MQTT5-3.2.2-16] A client without an identifier is given one of its own")
    func assigned() {
        var s = Scenario()
        s.opens("a", Connect(clientIdentifier: ""))
        s.opens("b", Connect(clientIdentifier: ""))
        let a = s.received("a").connack?.assignedClientIdentifier
        let b = s.received("b").connack?.assignedClientIdentifier
        #expect(a != nil && b != nil && a != b)
    }

    @Test(
        "[MQTT311-3.1.3-8] [MQTT311-3.1.3-9] A 3.1.1 client without an identifier must have Clean Session 1",
        arguments: [false, true])
    func noIdentifier(clean: Bool) {
        var s = Scenario()
        s.opens("a", Connect(version: .v3_1_1, clientIdentifier: "", cleanStart: clean))
        s.syncs()
        #expect(s.received("a").connack?.reason == (clean ? .success : .clientIdentifierNotValid))
        #expect(s.closedClients.contains("a") == !clean)
    }

    @Test(
        "[MQTT5-3.1.2-22] [MQTT311-3.1.2-24] A client silent for one and a half Keep Alives is disconnected",
        arguments: [UInt16(10), 600])
    func keepAlive(seconds: UInt16) {
        var s = Scenario()
        s.connects("press", keepAlive: seconds)
        let limit = UInt64(seconds) * 1500
        s.passes(milliseconds: limit - 1)
        s.sends("press", .pingreq)
        #expect(s.received("press") == [.pingresp])
        s.passes(milliseconds: limit - 1)
        #expect(!s.closedClients.contains("press"))
        s.passes(milliseconds: 1)
        #expect(s.received("press") == [.disconnect(Disconnect(.keepAliveTimeout))])
        #expect(s.closedClients.contains("press"))
    }

    @Test("Keep Alive 0 is no bound")
    func noKeepAlive() {
        var s = Scenario.connected("press")
        s.passes(milliseconds: 86_400_000)
        #expect(!s.closedClients.contains("press"))
    }

    @Test("[MQTT5-3.1.4] A connection without CONNECT is closed after a while")
    func connectTimeout() {
        var s = Scenario()
        s.handle(.opened(ConnectionID(77), listener: 0))
        s.passes(milliseconds: 9999)
        #expect(!s.closed.contains(ConnectionID(77)))
        s.passes(milliseconds: 1)
        #expect(s.closed.contains(ConnectionID(77)))
    }

    @Test("[MQTT5-3.1.0-2] [MQTT311-3.1.0-2] A second CONNECT on a connection closes it")
    func secondConnect() {
        var s = Scenario.connected("press")
        s.sends("press", .connect(Connect(clientIdentifier: "press")))
        #expect(s.received("press") == [.disconnect(Disconnect(.protocolError))])
        #expect(s.closedClients.contains("press"))
    }

    @Test("[MQTT5-4.12.0-1] An authentication method we do not know is refused")
    func authentication() {
        var s = Scenario()
        s.opens("press", Connect(clientIdentifier: "press", authenticationMethod: "SCRAM"))
        let connack = s.received("press").connack
        #expect(connack?.reason == .badAuthenticationMethod)
        #expect(connack?.sessionPresent == false)  // [MQTT5-3.2.2-6]
        #expect(s.closedClients.contains("press"))
    }

    @Test("[MQTT5-3.1.2-2] A protocol version we do not speak is told so")
    func version() {
        var s = Scenario()
        s.handle(.opened(ConnectionID(77), listener: 0))
        s.handle(.malformed(ConnectionID(77), .unsupportedProtocolVersion(9)))
        #expect(s.closed.contains(ConnectionID(77)))
    }

    @Test("[MQTT5-4.13.1-1] [MQTT5-4.13.2-1] A malformed packet is told its reason and the connection closed")
    func malformed() {
        var s = Scenario.connected("press")
        s.handle(.malformed(s.connection(of: "press"), .emptyTopicName))
        guard case .disconnect(let disconnect)? = s.received("press").last else {
            Issue.record("no DISCONNECT")
            return
        }
        #expect(disconnect.reason.isError)
        #expect(s.closedClients.contains("press"))
    }

    @Test("[MQTT5-3.2.0-1] Whatever is sent early waits behind CONNACK")
    func nothingBeforeConnack() {
        var s = Scenario()
        s.opens("press", Connect(clientIdentifier: "press", sessionExpirySeconds: 60))
        s.sends("press", .pingreq)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        #expect(s.received("press") == [])
        s.syncs()
        let packets = s.received("press")
        #expect(packets.count == 3)
        #expect(packets.first.map { [$0].connack != nil } == true)
    }

    @Test("A take-over after a lazy Record does not wait for that Record")
    func takeOverDoesNotWait() {
        var s = Scenario.connected("archive")
        s.connects("press", expiry: 0)
        s.vanishes("archive")
        #expect(s.lastUrgency == .lazy)
        s.opens("again", Connect(clientIdentifier: "press"))
        #expect(s.received("again").connack != nil)
    }
}

@Suite("Stopping in good order")
struct StoppingTests {
    @Test("Clients are told 0x8B, Sessions stay, no Will is published, nobody else is let in")
    func stops() {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "#")
        s.connects("press", will: .text("gone"))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.syncs()
        let got = s.drains("watch")
        #expect(got.map(\.text) == ["x"])
        s.handle(.stop)
        #expect(s.received("watch") == [.disconnect(Disconnect(.serverShuttingDown))])
        #expect(s.closedClients.contains("watch") && s.closedClients.contains("press"))
        s.vanishes("watch")
        s.vanishes("press")
        s.handle(.opened(ConnectionID(900), listener: 0))
        #expect(s.closed.contains(ConnectionID(900)))
        s.syncs()
        s.losesPower()
        s.connects("watch")
        #expect(s.received("watch") == [], "what was acknowledged is recorded before the end")
        s.passes(milliseconds: 60_000)
        s.syncs()
        #expect(s.texts("watch") == ["gone"], "the Will is owed by who did not come back")
    }

    @Test("[MQTT5-3.2.0-1] A connection that waits for CONNACK is closed without DISCONNECT")
    func stopsBeforeConnack() {
        var s = Scenario()
        s.opens("press", Connect(clientIdentifier: "press", sessionExpirySeconds: 60))
        s.handle(.stop)
        #expect(s.received("press") == [])
        #expect(s.closedClients.contains("press"))
    }
}
