import MQTT
import Testing

/// A connection is a stream: nothing may depend on how it is cut up [MQTT5-4.2], [MQTT311-4.2].
///
/// Not tested here: the order in which packets are handled [MQTT5-4.6], which is the core's.
@Suite("4.2 Network Connections")
struct DecodingStreamTests {
    /// All examples that one side of one version may receive one after the other.
    struct Conversation: Sendable, CustomTestStringConvertible {
        let version: ProtocolVersion
        let receiver: PacketDecoder.Receiver

        var examples: [Example] {
            let mine = Examples.all.filter { $0.version == version && $0.receiver == receiver }
            return Array(mine.filter(\.isConnect).prefix(1)) + mine.filter { !$0.isConnect }
        }
        var bytes: [UInt8] { examples.flatMap(\.bytes) }
        var packets: [Packet] { examples.map(\.packet) }
        func decoder(maximumPacketSize: Int = 1 << 16) -> PacketDecoder {
            PacketDecoder(
                receiver: receiver, version: receiver == .server ? nil : version,
                maximumPacketSize: maximumPacketSize)
        }
        var testDescription: String { "\(version) to the \(receiver)" }
    }

    static let conversations = [ProtocolVersion.v3_1, .v3_1_1, .v5_0].flatMap {
        [Conversation(version: $0, receiver: .server), Conversation(version: $0, receiver: .client)]
    }

    @Test("byte by byte", arguments: conversations)
    func byteByByte(_ conversation: Conversation) throws {
        var decoder = conversation.decoder()
        var packets: [Packet] = []
        for byte in conversation.bytes {
            decoder.append([byte])
            packets += try decoder.all()
        }
        #expect(packets == conversation.packets)
    }

    @Test("all at once", arguments: conversations)
    func atOnce(_ conversation: Conversation) throws {
        var decoder = conversation.decoder()
        decoder.append(conversation.bytes)
        #expect(try decoder.all() == conversation.packets)
    }

    @Test("in two pieces, cut anywhere", arguments: conversations)
    func cutOnce(_ conversation: Conversation) throws {
        let bytes = conversation.bytes
        for cut in bytes.indices {
            var decoder = conversation.decoder()
            decoder.append(bytes[..<cut])
            var packets = try decoder.all()
            decoder.append(bytes[cut...])
            packets += try decoder.all()
            #expect(packets == conversation.packets, "cut at \(cut)")
        }
    }

    @Test("in random pieces", arguments: conversations, [UInt64](1...20))
    func randomPieces(_ conversation: Conversation, seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var decoder = conversation.decoder()
        var packets: [Packet] = []
        var rest = conversation.bytes[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...60, using: &random))
            rest = rest.dropFirst(piece.count)
            decoder.append(piece)
            if Bool.random(using: &random) { packets += try decoder.all() }
        }
        packets += try decoder.all()
        #expect(packets == conversation.packets)
    }

    @Test("a large PUBLISH in small pieces takes time in proportion", .timeLimit(.minutes(10)))
    func largePublishInSmallPieces() throws {
        let publish = Publish(
            message: ApplicationMessage(topic: "t".utf8, payload: [UInt8](repeating: 7, count: 3 << 20)))
        let bytes = Packet.publish(publish).encoded(.v3_1_1)
        var decoder = PacketDecoder(receiver: .server, version: .v3_1_1, maximumPacketSize: 4 << 20)
        var packets: [Packet] = []
        var sent = 0
        while sent < bytes.count {
            let piece = bytes[sent..<min(sent + 64, bytes.count)]
            sent += piece.count
            decoder.append(piece)
            packets += try decoder.all()
        }
        #expect(packets == [.publish(publish)])
    }

    @Test(
        "[MQTT5-3.1.2-24] a packet of exactly the maximum size passes; one byte more is refused by its header"
    )
    func maximumPacketSize() throws {
        var decoder = PacketDecoder(receiver: .server, version: .v3_1_1, maximumPacketSize: 12)
        decoder.append(hex("30 0A 00 03 'a/b' 'hello'"))
        #expect(try decoder.next() != nil)
        decoder.append(hex("30 0B"))
        #expect(throws: MalformedPacket.packetTooLarge) { try decoder.next() }
    }

    /// A client that cannot announce a limit, as it reads the messages of its server.
    private static func patient(_ version: ProtocolVersion = .v3_1_1) -> PacketDecoder {
        PacketDecoder(
            receiver: .client, version: version, maximumPacketSize: 1000, readsPastLargePublishes: true)
    }

    private static func publish(_ payloadBytes: Int, _ qos: QoS) -> Publish {
        Publish(
            message: ApplicationMessage(
                topic: "a/b".utf8, payload: [UInt8](repeating: 0x30, count: payloadBytes)),
            qos: qos, id: qos == .atMostOnce ? nil : 0x1234, retain: true)
    }

    @Test(
        "before MQTT 5 a PUBLISH above the maximum size can be read past, however it is cut up, in little memory",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce], [1, 7, 500, 100_000])
    func readsPast(qos: QoS, pieceBytes: Int) throws {
        let sizes = [10, 990, 1000, 100_000, 0, 5000, 5000, 20]
        let bytes = sizes.flatMap { Packet.publish(Self.publish($0, qos)).encoded(.v3_1_1) }
        var decoder = Self.patient()
        var rest = bytes[...]
        var seen: [(packet: Packet, isPayloadLeftOut: Bool)] = []
        while !rest.isEmpty {
            decoder.append(rest.prefix(pieceBytes))
            rest = rest.dropFirst(pieceBytes)
            while let packet = try decoder.next() { seen.append((packet, decoder.isPayloadLeftOut)) }
            #expect(decoder.bufferedBytes < 1000)
        }
        #expect(seen.map(\.isPayloadLeftOut) == sizes.map { $0 >= 1000 })
        #expect(seen.map(\.packet) == sizes.map { .publish(Self.publish($0 >= 1000 ? 0 : $0, qos)) })
    }

    @Test(
        "what is no PUBLISH, is no good one, or comes in MQTT 5 is not read past",
        arguments: [
            (ProtocolVersion.v3_1_1, "90 E8 07", MalformedPacket.packetTooLarge),
            (.v5_0, "30 E8 07", .packetTooLarge), (.v3_1_1, "30 E8 07 03 E7", .bodyTooShort),
            (.v3_1_1, "32 E8 07 00 01 'a' 00 00", .zeroPacketIdentifier),
            (.v3_1_1, "30 E8 07 00 01 '#'", .wildcardInTopicName),
        ])
    func notReadPast(version: ProtocolVersion, bytes: String, error: MalformedPacket) {
        var decoder = Self.patient(version)
        decoder.append(hex(bytes))
        #expect(throws: error) { try decoder.next() }
    }
}

