extension Connect {
    func encode(into bytes: inout [UInt8]) {
        precondition(
            userName != nil || password == nil || version == .v5_0,
            "a Password needs a User Name before MQTT 5")
        precondition(!isBridge || version < .v5_0, "the bridge bit belongs to MQTT 3.1 and 3.1.1")
        body.write(PacketType.connect.firstByte(), to: &bytes)
    }

    /// The whole packet's size in bytes, to be held against the Maximum Packet Size of its receiver.
    ///
    /// - Complexity: O(bytes)
    package var encodedSize: Int {
        let length = body.bytes.count
        return 1 + VariableByteInteger.length(of: length) + length
    }

    private var body: PacketBody {
        var body = PacketBody()
        body.bytes.append(string: version.protocolName)
        body.bytes.append(version.rawValue | (isBridge ? 0x80 : 0))
        body.bytes.append(flags)
        body.bytes.append(uint16: keepAliveSeconds)
        if version == .v5_0 { body.append(properties) }
        body.bytes.append(string: clientIdentifier)
        if let will {
            if version == .v5_0 { body.append(will.properties) }
            body.bytes.append(binary: will.message.topic)
            body.bytes.append(binary: will.message.payload)
        }
        if let userName { body.bytes.append(string: userName) }
        if let password { body.bytes.append(binary: password) }
        return body
    }

    private var flags: UInt8 {
        var flags: UInt8 = cleanStart ? 0b0000_0010 : 0
        if let will { flags |= 0b0000_0100 | will.qos.rawValue << 3 | (will.retain ? 0b0010_0000 : 0) }
        if password != nil { flags |= 0b0100_0000 }
        if userName != nil { flags |= 0b1000_0000 }
        return flags
    }

    private var properties: PropertyWriter {
        var properties = PropertyWriter()
        properties.append(.sessionExpiryInterval, sessionExpirySeconds)
        properties.append(.receiveMaximum, receiveMaximum)
        properties.append(.maximumPacketSize, maximumPacketSize)
        properties.append(.topicAliasMaximum, topicAliasMaximum)
        if requestResponseInformation { properties.append(.requestResponseInformation, true) }
        if !requestProblemInformation { properties.append(.requestProblemInformation, false) }
        properties.append(.authenticationMethod, authenticationMethod)
        properties.append(.authenticationData, authenticationData)
        properties.append(userProperties)
        return properties
    }
}

extension Will {
    fileprivate var properties: PropertyWriter {
        var properties = PropertyWriter()
        if delaySeconds != 0 { properties.append(.willDelayInterval, delaySeconds) }
        properties.append(.messageExpiryInterval, messageExpirySeconds)
        properties.bytes.append(contentsOf: message.properties)
        return properties
    }
}

extension Connack {
    func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        var body = PacketBody()
        // MQTT 3.1 has no Session Present, and no refusal may carry it [MQTT5-3.2.2-6].
        body.bytes.append(sessionPresent && version > .v3_1 && reason == .success ? 1 : 0)
        body.bytes.append(version == .v5_0 ? reason.rawValue : reason.connackReturnCode)
        if version == .v5_0 { body.append(properties) }
        body.write(PacketType.connack.firstByte(), to: &bytes)
    }

    private var properties: PropertyWriter {
        var properties = PropertyWriter()
        properties.append(.sessionExpiryInterval, sessionExpirySeconds)
        properties.append(.receiveMaximum, receiveMaximum)
        // Only 0 and 1 can be written: 2 is said by saying nothing [MQTT5-3.2.2.3.4].
        if let maximumQoS, maximumQoS < .exactlyOnce {
            properties.append(.maximumQoS, maximumQoS == .atLeastOnce)
        }
        properties.append(.retainAvailable, retainAvailable)
        properties.append(.maximumPacketSize, maximumPacketSize)
        properties.append(.assignedClientIdentifier, assignedClientIdentifier)
        properties.append(.topicAliasMaximum, topicAliasMaximum)
        properties.append(.reasonString, reasonString)
        properties.append(userProperties)
        properties.append(.wildcardSubscriptionAvailable, wildcardSubscriptionAvailable)
        properties.append(.subscriptionIdentifierAvailable, subscriptionIdentifiersAvailable)
        properties.append(.sharedSubscriptionAvailable, sharedSubscriptionAvailable)
        properties.append(.serverKeepAlive, serverKeepAliveSeconds)
        properties.append(.responseInformation, responseInformation)
        properties.append(.serverReference, serverReference)
        properties.append(.authenticationMethod, authenticationMethod)
        properties.append(.authenticationData, authenticationData)
        return properties
    }
}
