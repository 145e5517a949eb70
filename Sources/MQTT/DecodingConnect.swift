extension Connect {
    /// Decodes CONNECT, all of it.
    ///
    /// - Parameter version: set as soon as the Protocol Level is read, so that whoever refuses the rest
    ///   can answer; for a level not spoken here, set to the version whose CONNACK the client is likeliest to
    ///   understand.
    init(from reader: inout ByteReader, version learned: inout ProtocolVersion?) throws(MalformedPacket) {
        let (version, isBridge) = try Self.readProtocol(from: &reader, &learned)
        learned = version
        let flags = try ConnectFlags(try reader.byte(), version)
        let keepAlive = try reader.uint16()
        let properties = version == .v5_0 ? try Properties(from: &reader, allowed: .connect) : Properties()
        let clientIdentifier = try reader.binary()
        guard UTF8Rules.areValid(clientIdentifier) else { throw .invalidClientIdentifier }

        self.init(
            version: version, clientIdentifier: String(decoding: clientIdentifier, as: UTF8.self),
            cleanStart: flags.cleanStart, keepAliveSeconds: keepAlive,
            sessionExpirySeconds: properties.sessionExpirySeconds, receiveMaximum: properties.receiveMaximum,
            maximumPacketSize: properties.maximumPacketSize, topicAliasMaximum: properties.topicAliasMaximum,
            requestResponseInformation: properties.requestResponseInformation ?? false,
            requestProblemInformation: properties.requestProblemInformation ?? true,
            authenticationMethod: properties.authenticationMethod,
            authenticationData: properties.authenticationData, userProperties: properties.userProperties,
            isBridge: isBridge)
        if let qos = flags.willQoS {
            will = try Will(from: &reader, qos: qos, retain: flags.willRetain, version: version)
        }
        // In MQTT 3.1 the flags may promise strings that an older client leaves out (its section 3.1).
        if flags.hasUserName, version > .v3_1 || !reader.isEmpty { userName = try reader.string() }
        if flags.hasPassword, version > .v3_1 || !reader.isEmpty { password = Array(try reader.binary()) }
        try reader.finish()
    }

    /// Protocol Name and Protocol Level [MQTT5-3.1.2-1, MQTT5-3.1.2-2].
    private static func readProtocol(
        from reader: inout ByteReader, _ learned: inout ProtocolVersion?
    ) throws(MalformedPacket) -> (ProtocolVersion, isBridge: Bool) {
        let name = try reader.binary()
        let isOld = name.elementsEqual(ProtocolVersion.v3_1.protocolName.utf8)
        guard isOld || name.elementsEqual(ProtocolVersion.v5_0.protocolName.utf8) else {
            throw .wrongProtocolName
        }
        let level = try reader.byte()
        switch (level, isOld) {
        case (3, true): return (.v3_1, false)
        case (0x83, true): return (.v3_1, true)
        case (4, false): return (.v3_1_1, false)
        case (0x84, false): return (.v3_1_1, true)
        case (5, false): return (.v5_0, false)
        default:
            learned = level & 0x7F < ProtocolVersion.v5_0.rawValue ? .v3_1_1 : .v5_0
            throw .unsupportedProtocolVersion(level)
        }
    }
}

extension ProtocolVersion {
    /// The Protocol Name of CONNECT.
    var protocolName: String {
        switch self {
        case .v3_1: "MQIsdp"
        case .v3_1_1, .v5_0: "MQTT"
        }
    }
}

/// The Connect Flags, checked against each other [MQTT5-3.1.2.3].
private struct ConnectFlags {
    let cleanStart: Bool
    /// nil without a Will.
    let willQoS: QoS?
    let willRetain: Bool
    let hasUserName: Bool
    let hasPassword: Bool

    init(_ byte: UInt8, _ version: ProtocolVersion) throws(MalformedPacket) {
        // MQTT 3.1 gives the bit no meaning and no rule.
        guard byte & 0b0000_0001 == 0 || version == .v3_1 else { throw .reservedConnectFlag }
        guard let qos = QoS(rawValue: byte >> 3 & 0b11) else { throw .invalidWillQoS }
        let hasWill = byte & 0b0000_0100 != 0
        willRetain = byte & 0b0010_0000 != 0
        guard hasWill || qos == .atMostOnce && !willRetain else { throw .willFlagsWithoutWill }
        willQoS = hasWill ? qos : nil
        cleanStart = byte & 0b0000_0010 != 0
        hasUserName = byte & 0b1000_0000 != 0
        hasPassword = byte & 0b0100_0000 != 0
        guard hasUserName || !hasPassword || version == .v5_0 else { throw .passwordWithoutUserName }
    }
}

extension Will {
    fileprivate init(
        from reader: inout ByteReader, qos: QoS, retain: Bool, version: ProtocolVersion
    ) throws(MalformedPacket) {
        let properties =
            version == .v5_0 ? try MessageProperties(from: &reader, of: .will) : MessageProperties()
        let topic = try reader.binary()
        if let broken = TopicName.check(topic) { throw broken }
        let payload = try reader.binary()
        self.init(
            message: ApplicationMessage(topic: topic, properties: properties, payload: payload), qos: qos,
            retain: retain, delaySeconds: properties.willDelaySeconds ?? 0,
            messageExpirySeconds: properties.messageExpirySeconds)
    }
}

extension Connack {
    init(from reader: inout ByteReader, version: ProtocolVersion) throws(MalformedPacket) {
        let flags = try reader.byte()
        // MQTT 3.1 leaves the byte unused.
        guard flags & 0b1111_1110 == 0 || version == .v3_1 else { throw .reservedConnackFlags }
        let sessionPresent = flags & 1 == 1 && version > .v3_1
        let reason = try reader.connackReason(version)
        guard reason == .success || !sessionPresent else { throw .sessionPresentOnRefusal }
        let properties = version == .v5_0 ? try Properties(from: &reader, allowed: .connack) : Properties()
        self.init(
            sessionPresent: sessionPresent, reason: reason,
            sessionExpirySeconds: properties.sessionExpirySeconds, receiveMaximum: properties.receiveMaximum,
            maximumQoS: properties.maximumQoS, retainAvailable: properties.retainAvailable,
            maximumPacketSize: properties.maximumPacketSize,
            assignedClientIdentifier: properties.assignedClientIdentifier,
            topicAliasMaximum: properties.topicAliasMaximum, reasonString: properties.reasonString,
            userProperties: properties.userProperties,
            wildcardSubscriptionAvailable: properties.wildcardSubscriptionAvailable,
            subscriptionIdentifiersAvailable: properties.subscriptionIdentifiersAvailable,
            sharedSubscriptionAvailable: properties.sharedSubscriptionAvailable,
            serverKeepAliveSeconds: properties.serverKeepAliveSeconds,
            responseInformation: properties.responseInformation, serverReference: properties.serverReference,
            authenticationMethod: properties.authenticationMethod,
            authenticationData: properties.authenticationData)
    }
}
