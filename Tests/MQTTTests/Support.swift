import MQTT
import Testing

/// Bytes written the way the specification draws them: hexadecimal pairs, 'text', s'text' with its length in
/// two bytes before it, and [ … ] with its length in one byte before it.
///
///     hex("30 [ s'a/b' 'hello' ]")
func hex(_ notation: String) -> [UInt8] {
    var open: [[UInt8]] = [[]]
    for token in tokens(notation) {
        switch token {
        case "[":
            open.append([])
        case "]":
            let inner = open.removeLast()
            precondition(inner.count < 128, "brackets hold fewer than 128 bytes")
            open[open.count - 1] += [UInt8(inner.count)] + inner
        default:
            open[open.count - 1] += literal(token)
        }
    }
    precondition(open.count == 1, "brackets come in pairs")
    return open[0]
}

/// Splits at spaces, save those between quotes.
private func tokens(_ notation: String) -> [String] {
    var tokens: [String] = []
    var current = ""
    var quoted = false
    for character in notation {
        if character == "'" { quoted.toggle() }
        if character.isWhitespace, !quoted {
            if !current.isEmpty { tokens.append(current) }
            current = ""
        } else {
            current.append(character)
        }
    }
    return current.isEmpty ? tokens : tokens + [current]
}

private func literal(_ token: String) -> [UInt8] {
    if token.hasSuffix("'") {
        let text = Array(token.utf8.dropLast().drop { $0 != UInt8(ascii: "'") }.dropFirst())
        return token.hasPrefix("s") ? [UInt8(text.count >> 8), UInt8(text.count & 0xFF)] + text : text
    }
    guard let byte = UInt8(token, radix: 16) else { preconditionFailure("\(token) is no byte") }
    return [byte]
}

/// A packet, where and how it travels, and its bytes.
struct Example: Sendable, CustomTestStringConvertible {
    let name: String
    let version: ProtocolVersion
    let receiver: PacketDecoder.Receiver
    let packet: Packet
    let bytes: [UInt8]

    init(
        _ name: String, _ version: ProtocolVersion, to receiver: PacketDecoder.Receiver, _ packet: Packet,
        _ notation: String
    ) {
        self.name = name
        self.version = version
        self.receiver = receiver
        self.packet = packet
        self.bytes = hex(notation)
    }

    var testDescription: String { "\(version) \(name)" }

    var isConnect: Bool {
        if case .connect = packet { true } else { false }
    }
}

extension PacketDecoder {
    /// One as it stands when `example` arrives.
    static func awaiting(_ example: Example, maximumPacketSize: Int = 1 << 20) -> PacketDecoder {
        PacketDecoder(
            receiver: example.receiver, version: example.isConnect ? nil : example.version,
            maximumPacketSize: maximumPacketSize)
    }

    mutating func append(_ bytes: some Collection<UInt8>) {
        Array(bytes).withUnsafeBytes { append($0) }
    }

    /// Every packet that is complete.
    mutating func all() throws(MalformedPacket) -> [Packet] {
        var packets: [Packet] = []
        while let packet = try next() { packets.append(packet) }
        return packets
    }
}

extension Packet {
    func encoded(_ version: ProtocolVersion) -> [UInt8] {
        var bytes: [UInt8] = []
        encode(version: version, into: &bytes)
        return bytes
    }
}

/// SplitMix64: the same numbers from the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

func filter(_ text: String) -> TopicFilter {
    guard let filter = TopicFilter(text) else { preconditionFailure("\(text) is no Topic Filter") }
    return filter
}

func message(_ topic: String, _ payload: String, _ properties: ForwardedProperties? = nil)
    -> ApplicationMessage
{
    ApplicationMessage(topic: topic.utf8, properties: properties?.bytes ?? [], payload: payload.utf8)
}
