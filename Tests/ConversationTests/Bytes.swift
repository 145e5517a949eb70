import MQTT

// Packets by their bytes, for those that no encoder writes.

/// A packet of any first byte and body, with a Remaining Length that is right.
func raw(_ first: UInt8, _ parts: [UInt8]...) -> [UInt8] {
    let body = parts.flatMap { $0 }
    return [first] + variableByteInteger(body.count) + body
}

/// A string of the protocol: two bytes of length, then UTF-8.
func text(_ text: String) -> [UInt8] { binary(Array(text.utf8)) }

/// Binary data of the protocol, or a string that is none.
func binary(_ bytes: [UInt8]) -> [UInt8] { u16(bytes.count) + bytes }

func u16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xFF), UInt8(value & 0xFF)] }
func u32(_ value: Int) -> [UInt8] { u16(value >> 16) + u16(value) }

func variableByteInteger(_ value: Int) -> [UInt8] {
    value < 128 ? [UInt8(value)] : [UInt8(value & 0x7F) | 0x80] + variableByteInteger(value >> 7)
}

/// Properties behind their length, where the version has properties.
func properties(_ version: ProtocolVersion, _ parts: [UInt8]...) -> [UInt8] {
    let bytes = parts.flatMap { $0 }
    return version == .v5_0 ? variableByteInteger(bytes.count) + bytes : []
}

/// Strings that are none: an overlong form, half a surrogate pair, a lone continuation byte, one that is cut off,
/// a byte that never occurs, a code point beyond the last, and U+0000.
let brokenStrings: [[UInt8]] = [
    [0xC0, 0x80], [0xED, 0xA0, 0x80], [0x80], [0x61, 0xE2, 0x82], [0xFF], [0xF4, 0x90, 0x80, 0x80],
    [0x61, 0],
]

/// CONNECT, part by part.
struct RawConnect {
    var version: ProtocolVersion
    var firstByte: UInt8 = 0x10
    var protocolName: [UInt8]
    var level: UInt8
    var flags: UInt8 = 0b10
    var properties: [UInt8] = []
    var clientIdentifier: [UInt8] = text(Caller.newName())
    /// What stands behind the Client Identifier.
    var rest: [UInt8] = []

    init(_ version: ProtocolVersion, _ change: (inout RawConnect) -> Void = { _ in }) {
        self.version = version
        protocolName = text(version == .v3_1 ? "MQIsdp" : "MQTT")
        level = version.rawValue
        change(&self)
    }

    var body: [UInt8] {
        protocolName + [level, flags] + u16(0)
            + (version == .v5_0 ? variableByteInteger(properties.count) + properties : [])
            + clientIdentifier + rest
    }

    var bytes: [UInt8] { raw(firstByte, body) }
}

extension Packet {
    func bytes(_ version: ProtocolVersion) -> [UInt8] {
        var bytes: [UInt8] = []
        encode(version: version, into: &bytes)
        return bytes
    }

    var reasonString: String? {
        switch self {
        case .connack(let connack): connack.reasonString
        case .puback(let answer), .pubrec(let answer), .pubrel(let answer), .pubcomp(let answer):
            answer.reasonString
        case .suback(let suback): suback.reasonString
        case .unsuback(let unsuback): unsuback.reasonString
        case .disconnect(let disconnect): disconnect.reasonString
        case .connect, .publish, .subscribe, .unsubscribe, .pingreq, .pingresp, .auth: nil
        }
    }

    /// The packet without its Reason String.
    var withoutExplanation: Packet {
        guard reasonString != nil else { return self }
        switch self {
        case .connack(var connack):
            connack.reasonString = nil
            return .connack(connack)
        case .puback(let answer): return .puback(answer.id, answer.reason)
        case .pubrec(let answer): return .pubrec(answer.id, answer.reason)
        case .pubrel(let answer): return .pubrel(answer.id, answer.reason)
        case .pubcomp(let answer): return .pubcomp(answer.id, answer.reason)
        case .suback(let suback): return .suback(Suback(id: suback.id, reasons: suback.reasons))
        case .unsuback(let unsuback):
            return .unsuback(Unsuback(id: unsuback.id, reasons: unsuback.reasons))
        case .disconnect(let disconnect): return .disconnect(Disconnect(disconnect.reason))
        case .connect, .publish, .subscribe, .unsubscribe, .pingreq, .pingresp, .auth: return self
        }
    }

    static func subscribe(
        _ id: PacketIdentifier, _ filters: [(String, QoS)], identifier: UInt32? = nil
    ) -> Packet {
        let requests = filters.map { SubscriptionRequest(filter: filter($0.0), maximumQoS: $0.1) }
        return .subscribe(Subscribe(id: id, requests: requests, subscriptionIdentifier: identifier))
    }

    static func unsubscribe(_ id: PacketIdentifier, _ filters: String...) -> Packet {
        .unsubscribe(Unsubscribe(id: id, filters: filters.map(filter)))
    }

    static func publish(
        _ topic: String, _ payload: String = "x", _ qos: QoS = .atMostOnce, id: PacketIdentifier? = nil,
        retain: Bool = false, duplicate: Bool = false
    ) -> Packet {
        .publish(.text(topic, payload, qos, id: id, retain: retain, duplicate: duplicate))
    }

    static func puback(_ id: PacketIdentifier, _ reason: ReasonCode = .success) -> Packet {
        .puback(Acknowledgement(id, reason))
    }
    static func pubrec(_ id: PacketIdentifier, _ reason: ReasonCode = .success) -> Packet {
        .pubrec(Acknowledgement(id, reason))
    }
    static func pubrel(_ id: PacketIdentifier, _ reason: ReasonCode = .success) -> Packet {
        .pubrel(Acknowledgement(id, reason))
    }
    static func pubcomp(_ id: PacketIdentifier, _ reason: ReasonCode = .success) -> Packet {
        .pubcomp(Acknowledgement(id, reason))
    }
}

extension Publish {
    static func text(
        _ topic: String, _ payload: String = "x", _ qos: QoS = .atMostOnce, id: PacketIdentifier? = nil,
        retain: Bool = false, duplicate: Bool = false
    ) -> Publish {
        Publish(
            message: ApplicationMessage(topic: topic.utf8, payload: payload.utf8), qos: qos, id: id,
            retain: retain, duplicate: duplicate)
    }

    var topic: String { String(decoding: message.topic, as: UTF8.self) }
    var payload: String { String(decoding: message.payload, as: UTF8.self) }
}

extension Will {
    static func text(
        _ topic: String, _ payload: String = "gone", _ qos: QoS = .atLeastOnce, retain: Bool = false
    ) -> Will {
        Will(
            message: ApplicationMessage(topic: topic.utf8, payload: payload.utf8), qos: qos, retain: retain)
    }
}

extension [Packet] {
    var publishes: [Publish] { compactMap { if case .publish(let publish) = $0 { publish } else { nil } } }
    var payloads: [String] { publishes.map(\.payload) }
}

func filter(_ text: String) -> TopicFilter {
    guard let filter = TopicFilter(text) else { preconditionFailure("\(text) is no Topic Filter") }
    return filter
}

let allVersions: [ProtocolVersion] = [.v3_1, .v3_1_1, .v5_0]
