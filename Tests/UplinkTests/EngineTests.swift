import GatewayCore
import MQTT
import Testing

@testable import Uplink

/// libmosquitto as a function of bytes: what DESIGN says it can be, and what the ledger relies on.
@Suite("The engine: libmosquitto without a network")
struct EngineTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    @Test("CONNECT comes out, CONNACK goes in, and the callback has run", arguments: versions)
    func connect(version: ProtocolVersion) throws {
        var broker = try Broker(version)
        let packets = try broker.hears()
        guard case .connect(let connect)? = packets.first, packets.count == 1 else {
            Issue.record("expected one CONNECT, got \(packets)")
            return
        }
        #expect(connect.version == version && connect.clientIdentifier == "gw")
        broker.says(.connack(Connack(sessionPresent: false, reason: .success)))
        #expect(broker.engine.takeEvents() == [.connected(code: 0)])
    }

    @Test("A PUBLISH waits for the pump, and its PUBACK runs the callback", arguments: versions)
    func publish(version: ProtocolVersion) throws {
        var broker = try Broker.connected(version)
        let text = ApplicationMessage(topic: Array("a/b".utf8), payload: [1, 2, 3])
        let mid = try #require(broker.engine.publish(text, qos: .atLeastOnce, retain: true))
        #expect(broker.engine.takeOutput().isEmpty)
        let id = try #require(PacketIdentifier(rawValue: mid))
        #expect(
            try broker.hears() == [.publish(Publish(message: text, qos: .atLeastOnce, id: id, retain: true))])
        broker.says(.puback(Acknowledgement(id)))
        #expect(broker.engine.takeEvents() == [.published(mid: mid)])
    }

    @Test("Far more messages than libmosquitto's usual 20 are in flight at once", arguments: versions)
    func manyInFlight(version: ProtocolVersion) throws {
        var broker = try Broker.connected(version)
        for _ in 0..<1000 {
            _ = try #require(broker.engine.publish(message("t"), qos: .atLeastOnce, retain: false))
        }
        #expect(try broker.hears().count == 1000)
    }

    @Test("One and a half mebibytes pass both ways, more than the pipe holds", arguments: versions)
    func large(version: ProtocolVersion) throws {
        var broker = try Broker.connected(version)
        let payload = (0..<1_572_864).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let large = ApplicationMessage(topic: Array("big".utf8), payload: payload)
        _ = try #require(broker.engine.publish(large, qos: .atMostOnce, retain: false))
        #expect(try broker.hears() == [.publish(Publish(message: large))])
        #expect(broker.engine.takeEvents() == [.published(mid: 1)])
        broker.says(.publish(Publish(message: large, qos: .atLeastOnce, id: 9)))
        #expect(broker.engine.takeEvents() == [.message(id: 9, payloadBytes: payload.count)])
        #expect(try broker.hears() == [.puback(Acknowledgement(9))])
    }

    @Test("Many packets in one piece are all read")
    func manyPackets() throws {
        var broker = try Broker.connected(.v5_0)
        broker.says(
            (1...500 as ClosedRange<UInt16>).map {
                .publish(
                    Publish(message: message("t"), qos: .atLeastOnce, id: PacketIdentifier(rawValue: $0)))
            })
        #expect(broker.engine.takeEvents().count == 500)
        #expect(try broker.hears().count == 500)
    }

    @Test("SUBSCRIBE carries the MQTT 5 options", arguments: versions)
    func subscribe(version: ProtocolVersion) throws {
        var broker = try Broker.connected(version)
        let isV5 = version == .v5_0
        let request = SubscriptionRequest(
            filter: try #require(TopicFilter("a/+/#")), maximumQoS: .exactlyOnce, noLocal: isV5,
            retainAsPublished: isV5, retainHandling: isV5 ? .sendIfNewSubscription : .sendOnSubscribe)
        let id = try #require(broker.engine.subscribe(request).flatMap(PacketIdentifier.init(rawValue:)))
        #expect(try broker.hears() == [.subscribe(Subscribe(id: id, requests: [request]))])
        broker.says(.suback(Suback(id: id, reasons: [.grantedQoS2])))
        #expect(broker.engine.takeEvents() == [.subscribed(mid: id.rawValue)])
    }

    @Test(
        "What EngineRules accepts libmosquitto reads, and what it does not, libmosquitto does not",
        arguments: [
            Array("plain".utf8), Array("ü/日本/😀".utf8), Array("a\u{1}b".utf8), Array("tab\t".utf8), [0x7F],
            [0xC2, 0x85], [0xEF, 0xB7, 0x90], [0xEF, 0xBF, 0xBF], [0xF0, 0x9F, 0xBF, 0xBE],
        ])
    func rules(topic: [UInt8]) throws {
        var broker = try Broker.connected(.v5_0)
        let accepted = EngineRules.accept(topic: topic[...])
        let message = ApplicationMessage(topic: topic, payload: [7])
        #expect((broker.engine.publish(message, qos: .atMostOnce, retain: false) != nil) == accepted)
        _ = try broker.hears()
        _ = broker.engine.takeEvents()
        broker.says(.publish(Publish(message: message)))
        if accepted {
            #expect(broker.engine.takeEvents() == [.message(id: 0, payloadBytes: 1)])
            #expect(broker.engine.failure == nil)
        }
    }

    @Test("Bytes that are no MQTT make the engine fail, not the process")
    func garbage() throws {
        var broker = try Broker.connected(.v5_0)
        broker.engine.feed(Array(repeating: 0xFF, count: 400_000))
        #expect(broker.engine.failure != nil)
        #expect(try broker.hears().allSatisfy { if case .disconnect = $0 { true } else { false } })
        #expect(broker.engine.publish(message("t"), qos: .atMostOnce, retain: false) == nil)
    }

    @Test("A directory that does not exist is reported")
    func noDirectory() {
        #expect(throws: EngineFailure.self) {
            try Engine(
                clientIdentifier: "gw", version: .v5_0, keepAliveSeconds: 60, directory: "/nowhere/at/all")
        }
    }
}

