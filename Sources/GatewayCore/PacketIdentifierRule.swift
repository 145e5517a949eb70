import MQTT

/// How a delivery's number becomes its Packet Identifier: by arithmetic alone, so that after a power cut a
/// delivery still has the identifier under which its receiver may know it. QoS 1 and QoS 2 have disjoint
/// halves; 0x7001 to 0x7FFF stay free for an uplink's SUBSCRIBE and UNSUBSCRIBE.
package enum PacketIdentifierRule {
    /// Deliveries closer together than this have different identifiers.
    package static let span: UInt64 = 0x7000
    private static let exactlyOnceBase: UInt64 = 0x8000
    private static let exactlyOnceSpan: UInt64 = 0x8000

    package static func identifier(of delivery: Delivery, qos: QoS) -> PacketIdentifier {
        let raw =
            qos == .exactlyOnce
            ? exactlyOnceBase + delivery.number % exactlyOnceSpan
            : 1 + delivery.number % span
        guard let id = PacketIdentifier(rawValue: UInt16(raw)) else {
            preconditionFailure("1 + n and 0x8000 + n are not zero")
        }
        return id
    }

    /// The one delivery at or after `floor`, and less than `span` after it, with this identifier; nil when
    /// there is none.
    package static func delivery(with id: PacketIdentifier, atOrAfter floor: Delivery) -> Delivery? {
        let raw = UInt64(id.rawValue)
        let (residue, modulus): (UInt64, UInt64)
        if raw >= exactlyOnceBase {
            (residue, modulus) = (raw - exactlyOnceBase, exactlyOnceSpan)
        } else if raw <= span {
            (residue, modulus) = (raw - 1, span)
        } else {
            return nil
        }
        let ahead = (residue + modulus - floor.number % modulus) % modulus
        return ahead < span ? Delivery(floor.number + ahead) : nil
    }
}
