import MQTT

// Reason Strings: what a refusal means in words, for the person who reads a client's log [MQTT5-3.1.2.11.7].
extension Gateway {
    /// The packet with a Reason String, where that is allowed and useful: to MQTT 5 clients that did not ask for
    /// silence [MQTT5-3.1.2-29], and within their Maximum Packet Size [MQTT5-3.2.2-19, MQTT5-3.4.2-2,
    /// MQTT5-3.5.2-2, MQTT5-3.9.2-1, MQTT5-3.14.2-3].
    ///
    /// - Complexity: O(bytes of the packet), and only for refusals
    func explained(_ packet: Packet, to id: ConnectionID, because text: String? = nil) -> Packet {
        guard let connection = connections[id], connection.version == .v5_0 else { return packet }
        let explained: Packet
        switch packet {
        case .connack(var connack):
            guard let text = text ?? connack.reason.explanation else { return packet }
            connack.reasonString = text
            explained = .connack(connack)
        case .disconnect(var disconnect):
            guard let text = text ?? disconnect.reason.explanation else { return packet }
            disconnect.reasonString = text
            explained = .disconnect(disconnect)
        case .puback(var answer):
            guard connection.wantsReasons, let text = answer.reason.explanation else { return packet }
            answer.reasonString = text
            explained = .puback(answer)
        case .pubrec(var answer):
            guard connection.wantsReasons, let text = answer.reason.explanation else { return packet }
            answer.reasonString = text
            explained = .pubrec(answer)
        case .suback(var suback):
            guard connection.wantsReasons, let refused = suback.reasons.first(where: \.isError),
                let text = refused.explanation
            else { return packet }
            suback.reasonString = text
            explained = .suback(suback)
        case .connect, .publish, .pubrel, .pubcomp, .subscribe, .unsubscribe, .unsuback, .pingreq, .pingresp,
            .auth:
            return packet
        }
        return explained.fits(connection.packetBytesMax, in: .v5_0) ? explained : packet
    }

    /// Whether an answer without a Reason String is within the client's Maximum Packet Size [MQTT5-3.1.2-24].
    ///
    /// Only SUBACK and UNSUBACK grow with what a client sends. All else is no larger than the CONNACK it has taken,
    /// but for PUBLISH, which has its own bound.
    ///
    /// - Complexity: O(bytes of the packet)
    func isTakable(_ answer: Packet, by id: ConnectionID) -> Bool {
        guard let connection = connections[id] else { return true }
        return answer.fits(connection.packetBytesMax, in: connection.version)
    }
}

extension Packet {
    /// Whether it is no larger than a Maximum Packet Size; nil is none.
    ///
    /// - Complexity: O(bytes of the packet)
    func fits(_ bytesMax: UInt32?, in version: ProtocolVersion) -> Bool {
        guard let bytesMax else { return true }
        var bytes: [UInt8] = []
        encode(version: version, into: &bytes)
        return bytes.count <= Int(bytesMax)
    }
}

extension ReasonCode {
    /// What this gateway means by it; nil where the name of the code says it all.
    fileprivate var explanation: String? {
        switch self {
        case .packetTooLarge: "larger than the Maximum Packet Size of whoever was to take it"
        case .quotaExceeded: "there is no room for more; try again later"
        case .notAuthorized:
            "not a topic that this client's device profile allows, or one of the gateway's own"
        case .qosNotSupported: "above the Maximum QoS that this client's device profile allows"
        case .clientIdentifierNotValid:
            "the device profile puts the Client Identifier into topics, where it may have no + # or / and not begin with $"
        case .badUserNameOrPassword:
            "the device profile puts the user name into topics: it is needed, without + # or / and not beginning with $"
        case .administrativeAction: "the gateway's configuration changed; connect again"
        case .topicNameInvalid: "the Topic Name has more levels than are allowed here"
        case .topicFilterInvalid: "the Topic Filter has more levels than are allowed here"
        case .payloadFormatInvalid: "the payload is not the UTF-8 text that it is said to be"
        case .badAuthenticationMethod: "no Authentication Method is offered here"
        case .receiveMaximumExceeded: "more messages were unacknowledged than CONNACK's Receive Maximum"
        case .topicAliasInvalid: "the Topic Alias is above CONNACK's Topic Alias Maximum"
        case .keepAliveTimeout: "nothing was heard for one and a half times the Keep Alive"
        case .sessionTakenOver: "another connection has the same Client Identifier"
        default: nil
        }
    }
}