/// Engine and ledger together, spoken to in bytes.
@Suite("A conversation without a network")
struct ConversationTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    @Test("QoS 2 both ways: true QoS and own ids on the wire, no PUBACK of the engine's", arguments: versions)
    func exactlyOnce(version: ProtocolVersion) throws {
        var cloud = try Cloud(version)
        let out = Publish(message: plain("up"), qos: .exactlyOnce, id: 0x8000)
        cloud.conversation.perform(.publish(out))
        #expect(try cloud.hears() == [.publish(out)])
        cloud.says(.pubrec(Acknowledgement(0x8000)))
        #expect(cloud.conversation.takeEvents() == [.received(.pubrec(Acknowledgement(0x8000)))])
        cloud.conversation.perform(.pubrel(Acknowledgement(0x8000)))
        cloud.says(.pubcomp(Acknowledgement(0x8000)))
        #expect(try cloud.hears() == [.pubrel(Acknowledgement(0x8000))])

        _ = cloud.conversation.takeEvents()
        let down = Publish(message: plain("down"), qos: .exactlyOnce, id: 4)
        cloud.says(.publish(down))
        #expect(cloud.conversation.takeEvents() == [.received(.publish(down))])
        #expect(try cloud.hears() == [])
        cloud.conversation.perform(.pubrec(Acknowledgement(4)))
        cloud.says(.pubrel(Acknowledgement(4)))
        #expect(cloud.conversation.takeEvents() == [.received(.pubrel(Acknowledgement(4)))])
        cloud.conversation.perform(.pubcomp(Acknowledgement(4)))
        #expect(try cloud.hears() == [.pubrec(Acknowledgement(4)), .pubcomp(Acknowledgement(4))])
        #expect(cloud.conversation.ending == nil)
    }

    @Test("Topics that libmosquitto does not know pass in both directions and in order", arguments: versions)
    func oddTopics(version: ProtocolVersion) throws {
        var cloud = try Cloud(version)
        let messages = ["a", "b\u{1}", "c"].enumerated().map { index, topic in
            Publish(
                message: plain(topic), qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(index + 1)))
        }
        for publish in messages { cloud.conversation.perform(.publish(publish)) }
        #expect(try cloud.hears() == messages.map { .publish($0) })
        for publish in messages { cloud.says(.publish(publish)) }
        #expect(cloud.conversation.takeEvents() == messages.map { .received(.publish($0)) })
        #expect(cloud.conversation.ending == nil)
    }

    @Test(
        "What follows CONNACK in the same piece, or comes byte by byte, is not lost", arguments: versions,
        [1, 1000])
    func fragments(version: ProtocolVersion, size: Int) throws {
        let plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1883)], clientIdentifier: "gw",
            version: version, subscriptions: [plan("#")])
        let conversation = try Conversation(plan: plan, opening: .resume(asBridge: false), now: 0)
        let resent = Publish(message: plain("t"), qos: .exactlyOnce, id: 3, duplicate: true)
        var bytes = Wire(version).bytes([
            .connack(Connack(sessionPresent: true, reason: .success)), .publish(resent),
        ])
        while !bytes.isEmpty {
            bytes.prefix(size).withUnsafeBytes { conversation.received($0) }
            bytes.removeFirst(min(size, bytes.count))
        }
        let terms = UplinkTerms(
            version: version, sessionPresent: true, receiveMaximum: 100,
            returnsOwnMessages: version < .v5_0)
        #expect(conversation.takeEvents() == [.connected(terms), .received(.publish(resent))])
    }

    @Test("Seventy thousand messages wrap the engine's identifiers and all are acknowledged")
    func wrap() throws {
        var cloud = try Cloud(.v5_0)
        for round in 0..<700 {
            for slot in 0..<100 as Range<UInt16> {
                cloud.conversation.perform(
                    .publish(
                        Publish(
                            message: plain("t"), qos: .atLeastOnce, id: PacketIdentifier(rawValue: slot + 1)))
                )
            }
            try #require(try cloud.hears().count == 100)
            cloud.says(
                (0..<100 as Range<UInt16>).map {
                    .puback(Acknowledgement(PacketIdentifier(rawValue: $0 + 1) ?? 1))
                })
            try #require(cloud.conversation.takeEvents().count == 100, "round \(round)")
        }
        #expect(cloud.conversation.ending == nil)
    }

    @Test("[MQTT5-4.13.1-1] A malformed packet is answered with DISCONNECT and ends the conversation")
    func malformed() throws {
        var cloud = try Cloud(.v5_0)
        [0x40, 0x02, 0, 0].withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            cloud.conversation.received(bytes)
        }
        guard case .malformed? = cloud.conversation.ending else {
            Issue.record("still going on")
            return
        }
        guard case .disconnect(let disconnect)? = try cloud.hears().first else {
            Issue.record("no DISCONNECT")
            return
        }
        #expect(disconnect.reason.isError)
    }

    private func plain(_ topic: String) -> ApplicationMessage {
        ApplicationMessage(topic: Array(topic.utf8), payload: [1])
    }
}

