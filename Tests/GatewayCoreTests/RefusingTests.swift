import MQTT
import Testing

@testable import GatewayCore

/// How a client is told that it will not have what it asked for. That the answer is written in the version the
/// client asked for is the transport's part.
@Suite("3.1.4 CONNECT refused, and Reason Strings")
struct RefusingTests {
    // MARK: CONNECT that cannot be read

    @Test(
        "[MQTT5-4.13.2-1] [MQTT5-3.1.4-1] [MQTT5-3.1.4-6] A malformed CONNECT of MQTT 5 is told why, then closed",
        arguments: [
            (MalformedPacket.bodyTooShort, ReasonCode.malformedPacket),
            (.reservedConnectFlag, .malformedPacket),
            (.duplicateProperty(0x21), .protocolError), (.propertyValueOutOfRange(0x21), .protocolError),
            (.authenticationDataWithoutMethod, .protocolError), (.wildcardInTopicName, .topicNameInvalid),
            (.invalidClientIdentifier, .clientIdentifierNotValid),
            (.unsupportedProtocolVersion(6), .unsupportedProtocolVersion),
        ])
    func malformed5(error: MalformedPacket, reason: ReasonCode) {
        let sent = Self.answer(to: error, in: .v5_0)
        #expect(sent == [.connack(Connack(sessionPresent: false, reason: reason))])
    }

    @Test(
        "[MQTT311-3.1.4-1] A malformed CONNECT of 3.1 or 3.1.1 is closed without CONNACK",
        arguments: [ProtocolVersion.v3_1, .v3_1_1],
        [MalformedPacket.bodyTooShort, .reservedConnectFlag, .passwordWithoutUserName, .invalidWillQoS])
    func malformedBefore5(version: ProtocolVersion, error: MalformedPacket) {
        #expect(Self.answer(to: error, in: version) == [])
    }

    @Test(
        "[MQTT311-3.1.2-2] [MQTT311-3.1.3-9] The version and the Client Identifier have their Return Codes",
        arguments: [
            (MalformedPacket.unsupportedProtocolVersion(9), ReasonCode.unsupportedProtocolVersion),
            (.invalidClientIdentifier, .clientIdentifierNotValid),
        ])
    func returnCodes(error: MalformedPacket, reason: ReasonCode) {
        let sent = Self.answer(to: error, in: .v3_1_1)
        #expect(sent == [.connack(Connack(sessionPresent: false, reason: reason))])
    }

