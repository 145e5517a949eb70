extension Packet {
    /// Decodes one packet's body, all of it.
    ///
    /// CONNECT is decoded by `Connect.init`: only a connection without a version may carry one.
    init(
        _ header: FixedHeader, from reader: inout ByteReader, version: ProtocolVersion,
        receiver: PacketDecoder.Receiver
    ) throws(MalformedPacket) {
        switch header.type {
        case .connect: throw .secondConnect
        case .connack: self = .connack(try Connack(from: &reader, version: version))
        case .publish:
            self = .publish(try Publish(header.flags, from: &reader, version: version, receiver: receiver))
        case .puback: self = .puback(try Acknowledgement(from: &reader, version, ReasonCodes.received))
        case .pubrec: self = .pubrec(try Acknowledgement(from: &reader, version, ReasonCodes.received))
        case .pubrel: self = .pubrel(try Acknowledgement(from: &reader, version, ReasonCodes.released))
        case .pubcomp: self = .pubcomp(try Acknowledgement(from: &reader, version, ReasonCodes.released))
        case .subscribe: self = .subscribe(try Subscribe(from: &reader, version: version))
        case .suback: self = .suback(try Suback(from: &reader, version: version))
        case .unsubscribe: self = .unsubscribe(try Unsubscribe(from: &reader, version: version))
        case .unsuback: self = .unsuback(try Unsuback(from: &reader, version: version))
        case .pingreq: self = .pingreq
        case .pingresp: self = .pingresp
        case .disconnect:
            self = .disconnect(try Disconnect(from: &reader, version: version, receiver: receiver))
        case .auth: self = .auth(try Auth(from: &reader, receiver: receiver))
        }
        try reader.finish()
    }
}

extension Publish {
    /// - Parameter flags: of the fixed header, already checked.
    init(
        _ flags: UInt8, from reader: inout ByteReader, version: ProtocolVersion,
        receiver: PacketDecoder.Receiver
    ) throws(MalformedPacket) {
        guard let qos = QoS(rawValue: flags >> 1 & 0b11) else { throw .invalidQoS }
        let topic = try reader.binary()
        let id = qos == .atMostOnce ? nil : try reader.packetIdentifier()
        let properties =
            version == .v5_0
            ? try MessageProperties(from: &reader, of: .publish(receiver)) : MessageProperties()
        let isAliased = topic.isEmpty && properties.topicAlias != nil
        if !isAliased, let broken = TopicName.check(topic) { throw broken }
        self.init(
            message: ApplicationMessage(topic: topic, properties: properties, payload: reader.takeRest()),
            qos: qos, id: id, retain: flags & 0b0001 != 0,
            duplicate: flags & 0b1000 != 0 && qos != .atMostOnce,
            messageExpirySeconds: properties.messageExpirySeconds, topicAlias: properties.topicAlias,
            subscriptionIdentifiers: properties.subscriptionIdentifiers)
    }
}

extension Acknowledgement {
    init(
        from reader: inout ByteReader, _ version: ProtocolVersion, _ allowed: ReasonCodes
    ) throws(MalformedPacket) {
        self.init(try reader.packetIdentifier())
        // Without a Reason Code it is success; without a Property Length there are none [MQTT5-3.4.2.1].
        guard version == .v5_0, !reader.isEmpty else { return }
        reason = try reader.reasonCode(allowed)
        guard !reader.isEmpty else { return }
        let properties = try Properties(from: &reader, allowed: .acknowledgement)
        reasonString = properties.reasonString
        userProperties = properties.userProperties
    }
}

extension Subscribe {
    init(from reader: inout ByteReader, version: ProtocolVersion) throws(MalformedPacket) {
        self.init(id: try reader.packetIdentifier(), requests: [])
        if version == .v5_0 {
            let properties = try Properties(from: &reader, allowed: .subscribe)
            subscriptionIdentifier = properties.subscriptionIdentifier
            userProperties = properties.userProperties
        }
        guard !reader.isEmpty else { throw .emptySubscribe }
        while !reader.isEmpty {
            let filter = try reader.topicFilter()
            requests.append(
                try SubscriptionRequest(filter: filter, options: try reader.byte(), version: version))
        }
    }
}

extension SubscriptionRequest {
    fileprivate init(filter: TopicFilter, options: UInt8, version: ProtocolVersion) throws(MalformedPacket) {
        let reserved: UInt8 = version == .v5_0 ? 0b1100_0000 : 0b1111_1100
        guard options & reserved == 0 else { throw .reservedSubscriptionOptions }
        guard let qos = QoS(rawValue: options & 0b11) else { throw .invalidSubscriptionQoS }
        guard let handling = RetainHandling(rawValue: options >> 4 & 0b11) else {
            throw .invalidRetainHandling
        }
        let noLocal = options & 0b0100 != 0
        guard !noLocal || filter.shareName == nil else { throw .noLocalOnSharedSubscription }
        self.init(
            filter: filter, maximumQoS: qos, noLocal: noLocal, retainAsPublished: options & 0b1000 != 0,
            retainHandling: handling)
    }
}

extension Suback {
    init(from reader: inout ByteReader, version: ProtocolVersion) throws(MalformedPacket) {
        self.init(id: try reader.packetIdentifier(), reasons: [])
        if version == .v5_0 {
            let properties = try Properties(from: &reader, allowed: .acknowledgement)
            reasonString = properties.reasonString
            userProperties = properties.userProperties
        }
        reasons = try reader.reasonCodes(
            version == .v5_0 ? ReasonCodes.subscribed : ReasonCodes.subscribedBefore5)
    }
}