/// Speaks as a broker to an engine.
private struct Broker {
    let engine: Engine
    private var wire: Wire

    init(_ version: ProtocolVersion) throws {
        engine = try Engine(clientIdentifier: "gw", version: version, keepAliveSeconds: 60, directory: "/tmp")
        wire = Wire(version)
    }

    static func connected(_ version: ProtocolVersion) throws -> Broker {
        var broker = try Broker(version)
        _ = try broker.hears()
        broker.says(.connack(Connack(sessionPresent: false, reason: .success)))
        _ = broker.engine.takeEvents()
        return broker
    }

    mutating func hears() throws -> [Packet] {
        engine.pump()
        return try wire.packets(engine.takeOutput())
    }

    func says(_ packet: Packet) { says([packet]) }

    /// All in one piece.
    func says(_ packets: [Packet]) { engine.feed(wire.bytes(packets)) }
}

/// Speaks as the cloud to a conversation.
private struct Cloud {
    let conversation: Conversation
    private var wire: Wire

    init(_ version: ProtocolVersion) throws {
        let plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1883)], clientIdentifier: "gw",
            version: version)
        conversation = try Conversation(plan: plan, opening: .resume(asBridge: false), now: 0)
        wire = Wire(version)
        _ = try hears()
        says(.connack(Connack(sessionPresent: false, reason: .success)))
        _ = conversation.takeEvents()
    }

    mutating func hears() throws -> [Packet] {
        conversation.flush()
        return try wire.packets(conversation.takeWireBytes())
    }

    func says(_ packet: Packet) { says([packet]) }

    /// All in one piece.
    func says(_ packets: [Packet]) {
        wire.bytes(packets).withUnsafeBytes { conversation.received($0) }
    }
}

/// Packets into bytes and back, at the end of the server.
private struct Wire {
    private let version: ProtocolVersion
    private var decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 10_000_000)

    init(_ version: ProtocolVersion) { self.version = version }

    func bytes(_ packets: [Packet]) -> [UInt8] {
        var bytes: [UInt8] = []
        for packet in packets { packet.encode(version: version, into: &bytes) }
        return bytes
    }

    mutating func packets(_ bytes: [UInt8]) throws -> [Packet] {
        bytes.withUnsafeBytes { decoder.append($0) }
        var packets: [Packet] = []
        while let packet = try decoder.next() { packets.append(packet) }
        return packets
    }
}