    @Test(
        "[MQTT5-3.1.0-1] What never was a CONNECT is closed without a word",
        arguments: [MalformedPacket.firstPacketNotConnect, .wrongProtocolName, .packetTooLarge])
    func notMQTT(error: MalformedPacket) { #expect(Self.answer(to: error, in: nil) == []) }

    private static func answer(to error: MalformedPacket, in version: ProtocolVersion?) -> [Packet] {
        let id = ConnectionID(77)
        var effects: [Effect] = []
        var gateway = Gateway(
            plan: GatewayPlan(), state: DurableState(), lastPosition: .zero, now: Instant(milliseconds: 1),
            into: &effects)
        let now = Instant(milliseconds: 1_000_001)
        gateway.handle(.opened(id, listener: 0), at: now, into: &effects)
        gateway.handle(.malformed(id, error, in: version), at: now, into: &effects)
        var sent: [Packet] = []
        var isClosed = false
        for effect in effects {
            switch effect {
            case .send(id, let packet):
                #expect(!isClosed)
                sent.append(packet)
            case .close(id): isClosed = true
            default: break
            }
        }
        #expect(isClosed)
        return sent
    }

    // MARK: Client Identifiers of MQTT 3.1

    @Test(
        "MQTT 3.1 allows 23 characters, and Return Code 2 is for more; later versions have no such bound",
        arguments: [
            (ProtocolVersion.v3_1, 23, true), (.v3_1, 24, false), (.v3_1_1, 24, true), (.v5_0, 300, true),
        ])
    func clientIdentifierLength(version: ProtocolVersion, length: Int, isTaken: Bool) {
        var s = Scenario()
        s.opens("old", Connect(version: version, clientIdentifier: String(repeating: "ü", count: length)))
        s.syncs()
        #expect(s.received("old").connack?.reason == (isTaken ? .success : .clientIdentifierNotValid))
        #expect(s.closedClients.contains("old") == !isTaken)
    }

    @Test("A bridge of MQTT 3.1 names itself as it likes")
    func bridge() {
        var s = Scenario()
        s.opens(
            "bridge",
            Connect(version: .v3_1, clientIdentifier: "gateway-in-the-cellar.to-the-office", isBridge: true))
        s.syncs()
        #expect(s.received("bridge").connack?.reason == .success)
    }

    // MARK: Authentication and Response Information

    @Test(
        "[MQTT5-4.12.0-1] [MQTT5-3.1.4-2] An Authentication Method is answered with 0x8C and a reason, then closed"
    )
    func authenticationMethod() {
        var s = Scenario()
        s.opens("press", Connect(clientIdentifier: "press", authenticationMethod: "SCRAM"))
        let connack = s.receivedInFull("press").connack
        #expect(connack?.reason == .badAuthenticationMethod)
        #expect(connack?.reasonString == "no Authentication Method is offered here")
        #expect(connack?.authenticationMethod == nil)
        #expect(s.closedClients == ["press"])
    }

    @Test(
        "[MQTT5-4.12.0-6] AUTH without a method in CONNECT is a Protocol Error, re-authentication too",
        arguments: [ReasonCode.continueAuthentication, .reauthenticate])
    func auth(reason: ReasonCode) {
        var s = Scenario.connected("press")
        s.sends("press", .auth(Auth(reason, authenticationMethod: "SCRAM")))
        #expect(s.received("press") == [.disconnect(Disconnect(.protocolError))])
        #expect(s.closedClients == ["press"])
    }

    @Test(
        "[MQTT5-3.1.2-28] Nobody is sent Response Information, not even who asks", arguments: [false, true])
    func responseInformation(asks: Bool) {
        var s = Scenario()
        s.opens("press", Connect(clientIdentifier: "press", requestResponseInformation: asks))
        s.syncs()
        let connack = s.received("press").connack
        #expect(connack?.reason == .success && connack?.responseInformation == nil)
    }

    // MARK: Reason Strings

    /// A client that is refused a PUBLISH at QoS 1 and 2 and a SUBSCRIBE, and then disconnected.
    private static func refused(
        version: ProtocolVersion = .v5_0, wantsReasons: Bool = true, packetBytesMax: UInt32? = nil
    ) -> [Packet] {
        var plan = GatewayPlan()
        plan.limits.topicLevelsMax = 2
        var s = Scenario(plan: plan)
        s.opens(
            "press",
            Connect(
                version: version, clientIdentifier: "press", maximumPacketSize: packetBytesMax,
                requestProblemInformation: wantsReasons))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .subscribe("a/b/c"))
        if version == .v5_0 {
            s.sends("press", .publish(.text("a/b/c", qos: .atLeastOnce, id: 1)))
            s.sends("press", .publish(.text("a/b/c", qos: .exactlyOnce, id: 2)))
        }
        s.handle(.malformed(s.connection(of: "press"), .zeroPacketIdentifier, in: version))
        return s.receivedInFull("press")
    }

