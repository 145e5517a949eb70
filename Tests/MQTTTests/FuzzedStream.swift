import MQTT

/// What a peer might send, and what must hold whatever that is.
///
/// The fuzzer (`make fuzz`, Tests/Fuzz) makes these up for as long as it is let; the ones that broke something
/// are replayed in `FoundByFuzzing`.
struct FuzzedStream {
    let receiver: PacketDecoder.Receiver
    /// nil on a server that awaits CONNECT.
    let version: ProtocolVersion?
    let maximumPacketSize: Int
    /// How the bytes are cut up on their way.
    private let cuts: UInt8
    let bytes: [UInt8]

    private static let versions: [ProtocolVersion?] = [nil, .v3_1, .v3_1_1, .v5_0]
    private static let maximumPacketSizes = [32, 300, 20_000, 268_435_460]

    /// An input of the fuzzer: one byte says who receives, one how the stream is cut, the rest is the stream.
    init(_ input: [UInt8]) {
        let settings = input.first ?? 0
        receiver = settings & 1 == 0 ? .server : .client
        let spoken = Self.versions[Int(settings >> 1 & 0b11)]
        version = spoken ?? (receiver == .client ? .v5_0 : nil)
        maximumPacketSize = Self.maximumPacketSizes[Int(settings >> 3 & 0b11)]
        cuts = input.dropFirst().first ?? 0
        bytes = Array(input.dropFirst(2))
    }

    /// The input that becomes this stream, at 20 000 bytes a packet.
    static func input(
        to receiver: PacketDecoder.Receiver, version: ProtocolVersion?, cuts: UInt8 = 1, _ bytes: [UInt8]
    ) -> [UInt8] {
        let index = versions.firstIndex(of: version) ?? 0
        return [2 << 3 | UInt8(index) << 1 | (receiver == .server ? 0 : 1), cuts] + bytes
    }

    func decoder() -> PacketDecoder {
        PacketDecoder(receiver: receiver, version: version, maximumPacketSize: maximumPacketSize)
    }

    /// The rule that decoding this stream breaks, in words; nil when all hold.
    func brokenRule() -> String? {
        let whole = decode([bytes[...]])
        if whole.bufferedBytes > maximumPacketSize { return "more is held back than a packet may have" }
        if decode(pieces) != whole { return "fragments do not give what the whole gives" }
        for (packet, version) in zip(whole.packets, whole.versions) {
            guard let version else { return "a packet came before the version was known" }
            if let rule = brokenRule(of: packet, in: version) { return "\(rule): \(packet)" }
        }
        return nil
    }

    /// What comes of a stream.
    private struct Outcome: Equatable {
        var packets: [Packet] = []
        /// The decoder's, after each packet and at the end.
        var versions: [ProtocolVersion?] = []
        var failure: MalformedPacket?
        var bufferedBytes = 0
    }

    private var pieces: [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        var state = UInt32(cuts)
        var rest = bytes[...]
        while !rest.isEmpty {
            state = state &* 1_664_525 &+ 1_013_904_223
            let length = 1 + Int(state >> 24) % (cuts & 1 == 0 ? 4 : 100)
            pieces.append(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        return pieces
    }

    private func decode(_ pieces: [ArraySlice<UInt8>]) -> Outcome {
        var decoder = decoder()
        var outcome = Outcome()
        for piece in pieces {
            piece.withUnsafeBytes { decoder.append($0) }
            do {
                while let packet = try decoder.next() {
                    outcome.packets.append(packet)
                    outcome.versions.append(decoder.version)
                }
            } catch {
                outcome.failure = error
            }
        }
        outcome.versions.append(decoder.version)
        outcome.bufferedBytes = decoder.bufferedBytes
        return outcome
    }

    private func brokenRule(of packet: Packet, in version: ProtocolVersion) -> String? {
        var bytes: [UInt8] = []
        packet.encode(version: version, into: &bytes)
        var decoder = PacketDecoder(
            receiver: receiver, version: packet.isConnect ? nil : version, maximumPacketSize: bytes.count)
        bytes.withUnsafeBytes { decoder.append($0) }
        do {
            guard let again = try decoder.next() else { return "encoded, it is not a whole packet" }
            guard again == packet else { return "encoded and decoded, it is another" }
            guard try decoder.next() == nil, decoder.version == version else {
                return "encoded, it is more than a packet"
            }
        } catch {
            return "encoded, it cannot be decoded (\(error))"
        }
        switch packet {
        case .publish(let publish): return brokenRule(of: publish, in: version, of: bytes.count)
        case .subscribe(let subscribe): return brokenRule(of: subscribe.requests.map(\.filter))
        case .unsubscribe(let unsubscribe): return brokenRule(of: unsubscribe.filters)
        case .connect, .connack, .puback, .pubrec, .pubrel, .pubcomp, .suback, .unsuback, .pingreq, .pingresp,
            .disconnect, .auth:
            return nil
        }
    }

    private func brokenRule(
        of publish: Publish, in version: ProtocolVersion, of encodedSize: Int
    ) -> String? {
        guard publish.encodedSize(version: version) == encodedSize else {
            return "its size was foretold wrongly"
        }
        var read = 0
        for property in publish.message.forwardedProperties { read += property.encodedSize }
        guard read == publish.message.properties.count else {
            return "not every forwarded property can be read"
        }
        guard !publish.message.topic.isEmpty else { return nil }
        // What one publisher sends, subscribers of every version are sent.
        for other in [ProtocolVersion.v3_1, .v3_1_1, .v5_0] {
            var bytes: [UInt8] = []
            Packet.publish(publish).encode(version: other, into: &bytes)
            var decoder = PacketDecoder(receiver: .client, version: other, maximumPacketSize: bytes.count)
            bytes.withUnsafeBytes { decoder.append($0) }
            do {
                guard case .publish(let arrived) = try decoder.next(),
                    arrived.message.topic == publish.message.topic,
                    arrived.message.payload == publish.message.payload
                else { return "in version \(other) it is another message" }
            } catch {
                return "in version \(other) it cannot be decoded (\(error))"
            }
        }
        return nil
    }

    private func brokenRule(of filters: [TopicFilter]) -> String? {
        for filter in filters {
            guard TopicFilter(filter.bytes) == filter else { return "a filter is no longer one" }
            let hasWildcard =
                filter.pattern.contains(UInt8(ascii: "+")) || filter.pattern.contains(UInt8(ascii: "#"))
            guard hasWildcard || filter.matches(filter.pattern) else {
                return "a filter does not match the topic it spells"
            }
        }
        return nil
    }
}

extension Packet {
    fileprivate var isConnect: Bool {
        if case .connect = self { true } else { false }
    }
}

extension ForwardedProperty {
    /// In bytes, with its identifier.
    fileprivate var encodedSize: Int {
        switch self {
        case .payloadFormat: 2
        case .contentType(let value), .responseTopic(let value), .correlationData(let value): 3 + value.count
        case .userProperty(let name, let value): 5 + name.count + value.count
        }
    }
}
