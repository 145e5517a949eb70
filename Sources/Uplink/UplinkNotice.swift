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
    /// The cloud takes less than QoS 2 [MQTT5-3.2.2.3.4]: what was exactly once arrives at least once, or at most.
    case maximumQoS(QoS)
    /// The cloud retains nothing [MQTT5-3.2.2.3.5]: RETAIN is left out.
    case retainNotAvailable
    /// The cloud does not take our status message.
    case statusRefused(ReasonCode)
    /// The cloud refused our Will for its QoS or RETAIN: the next connection offers less.
    case willReduced
    /// The certificate files cannot be used as they are now; what was read before is used further.
    case securityUnusable(String)
    /// The first address answers again and is gone back to.
    case failingBack(UplinkAddress)
    /// The first address was tried beside the running connection, which stays.
    case notFailingBack(LinkLoss)

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
        case .maximumQoS(let qos):
            "the cloud takes QoS \(qos.rawValue) at most, and every message is sent with no more"
        case .retainNotAvailable: "the cloud retains no messages: RETAIN is left out"
        case .statusRefused(let reason):
            "the cloud refused the status message (reason code \(reason.rawValue))"
        case .willReduced: "the cloud refused the Will's QoS or RETAIN; it is offered less"
        case .securityUnusable(let words): "certificates as read before are used further: \(words)"
        case .failingBack(let address): "going back to \(address)"
        case .notFailingBack(let loss): "staying, the first address gives no connection yet: \(loss)"
        }
    }
}

/// Why a connection to the cloud ended.
package enum LinkLoss: Hashable, Sendable, CustomStringConvertible {
    /// No connection, with the system's words.
    case unreachable(String)
    /// The proxy gives no tunnel, with its words.
    case proxyRefused(String)
    /// The TLS handshake failed, with BoringSSL's words or ours.
    case insecure(String)
    /// Nobody we trust vouches for the cloud's certificate (now), and why.
    case untrusted(String)
    /// The cloud's certificate is trusted, but is not for the name that was expected.
    case wrongName(expected: String)
    /// The cloud does not take our certificate, and why.
    case certificateRefused(String)
    /// The cloud speaks none of the protocols we asked for by ALPN.
    case protocolNotAgreed
    /// The files that secure the uplink cannot be used.
    case securityUnusable(String)
    /// The cloud gives no WebSocket, or breaks its rules.
    case webSocketRefused(String)
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
    /// The cloud calls us by another Client Identifier than we gave [MQTT5-3.2.2-16]: its session is not ours.
    case renamed(String)
    /// We wanted it.
    case asked
    /// Our certificate or key has changed: the next connection shows the new one.
    case identityChanged
    /// A clean session was made and left again, so that the next connection continues an empty one.
    case swept

    package var description: String {
        switch self {
        case .unreachable(let words): words
        case .proxyRefused(let words): "no way through the proxy: \(words)"
        case .insecure(let words): "TLS failed: \(words)"
        case .untrusted(let words): "TLS failed, nothing was sent: \(words)"
        case .wrongName(let name):
            "TLS failed, nothing was sent: the cloud's certificate is not for \(name)"
        case .certificateRefused(let words): "TLS failed: the cloud refuses our certificate: \(words)"
        case .protocolNotAgreed: "TLS failed: the cloud speaks none of the protocols asked for (alpn)"
        case .securityUnusable(let words): "TLS cannot be used: \(words)"
        case .webSocketRefused(let words): "the cloud gives no WebSocket: \(words)"
        case .closed: "closed by the other side"
        case .refused(let reason): "the cloud refused the connection (reason code \(reason.rawValue))"
        case .malformed(let rule): "malformed packet from the cloud (\(rule))"
        case .protocolError(let reason): "the cloud broke the protocol (reason code \(reason.rawValue))"
        case .disconnected(let reason): "the cloud disconnected us (reason code \(reason.rawValue))"
        case .noConnack: "no answer to CONNECT"
        case .noPingresp: "no answer to PINGREQ"
        case .noAcknowledgement: "nothing in flight is acknowledged any more"
        case .engine(let words): "libmosquitto: \(words)"
        case .renamed(let name):
            "the cloud broke the protocol: it gave us the client identifier \(name) instead of our own"
        case .asked: "asked to"
        case .identityChanged: "our certificate was replaced"
        case .swept: "old session discarded"
        }
    }
}
