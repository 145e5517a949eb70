import GatewayCore
import MQTT
import Testing

@testable import Uplink

typealias Output = HandshakeLedger.Output

/// MQTT 5 §4.3, §4.4 and MQTT 3.1.1 §4.3, §4.4 between the engine and the cloud. What is durable and when is
/// the core's, and tested there; that the outbound ids are the queue's is visible here.
@Suite("Operational behaviour: the handshake ledger")
struct HandshakeLedgerTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    // MARK: Too large

    @Test("A message larger than we take goes to the core without its payload, and not to the engine")
    func tooLarge() {
        var s = Scenario.open(.v3_1_1)
        let publish = Publish(
            message: ApplicationMessage(topic: Array("t".utf8), payload: []), qos: .exactlyOnce, id: 7)
        #expect(s.cloudTooLarge(publish) == [.event(.receivedTooLarge(publish))])
        #expect(s.core(.pubrec(Acknowledgement(7))) == [.wire(.pubrec(Acknowledgement(7)))])
    }

    // MARK: Outbound

    @Test("QoS 0 leaves without an identifier and with its own properties", arguments: versions)
    func qos0Out(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let publish = Publish(message: message("t"), retain: true, messageExpirySeconds: 7)
        #expect(s.core(.publish(publish)) == [.wire(.publish(publish))])
        #expect(s.atEngine == [.atMostOnce])
    }

    @Test(
        "[MQTT5-4.3.2-1] [MQTT311-4.3.2-1] QoS 1 leaves under the queue's id and ends with PUBACK",
        arguments: versions)
    func qos1Out(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let publish = Publish(message: message("t"), qos: .atLeastOnce, id: 0x1234)
        #expect(s.core(.publish(publish)) == [.wire(.publish(publish))])
        #expect(s.atEngine == [.atLeastOnce])
        let puback = Packet.puback(Acknowledgement(0x1234))
        #expect(s.cloud(puback) == [.event(.received(puback)), .engine(.puback(Acknowledgement(s.lastMid)))])
    }

    @Test(
        "[MQTT5-4.3.3-1] QoS 2 leaves as QoS 2; the engine hears PUBACK only at PUBCOMP", arguments: versions)
    func qos2Out(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let publish = Publish(message: message("t"), qos: .exactlyOnce, id: 0x8001)
        #expect(s.core(.publish(publish)) == [.wire(.publish(publish))])
        #expect(s.atEngine == [.atLeastOnce])
        let pubrec = Packet.pubrec(Acknowledgement(0x8001))
        #expect(s.cloud(pubrec) == [.event(.received(pubrec))])
        let pubrel = Packet.pubrel(Acknowledgement(0x8001))
        #expect(s.core(pubrel) == [.wire(pubrel)])
        let pubcomp = Packet.pubcomp(Acknowledgement(0x8001))
        #expect(
            s.cloud(pubcomp) == [.event(.received(pubcomp)), .engine(.puback(Acknowledgement(s.lastMid)))])
        // Once more is the core's to ignore; the engine is done.
        #expect(s.cloud(pubcomp) == [.event(.received(pubcomp))])
    }

    @Test("[MQTT5-4.3.3-4] PUBREC with an error ends the message for the engine too")
    func pubrecError() {
        var s = Scenario.open(.v5_0)
        _ = s.core(.publish(Publish(message: message("t"), qos: .exactlyOnce, id: 0x8001)))
        let pubrec = Packet.pubrec(Acknowledgement(0x8001, .quotaExceeded))
        #expect(s.cloud(pubrec) == [.event(.received(pubrec)), .engine(.puback(Acknowledgement(s.lastMid)))])
    }

    @Test("[MQTT5-4.4.0-1] A resumed PUBREL concerns the core alone", arguments: versions)
    func resumedPubrel(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let pubrel = Packet.pubrel(Acknowledgement(0x8009))
        #expect(s.core(pubrel) == [.wire(pubrel)])
        let pubcomp = Packet.pubcomp(Acknowledgement(0x8009))
        #expect(s.cloud(pubcomp) == [.event(.received(pubcomp))])
    }

    @Test("[MQTT5-3.3.1-1] A resent PUBLISH carries DUP and the same id", arguments: versions)
    func resentPublish(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let publish = Publish(message: message("t"), qos: .exactlyOnce, id: 0x8009, duplicate: true)
        #expect(s.core(.publish(publish)) == [.wire(.publish(publish))])
    }

    @Test("[MQTT5-4.6.0-1] Messages leave in the core's order, whatever their QoS")
    func order() {
        var s = Scenario.open(.v5_0)
        let first = Publish(message: message("a"))
        let second = Publish(message: message("b"), qos: .atLeastOnce, id: 1)
        let third = Publish(message: message("c"), qos: .exactlyOnce, id: 0x8000)
        let fourth = Publish(message: message("d"))
        let out = s.core(.publish(first), .publish(second), .publish(third), .publish(fourth))
        #expect(out == [first, second, third, fourth].map { .wire(.publish($0)) })
    }

    @Test("A message the engine will not take goes around it")
    func aroundEngine() {
        var s = Scenario.open(.v5_0)
        s.engineRefuses = true
        let publish = Publish(message: message("\u{7}"), qos: .atLeastOnce, id: 3)
        #expect(s.core(.publish(publish)) == [.wire(.publish(publish))])
        let puback = Packet.puback(Acknowledgement(3))
        #expect(s.cloud(puback) == [.event(.received(puback))])
    }

    // MARK: Inbound

    @Test(
        "A QoS 1 or 2 PUBLISH is QoS 1 to the engine and itself to the core", arguments: versions,
        [QoS.atLeastOnce, .exactlyOnce])
    func inbound(version: ProtocolVersion, qos: QoS) {
        var s = Scenario.open(version)
        let publish = Publish(
            message: message("t"), qos: qos, id: 5, retain: true, duplicate: true,
            messageExpirySeconds: version == .v5_0 ? 60 : nil)
        let shown = Publish(
            message: ApplicationMessage(topic: Array("t".utf8), payload: [1, 2]), qos: .atLeastOnce, id: 5,
            retain: true)
        #expect(
            s.cloud(.publish(publish)) == [.engine(.publish(shown)), .event(.received(.publish(publish)))])
        #expect(s.engineWrites(.puback(Acknowledgement(5))) == [])
        let answer = qos == .atLeastOnce ? Packet.puback(Acknowledgement(5)) : .pubrec(Acknowledgement(5))
        #expect(s.core(answer) == [.wire(answer)])
    }

    @Test(
        "[MQTT5-4.3.3-10] A repeated QoS 2 PUBLISH reaches the core, which knows it; PUBREL and PUBCOMP pass",
        arguments: versions)
    func inboundRepeated(version: ProtocolVersion) {
        var s = Scenario.open(version)
        let publish = Publish(message: message("t"), qos: .exactlyOnce, id: 5)
        #expect(s.cloud(.publish(publish)).last == .event(.received(.publish(publish))))
        #expect(s.cloud(.publish(publish)).last == .event(.received(.publish(publish))))
        _ = s.core(.pubrec(Acknowledgement(5)))
        let pubrel = Packet.pubrel(Acknowledgement(5))
        #expect(s.cloud(pubrel) == [.event(.received(pubrel))])
        #expect(s.core(.pubcomp(Acknowledgement(5))) == [.wire(.pubcomp(Acknowledgement(5)))])
    }

    @Test("QoS 0 arrives as QoS 0")
    func inboundQoS0() {
        var s = Scenario.open(.v5_0)
        let publish = Publish(message: message("t"))
        #expect(s.cloud(.publish(publish)).last == .event(.received(.publish(publish))))
    }

    @Test("A Topic Name that libmosquitto would hang up on reaches the core around it")
    func inboundAround() {
        var s = Scenario.open(.v5_0)
        let publish = Publish(message: message("a\tb"), qos: .atLeastOnce, id: 1)
        #expect(s.cloud(.publish(publish)) == [.event(.received(.publish(publish)))])
    }

    @Test("[MQTT5-3.3.4-9] More unacknowledged messages than our Receive Maximum are taken, not hung up on")
    func receiveMaximum() {
        var s = Scenario.open(.v5_0) { $0.receiveMaximum = 2 }
        for id in 1...1000 as ClosedRange<UInt16> {
            let publish = Publish(
                message: message("t"), qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))
            let outputs = s.cloud(.publish(publish))
            #expect(outputs.contains(.event(.received(.publish(publish)))))
        }
    }

    @Test("[MQTT5-3.3.2-11] A Topic Alias, of which we allow none, ends the connection")
    func topicAlias() {
        var s = Scenario.open(.v5_0)
        #expect(
            s.cloud(.publish(Publish(message: message("t"), topicAlias: 1))) == [
                .wire(.disconnect(Disconnect(.topicAliasInvalid))), .over(.protocolError(.topicAliasInvalid)),
            ])
    }

    // MARK: CONNECT and CONNACK

    @Test("[MQTT5-3.1.2-4] CONNECT bears the plan's session, limits and credentials")
    func connectV5() {
        var s = Scenario(.v5_0, opening: .clean) {
            $0.userName = "u"
            $0.password = [0, 1]
            $0.sessionExpirySeconds = 77
            $0.keepAliveSeconds = 3
        }
        #expect(
            s.engineWrites(.connect(Connect(clientIdentifier: "x", keepAliveSeconds: 5))) == [
                .wire(
                    .connect(
                        Connect(
                            clientIdentifier: "gw", cleanStart: true, keepAliveSeconds: 3, userName: "u",
                            password: [0, 1], sessionExpirySeconds: 77, receiveMaximum: 100)))
            ])
    }

    @Test("[MQTT311-3.1.2-4] CONNECT resumes with Clean Session 0 and the bridge bit")
    func connectV311() {
        var s = Scenario(.v3_1_1, opening: .resume(asBridge: true))
        #expect(
            s.engineWrites(.connect(Connect(version: .v3_1_1, clientIdentifier: "x"))) == [
                .wire(
                    .connect(
                        Connect(
                            version: .v3_1_1, clientIdentifier: "gw", cleanStart: false, keepAliveSeconds: 60,
                            isBridge: true)))
            ])
    }

    @Test("CONNACK's limits are the core's, not the engine's")
    func terms() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false))
        let connack = Connack(
            sessionPresent: true, reason: .success, receiveMaximum: 9, maximumQoS: .atLeastOnce,
            retainAvailable: false, maximumPacketSize: 1000, topicAliasMaximum: 4)
        #expect(
            s.cloud(.connack(connack)) == [
                .notice(.maximumQoS(.atLeastOnce)), .notice(.retainNotAvailable),
                .engine(.connack(Connack(sessionPresent: false, reason: .success))),
                .event(
                    .connected(
                        UplinkTerms(
                            version: .v5_0, sessionPresent: true, receiveMaximum: 9, maximumQoS: .atLeastOnce,
                            maximumPacketSize: 1000, retainAvailable: false))),
            ])
    }

    @Test("A refused CONNECT ends the connection with the reason", arguments: versions)
    func refused(version: ProtocolVersion) {
        var s = Scenario(version, opening: .resume(asBridge: false))
        #expect(
            s.cloud(.connack(Connack(sessionPresent: false, reason: .notAuthorized))) == [
                .over(.refused(.notAuthorized))
            ])
        #expect(s.cloud(.pingresp) == [])
    }

    @Test("[MQTT5-3.2.2-2] A session after Clean Start is a broken rule")
    func sessionAfterCleanStart() {
        var s = Scenario(.v5_0, opening: .clean)
        let out = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        #expect(out.last == .over(.protocolError(.protocolError)))
    }

    @Test("[MQTT311-3.1.2-6] Before MQTT 5 a clean session is made and left again")
    func sweep() {
        var s = Scenario(.v3_1_1, opening: .sweep(asBridge: false))
        #expect(
            s.cloud(.connack(Connack(sessionPresent: false, reason: .success))) == [
                .wire(.disconnect(Disconnect())), .over(.swept),
            ])
    }

    @Test("Anything but CONNACK at first is a broken rule")
    func firstPacket() {
        var s = Scenario(.v3_1_1, opening: .resume(asBridge: false))
        #expect(s.cloud(.pingresp) == [.over(.protocolError(.protocolError))])
    }

    @Test("Before CONNACK the core's packets go nowhere")
    func notYetOpen() {
        var s = Scenario(.v5_0, opening: .clean)
        #expect(s.core(.puback(Acknowledgement(1))) == [])
    }

    // MARK: Subscriptions

    @Test("SUBSCRIBE leaves when the core says so, under an id no message has")
    func subscribe() throws {
        var s = Scenario(.v5_0, opening: .clean) { $0.subscriptions = [plan("cmd/#"), plan("$share/g/x")] }
        #expect(
            s.cloud(.connack(Connack(sessionPresent: false, reason: .success))).last
                == .event(.connected(UplinkTerms(version: .v5_0, sessionPresent: false, receiveMaximum: 100)))
        )
        let out = s.coreSubscribes()
        let wire = out.compactMap { output -> Subscribe? in
            if case .wire(.subscribe(let subscribe)) = output { subscribe } else { nil }
        }
        #expect(wire.map(\.id) == [0x7001, 0x7002])
        #expect(
            wire.flatMap(\.requests) == [
                SubscriptionRequest(
                    filter: try #require(TopicFilter("cmd/#")), maximumQoS: .exactlyOnce, noLocal: true,
                    retainAsPublished: true, retainHandling: .sendIfNewSubscription),
                SubscriptionRequest(
                    filter: try #require(TopicFilter("$share/g/x")), maximumQoS: .exactlyOnce, noLocal: false,
                    retainAsPublished: true, retainHandling: .sendIfNewSubscription),
            ])
        #expect(
            s.cloud(.suback(Suback(id: 0x7001, reasons: [.grantedQoS2]))) == [
                .engine(.suback(Suback(id: 1, reasons: [.grantedQoS2])))
            ])
        #expect(
            s.cloud(.suback(Suback(id: 0x7002, reasons: [.notAuthorized]))) == [
                .notice(.subscriptionRefused(try #require(TopicFilter("$share/g/x")), .notAuthorized)),
                .engine(.suback(Suback(id: 2, reasons: [.notAuthorized]))),
            ])
    }

    // MARK: Time and endings

    @Test("[MQTT5-3.1.2-20] A quiet connection is pinged, and given up without an answer")
    func keepAlive() {
        var s = Scenario.open(.v5_0) { $0.keepAliveSeconds = 10 }
        #expect(s.tick(9) == [])
        #expect(s.tick(10) == [.wire(.pingreq)])
        #expect(s.engineWrites(.pingreq) == [])
        #expect(s.cloud(.pingresp) == [.engine(.pingresp)])
        #expect(s.tick(20) == [.wire(.pingreq)])
        #expect(s.tick(29) == [])
        #expect(s.tick(30) == [.over(.noPingresp)])
    }

    @Test("[MQTT5-3.2.2-21] The cloud's Keep Alive replaces ours")
    func serverKeepAlive() {
        var s = Scenario(.v5_0, opening: .clean)
        _ = s.cloud(.connack(Connack(sessionPresent: false, reason: .success, serverKeepAliveSeconds: 4)))
        #expect(s.tick(4) == [.wire(.pingreq)])
    }

    @Test("Without CONNACK the connection is given up")
    func noConnack() {
        var s = Scenario(.v5_0, opening: .clean)
        #expect(s.tick(9) == [])
        #expect(s.tick(10) == [.over(.noConnack)])
    }

    @Test("The watchdog wants an acknowledgement only while one is owed")
    func watchdog() {
        var s = Scenario.open(.v5_0) { $0.keepAliveSeconds = 0 }
        #expect(s.tick(100) == [])
        _ = s.core(.publish(Publish(message: message("t"), qos: .exactlyOnce, id: 0x8001)))
        _ = s.core(.publish(Publish(message: message("t"), qos: .atLeastOnce, id: 1)))
        #expect(s.tick(159) == [])
        _ = s.cloud(.pubrec(Acknowledgement(0x8001)))
        #expect(s.tick(218) == [])
        _ = s.cloud(.puback(Acknowledgement(1)))
        #expect(s.tick(277) == [])
        #expect(s.tick(278) == [.over(.noAcknowledgement)])
    }

    @Test("[MQTT5-3.14.4] The cloud's DISCONNECT ends the connection")
    func cloudDisconnects() {
        var s = Scenario.open(.v5_0)
        #expect(
            s.cloud(.disconnect(Disconnect(.serverShuttingDown))) == [
                .over(.disconnected(.serverShuttingDown))
            ])
    }

    @Test("An engine that reuses an identifier in flight is given up")
    func reusedEngineIdentifier() {
        var s = Scenario.open(.v5_0)
        _ = s.core(.publish(Publish(message: message("t"), qos: .atLeastOnce, id: 1)))
        s.lastMid = 0xFFFF
        s.nextMid = 1
        let out = s.core(.publish(Publish(message: message("t"), qos: .atLeastOnce, id: 2)))
        #expect(out == [.over(.engine("its packet identifiers ran out"))])
    }
}