/// No byte a peer sends may stop the gateway.
@Suite("4.13 Random bytes")
struct RandomBytesTests {
    static let conversations = DecodingStreamTests.conversations

    @Test("random bytes", arguments: conversations, [UInt64](1...20))
    func randomBytes(_ conversation: DecodingStreamTests.Conversation, seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            let bytes = (0..<Int.random(in: 1...40, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            survives(bytes, in: conversation, &random)
        }
    }

    @Test("packets with some bytes changed", arguments: conversations, [UInt64](1...20))
    func changedBytes(_ conversation: DecodingStreamTests.Conversation, seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        for example in conversation.examples {
            for _ in 0..<20 {
                var bytes = example.bytes
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    let i = Int.random(in: bytes.indices, using: &random)
                    switch Int.random(in: 0..<4, using: &random) {
                    case 0: bytes[i] = UInt8.random(in: 0...255, using: &random)
                    case 1: bytes[i] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                    case 2: bytes.insert(UInt8.random(in: 0...3, using: &random), at: i)
                    default: if bytes.count > 1 { bytes.remove(at: i) }
                    }
                }
                survives(bytes, in: conversation, &random)
            }
        }
    }

    /// Whatever is decoded can be encoded and decoded to the same; whatever is not is bounded.
    private func survives(
        _ bytes: [UInt8], in conversation: DecodingStreamTests.Conversation, _ random: inout SeededGenerator
    ) {
        let maximum = 100
        let isFirst = bytes.first.map { $0 >> 4 == 1 } ?? false
        var decoder = PacketDecoder(
            receiver: conversation.receiver,
            version: isFirst && conversation.receiver == .server ? nil : conversation.version,
            maximumPacketSize: maximum)
        let cut = Int.random(in: 0...bytes.count, using: &random)
        for piece in [bytes[..<cut], bytes[cut...]] {
            decoder.append(piece)
            do {
                while let packet = try decoder.next() {
                    #expect(readsBack(packet, decoder.version, conversation.receiver))
                }
            } catch {
                #expect(error.reasonCode.isError)
            }
            #expect(decoder.bufferedBytes < maximum)
        }
    }

    private func readsBack(
        _ packet: Packet, _ version: ProtocolVersion?, _ receiver: PacketDecoder.Receiver
    ) -> Bool {
        guard let version else { return false }
        let isConnect = if case .connect = packet { true } else { false }
        var decoder = PacketDecoder(
            receiver: receiver, version: isConnect ? nil : version, maximumPacketSize: 1000)
        decoder.append(packet.encoded(version))
        return (try? decoder.next()) == packet && decoder.bufferedBytes == 0
    }
}
