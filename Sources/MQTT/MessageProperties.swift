/// The properties of a PUBLISH or of a Will: checked in place, the ones that travel with the message left as
/// they are, the ones that belong to this delivery taken out. Nothing is allocated for the usual message.
///
/// It borrows the packet's bytes and must not outlive its decoding.
struct MessageProperties {
    enum Carrier { case publish(PacketDecoder.Receiver), will }

    /// All of them, without their length.
    private var section = UnsafeRawBufferPointer(start: nil, count: 0)
    /// How many bytes of `section` travel with the message.
    private(set) var forwardedCount = 0
    private(set) var messageExpirySeconds: UInt32?
    private(set) var topicAlias: UInt16?
    private(set) var willDelaySeconds: UInt32?
    private(set) var subscriptionIdentifiers: [UInt32] = []

    private static let inPublish: PropertySet = [
        .payloadFormatIndicator, .messageExpiryInterval, .contentType, .responseTopic, .correlationData,
        .subscriptionIdentifier, .topicAlias, .userProperty,
    ]
    private static let inWill: PropertySet = [
        .payloadFormatIndicator, .messageExpiryInterval, .contentType, .responseTopic, .correlationData,
        .willDelayInterval, .userProperty,
    ]
    /// May be given more than once.
    private static let repeatable: PropertySet = [.userProperty, .subscriptionIdentifier]

    /// Of a packet before MQTT 5.
    init() {}

    /// Reads Property Length and as many bytes of properties.
    ///
    /// - Complexity: O(bytes)
    init(from reader: inout ByteReader, of carrier: Carrier) throws(MalformedPacket) {
        var rest = try reader.propertySection()
        guard !rest.isEmpty else { return }
        let allowed =
            switch carrier {
            case .publish: Self.inPublish
            case .will: Self.inWill
            }
        var seen: PropertySet = []
        section = rest.unread
        while !rest.isEmpty {
            let before = rest.remaining
            let id = try rest.propertyIdentifier(allowed: allowed)
            guard !seen.contains(id) || Self.repeatable.contains(id) else {
                throw .duplicateProperty(id.rawValue)
            }
            seen.insert(id)
            if try rest.readForwarded(id) {
                forwardedCount += before - rest.remaining
            } else {
                try readOwn(id, from: &rest, of: carrier)
            }
        }
    }

    private mutating func readOwn(
        _ id: PropertyIdentifier, from rest: inout ByteReader, of carrier: Carrier
    ) throws(MalformedPacket) {
        switch id {
        case .messageExpiryInterval: messageExpirySeconds = try rest.uint32()
        case .willDelayInterval: willDelaySeconds = try rest.uint32()
        case .topicAlias:
            let alias = try rest.uint16()
            guard alias != 0 else { throw .zeroTopicAlias }
            topicAlias = alias
        case .subscriptionIdentifier:
            if case .publish(.server) = carrier { throw .subscriptionIdentifierFromClient }
            subscriptionIdentifiers.append(try rest.subscriptionIdentifier())
        case .payloadFormatIndicator, .contentType, .responseTopic, .correlationData, .userProperty,
            .sessionExpiryInterval, .assignedClientIdentifier, .serverKeepAlive, .authenticationMethod,
            .authenticationData, .requestProblemInformation, .requestResponseInformation,
            .responseInformation,
            .serverReference, .reasonString, .receiveMaximum, .topicAliasMaximum, .maximumQoS,
            .retainAvailable,
            .maximumPacketSize, .wildcardSubscriptionAvailable, .subscriptionIdentifierAvailable,
            .sharedSubscriptionAvailable:
            throw .propertyNotAllowed(id.rawValue)
        }
    }

    /// Appends what travels with the message, in the publisher's order: `forwardedCount` bytes.
    ///
    /// - Complexity: O(bytes)
    func appendForwarded(to bytes: inout [UInt8]) {
        if forwardedCount == section.count {
            bytes.append(contentsOf: section)
            return
        }
        var reader = ByteReader(section)
        let before = bytes.count
        do {
            while !reader.isEmpty {
                let whole = reader.unread
                let id = try reader.propertyIdentifier(allowed: Self.inPublish.union(Self.inWill))
                if try reader.readForwarded(id) {
                    bytes.append(contentsOf: whole[..<(whole.count - reader.remaining)])
                } else {
                    try reader.skipOwn(id)
                }
            }
        } catch {
            preconditionFailure("properties that were checked no longer hold: \(error)")
        }
        precondition(bytes.count - before == forwardedCount, "as many bytes are copied as were counted")
    }
}

extension ByteReader {
    /// Reads a property that travels with a message; false, having read nothing, when `id` is another.
    fileprivate mutating func readForwarded(_ id: PropertyIdentifier) throws(MalformedPacket) -> Bool {
        switch id {
        case .payloadFormatIndicator: _ = try yesOrNo(id)
        case .contentType: _ = try stringBytes()
        case .responseTopic:
            guard let broken = TopicName.check(try binary()) else { break }
            // [MQTT5-3.3.2-13, MQTT5-3.3.2-14]
            if case .invalidString = broken { throw .invalidString }
            throw .invalidResponseTopic
        case .correlationData: _ = try binary()
        case .userProperty:
            _ = try stringBytes()
            _ = try stringBytes()
        default: return false
        }
        return true
    }

    fileprivate mutating func skipOwn(_ id: PropertyIdentifier) throws(MalformedPacket) {
        switch id {
        case .topicAlias: _ = try uint16()
        case .subscriptionIdentifier: _ = try variableByteInteger()
        default: _ = try uint32()
        }
    }
}