/// A ledger with an engine that does as libmosquitto does, kept simple enough to see through.
struct Scenario {
    private var ledger: HandshakeLedger
    var engineRefuses = false
    /// The QoS of what the engine was asked to publish.
    private(set) var atEngine: [QoS] = []
    var nextMid: UInt16 = 1
    var lastMid: PacketIdentifier = 1

    init(_ version: ProtocolVersion, opening: UplinkOpening, adjust: (inout UplinkPlan) -> Void = { _ in }) {
        var plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1883)], clientIdentifier: "gw",
            version: version)
        adjust(&plan)
        ledger = HandshakeLedger(plan: plan, opening: opening, now: 0)
    }

    static func open(_ version: ProtocolVersion, adjust: (inout UplinkPlan) -> Void = { _ in }) -> Scenario {
        var s = Scenario(version, opening: .resume(asBridge: false), adjust: adjust)
        _ = s.cloud(.connack(Connack(sessionPresent: false, reason: .success)))
        return s
    }

    mutating func cloud(_ packet: Packet) -> [Output] {
        var outputs: [Output] = []
        ledger.fromWire(packet, into: &outputs)
        return settled(outputs)
    }

    mutating func core(_ packets: Packet...) -> [Output] {
        var outputs: [Output] = []
        for packet in packets { ledger.fromCore(packet, into: &outputs) }
        return settled(outputs)
    }

    mutating func coreSubscribes() -> [Output] {
        var outputs: [Output] = []
        ledger.subscribe(into: &outputs)
        return settled(outputs)
    }

    mutating func engineWrites(_ packet: Packet) -> [Output] {
        var outputs: [Output] = []
        ledger.fromEngine(packet, into: &outputs)
        return settled(outputs)
    }

    mutating func leaves() -> [Output] {
        var outputs: [Output] = []
        ledger.leave(into: &outputs)
        return settled(outputs)
    }

    mutating func cloudTooLarge(_ publish: Publish) -> [Output] {
        var outputs: [Output] = []
        ledger.tooLarge(publish, into: &outputs)
        return settled(outputs)
    }

    mutating func tick(_ seconds: UInt64) -> [Output] {
        var outputs: [Output] = []
        ledger.tick(now: seconds * 1000, into: &outputs)
        return settled(outputs)
    }

    /// Lets the engine react; returns what concerns others than it, and the packets it read.
    private mutating func settled(_ outputs: [Output]) -> [Output] {
        var todo = outputs
        var seen: [Output] = []
        while !todo.isEmpty {
            let output = todo.removeFirst()
            switch output {
            case .publish(let publish):
                enginePublishes(publish, &todo)
            case .subscribe(let request):
                let mid = takeMid()
                ledger.subscribed(to: request.filter, as: mid)
                ledger.fromEngine(.subscribe(Subscribe(id: mid, requests: [request])), into: &todo)
            case .engine(.connack):
                seen.append(output)
                ledger.engineConnected(into: &todo)
            case .engine(.publish(let publish)):
                seen.append(output)
                ledger.engineReceived(
                    id: publish.id?.rawValue ?? 0, payloadBytes: publish.message.payload.count, into: &todo)
            case .engine, .wire, .event, .notice, .over:
                seen.append(output)
            }
        }
        return seen
    }

    private mutating func enginePublishes(_ publish: Publish, _ todo: inout [Output]) {
        guard !engineRefuses else { return ledger.published(publish, as: nil, into: &todo) }
        let mid = takeMid()
        let qos = min(publish.qos, .atLeastOnce)
        atEngine.append(qos)
        ledger.published(publish, as: mid, into: &todo)
        ledger.fromEngine(
            .publish(Publish(message: publish.message, qos: qos, id: qos == .atMostOnce ? nil : mid)),
            into: &todo)
    }

    private mutating func takeMid() -> PacketIdentifier {
        lastMid = PacketIdentifier(rawValue: nextMid) ?? 1
        nextMid += 1
        return lastMid
    }
}

/// Two bytes of payload and a Content Type.
func message(_ topic: String) -> ApplicationMessage {
    ApplicationMessage(topic: Array(topic.utf8), properties: [0x03, 0, 1, 0x61], payload: [1, 2])
}

func plan(_ filter: String) -> UplinkPlan.Subscription {
    guard let filter = TopicFilter(filter) else { preconditionFailure("a filter in a test is valid") }
    return UplinkPlan.Subscription(filter, .exactlyOnce)
}