extension Unsubscribe {
    init(from reader: inout ByteReader, version: ProtocolVersion) throws(MalformedPacket) {
        self.init(id: try reader.packetIdentifier(), filters: [])
        if version == .v5_0 {
            userProperties = try Properties(from: &reader, allowed: .unsubscribe).userProperties
        }
        guard !reader.isEmpty else { throw .emptyUnsubscribe }
        while !reader.isEmpty { filters.append(try reader.topicFilter()) }
    }
}

extension Unsuback {
    init(from reader: inout ByteReader, version: ProtocolVersion) throws(MalformedPacket) {
        self.init(id: try reader.packetIdentifier(), reasons: [])
        guard version == .v5_0 else { return }
        let properties = try Properties(from: &reader, allowed: .acknowledgement)
        reasonString = properties.reasonString
        userProperties = properties.userProperties
        reasons = try reader.reasonCodes(ReasonCodes.unsubscribed)
    }
}

extension Disconnect {
    init(
        from reader: inout ByteReader, version: ProtocolVersion, receiver: PacketDecoder.Receiver
    ) throws(MalformedPacket) {
        self.init()
        guard version == .v5_0, !reader.isEmpty else { return }
        reason = try reader.reasonCode(
            receiver == .server ? ReasonCodes.disconnectedByClient : ReasonCodes.disconnectedByServer)
        guard !reader.isEmpty else { return }
        let properties = try Properties(
            from: &reader, allowed: receiver == .server ? .disconnectByClient : .disconnectByServer)
        sessionExpirySeconds = properties.sessionExpirySeconds
        reasonString = properties.reasonString
        userProperties = properties.userProperties
        serverReference = properties.serverReference
    }
}

extension Auth {
    init(from reader: inout ByteReader, receiver: PacketDecoder.Receiver) throws(MalformedPacket) {
        let isShort = reader.isEmpty
        self.init(try reader.authReason(receiver))
        // Success needs no more than the fixed header [MQTT5-3.15.2.1].
        if isShort { return }
        if !reader.isEmpty {
            let properties = try Properties(from: &reader, allowed: .auth)
            authenticationMethod = properties.authenticationMethod
            authenticationData = properties.authenticationData
            reasonString = properties.reasonString
            userProperties = properties.userProperties
        }
        guard authenticationMethod != nil else { throw .authenticationMethodMissing }
    }
}

extension ByteReader {
    fileprivate mutating func topicFilter() throws(MalformedPacket) -> TopicFilter {
        guard let filter = TopicFilter(try stringBytes()) else { throw .invalidTopicFilter }
        return filter
    }

    fileprivate mutating func reasonCode(_ allowed: ReasonCodes) throws(MalformedPacket) -> ReasonCode {
        let code = ReasonCode(rawValue: try byte())
        guard allowed.contains(code) else { throw .reasonCodeNotAllowed(code.rawValue) }
        return code
    }

    /// One for each Topic Filter, up to the packet's end.
    fileprivate mutating func reasonCodes(_ allowed: ReasonCodes) throws(MalformedPacket) -> [ReasonCode] {
        guard !isEmpty else { throw .missingReasonCodes }
        var codes: [ReasonCode] = []
        codes.reserveCapacity(remaining)
        while !isEmpty { codes.append(try reasonCode(allowed)) }
        return codes
    }
}

/// The Reason Codes that a packet may carry [MQTT5-2.4].
struct ReasonCodes {
    private let codes: [UInt8]

    func contains(_ code: ReasonCode) -> Bool { codes.contains(code.rawValue) }

    static let connected = ReasonCodes(codes: [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
        0x9A,
        0x9B, 0x9C, 0x9D, 0x9F,
    ])
    /// PUBACK and PUBREC.
    static let received = ReasonCodes(codes: [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
    /// PUBREL and PUBCOMP.
    static let released = ReasonCodes(codes: [0x00, 0x92])
    static let subscribed = ReasonCodes(codes: [
        0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
    ])
    static let subscribedBefore5 = ReasonCodes(codes: [0x00, 0x01, 0x02, 0x80])
    static let unsubscribed = ReasonCodes(codes: [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91])
    static let disconnectedByClient = ReasonCodes(codes: [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ])
    /// 0x8C is missing from section 3.14.2.1 and given for DISCONNECT by section 2.4.
    static let disconnectedByServer = ReasonCodes(codes: [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97,
        0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ])
    /// AUTH from a client.
    static let authenticatingClient = ReasonCodes(codes: [0x18, 0x19])
    /// AUTH from a server.
    static let authenticatingServer = ReasonCodes(codes: [0x00, 0x18])
}

extension ByteReader {
    /// Success when the packet ends before it.
    fileprivate mutating func authReason(
        _ receiver: PacketDecoder.Receiver
    ) throws(MalformedPacket) -> ReasonCode {
        let code = isEmpty ? ReasonCode.success : ReasonCode(rawValue: try byte())
        let allowed =
            receiver == .server ? ReasonCodes.authenticatingClient : ReasonCodes.authenticatingServer
        guard allowed.contains(code) else { throw .reasonCodeNotAllowed(code.rawValue) }
        return code
    }

    mutating func connackReason(_ version: ProtocolVersion) throws(MalformedPacket) -> ReasonCode {
        guard version < .v5_0 else { return try reasonCode(ReasonCodes.connected) }
        let code = try byte()
        guard let reason = ReasonCode(connackReturnCode: code) else { throw .reasonCodeNotAllowed(code) }
        return reason
    }
}