    @Test("[MQTT5-3.1.2.11.7] Refusals say why in words")
    func words() {
        #expect(
            Self.refused().map(\.reasonString) == [
                "the Topic Filter has more levels than are allowed here",
                "the Topic Name has more levels than are allowed here",
                "the Topic Name has more levels than are allowed here", "the Packet Identifier is 0",
            ])
    }

    @Test("[MQTT5-3.1.2-29] With Request Problem Information 0 only CONNACK and DISCONNECT do")
    func silence() {
        #expect(
            Self.refused(wantsReasons: false).map(\.reasonString) == [
                nil, nil, nil, "the Packet Identifier is 0",
            ])
        var s = Scenario()
        s.opens(
            "press",
            Connect(
                clientIdentifier: "press", requestProblemInformation: false, authenticationMethod: "SCRAM"))
        #expect(s.receivedInFull("press").connack?.reasonString != nil)
    }

    // From 18 bytes on: a client that takes less cannot be sent its CONNACK, and is refused.
    @Test(
        "[MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.9.2-1] [MQTT5-3.14.2-3] No Reason String makes a packet larger than the client takes",
        arguments: UInt32(18)...80)
    func size(max: UInt32) {
        let sent = Self.refused(packetBytesMax: max)
        #expect(sent.count == 4)
        for packet in sent {
            var bytes: [UInt8] = []
            packet.encode(version: .v5_0, into: &bytes)
            #expect(bytes.count <= Int(max))
        }
        #expect(sent.contains { $0.reasonString != nil } == (max >= 33))
    }

    @Test("[MQTT5-3.2.2-19] Nor does it CONNACK", arguments: [(30, false), (200, true)] as [(UInt32, Bool)])
    func connackSize(max: UInt32, isExplained: Bool) {
        var s = Scenario()
        s.opens(
            "press", Connect(clientIdentifier: "press", maximumPacketSize: max, authenticationMethod: "SCRAM")
        )
        let connack = s.receivedInFull("press").connack
        #expect(connack?.reason == .badAuthenticationMethod)
        #expect((connack?.reasonString != nil) == isExplained)
    }

    // MARK: Answers too large for their client

    /// A client that takes 100 bytes asks to subscribe to `count` filters, or to unsubscribe from them.
    private static func many(_ count: Int, unsubscribes: Bool, levelsMax: Int = 128) throws -> [Packet] {
        var plan = GatewayPlan()
        plan.limits.topicLevelsMax = levelsMax
        var s = Scenario(plan: plan)
        s.opens(
            "press", Connect(clientIdentifier: "press", sessionExpirySeconds: 60, maximumPacketSize: 100))
        s.syncs()
        #expect(s.received("press").connack?.reason == .success)
        if unsubscribes { s.subscribes("press", "a/1") }
        let filters = try (1...count).map { try #require(TopicFilter("a/\($0)")) }
        s.sends(
            "press",
            unsubscribes
                ? .unsubscribe(Unsubscribe(id: 1, filters: filters))
                : .subscribe(
                    Subscribe(
                        id: 1,
                        requests: filters.map { SubscriptionRequest(filter: $0, maximumQoS: .atLeastOnce) })
                ))
        s.syncs()
        let answers = s.receivedInFull("press")
        let isDisconnected = answers.contains { if case .disconnect = $0 { true } else { false } }
        #expect(s.closedClients.contains("press") == isDisconnected)
        // Not answered is not carried out.
        let session = try #require(s.gateway.state.session(of: .client(identifier: "press")))
        let subscriptions = s.gateway.state[session]?.subscriptions.count
        let done = unsubscribes ? 0 : levelsMax < 2 ? 0 : count
        let undone = unsubscribes ? 1 : 0
        #expect(subscriptions == (isDisconnected ? undone : done))
        return answers
    }

    @Test(
        "[MQTT5-3.1.2-24] A SUBSCRIBE or UNSUBSCRIBE whose answer is larger than its client takes ends in 0x95",
        arguments: [95, 96, 1000], [true, false])
    func answerTooLarge(count: Int, unsubscribes: Bool) throws {
        let answers = try Self.many(count, unsubscribes: unsubscribes)
        #expect(answers.count == 1)
        let answer = try #require(answers.first)
        var bytes: [UInt8] = []
        answer.encode(version: .v5_0, into: &bytes)
        #expect(bytes.count <= 100)
        switch answer {
        case .suback(let suback): #expect(count == 95 && suback.reasons.count == 95)
        case .unsuback(let unsuback): #expect(count == 95 && unsuback.reasons.count == 95)
        case .disconnect(let disconnect):
            #expect(count > 95 && disconnect.reason == .packetTooLarge)
            #expect(disconnect.reasonString?.isEmpty == false)
        default: Issue.record("\(answer)")
        }
    }

    @Test("[MQTT5-3.9.2-1] The Reason String goes first", arguments: [(30, true), (95, false)])
    func reasonStringGoesFirst(count: Int, isExplained: Bool) throws {
        let answers = try Self.many(count, unsubscribes: false, levelsMax: 1)
        #expect(answers.count == 1)
        let reasons = answers.subackReasons
        #expect(reasons == Array(repeating: .topicFilterInvalid, count: count))
        #expect((answers.first?.reasonString != nil) == isExplained)
    }

    @Test("Before MQTT 5 there are no words", arguments: [ProtocolVersion.v3_1, .v3_1_1])
    func before5(version: ProtocolVersion) {
        #expect(Self.refused(version: version).allSatisfy { $0.reasonString == nil })
    }
}
