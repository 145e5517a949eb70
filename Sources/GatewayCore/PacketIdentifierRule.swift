import MQTT

/// How a delivery's number becomes its Packet Identifier: by arithmetic alone, so that after a power cut a
/// delivery still has the identifier under which its receiver may know it. QoS 1 and QoS 2 have disjoint
/// halves; 0x7001 to 0x7FFF stay free for an uplink's SUBSCRIBE and UNSUBSCRIBE.
///
/// A client's queue has all of both halves. The queues of an uplink share one Session of the cloud, so each has an
/// eighth of both, whether there are eight of them or one: the same one for ever, whatever the configuration becomes,
/// and an acknowledgement's identifier says whose it is.
package struct PacketIdentifierRule: Hashable, Sendable {
    /// Of a queue that shares its receiver's Session with no other.
    package static let whole = PacketIdentifierRule(lane: nil)
    /// How many queues may share one Session.
    package static let laneCount: UInt8 = 8

    private static let atLeastOnceSpan: UInt64 = 0x7000
    private static let exactlyOnceBase: UInt64 = 0x8000
    private static let exactlyOnceSpan: UInt64 = 0x8000
    private static let atLeastOnceEighth = atLeastOnceSpan / 8
    private static let exactlyOnceEighth = exactlyOnceSpan / 8

    private let lane: UInt8?

    private init(lane: UInt8?) { self.lane = lane }

    /// - Parameter number: 0 to 7.
    package static func lane(_ number: UInt8) -> PacketIdentifierRule {
        PacketIdentifierRule(lane: min(number, laneCount - 1))
    }

    /// The lane that an uplink sends this identifier for; 0 too for what none uses.
    package static func lane(of id: PacketIdentifier) -> UInt8 {
        let raw = UInt64(id.rawValue)
        if raw >= exactlyOnceBase { return UInt8((raw - exactlyOnceBase) / exactlyOnceEighth) }
        return raw <= atLeastOnceSpan ? UInt8((raw - 1) / atLeastOnceEighth) : 0
    }

    /// Deliveries closer together than this have different identifiers.
    package var span: UInt64 { lane == nil ? Self.atLeastOnceSpan : Self.atLeastOnceEighth }

    package func identifier(of delivery: Delivery, qos: QoS) -> PacketIdentifier {
        let number = delivery.number
        let raw: UInt64
        if let lane = lane.map(UInt64.init) {
            raw =
                qos == .exactlyOnce
                ? Self.exactlyOnceBase + lane * Self.exactlyOnceEighth + number % Self.exactlyOnceEighth
                : 1 + lane * Self.atLeastOnceEighth + number % Self.atLeastOnceEighth
        } else {
            raw =
                qos == .exactlyOnce
                ? Self.exactlyOnceBase + number % Self.exactlyOnceSpan : 1 + number % Self.atLeastOnceSpan
        }
        guard let id = PacketIdentifier(rawValue: UInt16(raw)) else {
            preconditionFailure("1 + n and 0x8000 + n are not zero")
        }
        return id
    }

    /// The one delivery at or after `floor`, and less than `span` after it, with this identifier; nil when
    /// there is none.
    package func delivery(with id: PacketIdentifier, atOrAfter floor: Delivery) -> Delivery? {
        let raw = UInt64(id.rawValue)
        let place: UInt64
        let modulus: UInt64
        if raw >= Self.exactlyOnceBase {
            place = raw - Self.exactlyOnceBase
            modulus = lane == nil ? Self.exactlyOnceSpan : Self.exactlyOnceEighth
        } else if raw <= Self.atLeastOnceSpan {
            place = raw - 1
            modulus = lane == nil ? Self.atLeastOnceSpan : Self.atLeastOnceEighth
        } else {
            return nil
        }
        if let lane, place / modulus != UInt64(lane) { return nil }
        let ahead = (place % modulus + modulus - floor.number % modulus) % modulus
        return ahead < span ? Delivery(floor.number + ahead) : nil
    }
}

extension SessionOwner {
    /// How its deliveries are numbered on the wire.
    var identifiers: PacketIdentifierRule {
        switch self {
        case .client, .group, .deadLetters: .whole
        case .uplink: .lane(0)
        case .lane(_, let number, _): .lane(number)
        }
    }
}
