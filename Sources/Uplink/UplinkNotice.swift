import MQTT

/// Something about an uplink's connection that an operator may want to read; carries no behaviour.
package enum UplinkNotice: Hashable, Sendable, CustomStringConvertible {
    case connecting(UplinkAddress)
    /// The connection is over, or was never made.
    case lost(LinkLoss)
    case retrying(afterMilliseconds: Int64)
    /// The cloud refused a route's subscription; what matches it will not arrive.
    case subscriptionRefused(TopicFilter, ReasonCode)
    /// The cloud keeps our session for less than was asked for [MQTT5-3.2.2.3.2].
    case sessionExpiryShortened(seconds: UInt32)
    /// QoS 0 messages left out because the connection did not take them fast enough.
    case discardedQoS0(count: Int)

    package var description: String {
        switch self {
        case .connecting(let address): "connecting to \(address)"
        case .lost(let loss): "connection lost: \(loss)"
        case .retrying(let milliseconds): "trying again in \(milliseconds) ms"
        case .subscriptionRefused(let filter, let reason):
            "the cloud refused the subscription to \(String(decoding: filter.bytes, as: UTF8.self)) "
                + "(reason code \(reason.rawValue))"
        case .sessionExpiryShortened(let seconds):
            "the cloud keeps this session for \(seconds) s only, less than session-expiry asks for"
        case .discardedQoS0(let count): "\(count) QoS 0 messages left out: the connection is too slow"
        }
    }
}

/// Why a connection to the cloud ended.
package enum LinkLoss: Hashable, Sendable, CustomStringConvertible {
    /// No TCP connection, with the system's words.
    case unreachable(String)
    /// The other side closed, or the network did.
    case closed
    case refused(ReasonCode)
    case malformed(MalformedPacket)
    /// The cloud broke a rule of the protocol.
    case protocolError(ReasonCode)
    /// The cloud said goodbye.
    case disconnected(ReasonCode)
    case noConnack
    case noPingresp
    /// Messages are in flight and none was acknowledged for too long.
    case noAcknowledgement
    /// libmosquitto could not go on.
    case engine(String)
    /// We wanted it.
    case asked
    /// A clean session was made and left again, so that the next connection continues an empty one.
    case swept

    package var description: String {
        switch self {
        case .unreachable(let words): words
        case .closed: "closed by the other side"
        case .refused(let reason): "the cloud refused the connection (reason code \(reason.rawValue))"
        case .malformed(let rule): "malformed packet from the cloud (\(rule))"
        case .protocolError(let reason): "the cloud broke the protocol (reason code \(reason.rawValue))"
        case .disconnected(let reason): "the cloud disconnected us (reason code \(reason.rawValue))"
        case .noConnack: "no answer to CONNECT"
        case .noPingresp: "no answer to PINGREQ"
        case .noAcknowledgement: "nothing in flight is acknowledged any more"
        case .engine(let words): "libmosquitto: \(words)"
        case .asked: "asked to"
        case .swept: "old session discarded"
        }
    }
}
