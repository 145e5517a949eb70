extension Packet {
    /// Appends the packet as `version` writes it; what the version cannot say is left out. CONNECT is
    /// written in its own version.
    ///
    /// The packet is trusted: a string of more than 65 535 bytes, a PUBLISH whose Packet Identifier does not
    /// go with its QoS, AUTH before MQTT 5, or a packet of more than 268 435 455 bytes behind its fixed
    /// header is a mistake of ours and stops the process.
    ///
    /// - Complexity: O(bytes of the packet), amortised
    package func encode(version: ProtocolVersion, into bytes: inout [UInt8]) {
        switch self {
        case .connect(let connect): connect.encode(into: &bytes)
        case .connack(let connack): connack.encode(version, into: &bytes)
        case .publish(let publish): publish.encode(version, into: &bytes)
        case .puback(let puback): puback.encode(.puback, version, into: &bytes)
        case .pubrec(let pubrec): pubrec.encode(.pubrec, version, into: &bytes)
        case .pubrel(let pubrel): pubrel.encode(.pubrel, version, into: &bytes)
        case .pubcomp(let pubcomp): pubcomp.encode(.pubcomp, version, into: &bytes)
        case .subscribe(let subscribe): subscribe.encode(version, into: &bytes)
        case .suback(let suback): suback.encode(version, into: &bytes)
        case .unsubscribe(let unsubscribe): unsubscribe.encode(version, into: &bytes)
        case .unsuback(let unsuback): unsuback.encode(version, into: &bytes)
        case .pingreq: bytes.append(contentsOf: [PacketType.pingreq.firstByte(), 0])
        case .pingresp: bytes.append(contentsOf: [PacketType.pingresp.firstByte(), 0])
        case .disconnect(let disconnect): disconnect.encode(version, into: &bytes)
        case .auth(let auth): auth.encode(version, into: &bytes)
        }
    }
}

extension Publish {
    /// The whole packet's size in bytes as `version` writes it, to be held against the receiver's Maximum
    /// Packet Size [MQTT5-3.1.2-24]; also right for one too large to encode.
    package func encodedSize(version: ProtocolVersion) -> Int {
        let length = remainingLength(version, propertiesLength(version))
        return 1 + VariableByteInteger.length(of: length) + length
    }

    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        precondition((id != nil) == (qos != .atMostOnce), "a Packet Identifier goes with QoS 1 and 2")
        precondition(
            !message.topic.isEmpty && !omitsTopicName || version == .v5_0 && topicAlias != nil,
            "a PUBLISH names its topic")
        let propertiesLength = propertiesLength(version)
        // DUP is 0 at QoS 0 [MQTT5-3.3.1-2].
        let dup: UInt8 = duplicate && qos != .atMostOnce ? 0b1000 : 0
        bytes.append(PacketType.publish.firstByte(flags: dup | qos.rawValue << 1 | (retain ? 1 : 0)))
        bytes.append(variableByteInteger: remainingLength(version, propertiesLength))
        bytes.append(binary: omitsTopicName ? [] : message.topic)
        if let id { bytes.append(uint16: id.rawValue) }
        if version == .v5_0 {
            bytes.append(variableByteInteger: propertiesLength)
            if let messageExpirySeconds { bytes.append(.messageExpiryInterval, messageExpirySeconds) }
            if let topicAlias { bytes.append(.topicAlias, topicAlias) }
            for identifier in subscriptionIdentifiers { bytes.append(subscriptionIdentifier: identifier) }
            bytes.append(contentsOf: message.properties)
        }
        bytes.append(contentsOf: message.payload)
    }

    private func propertiesLength(_ version: ProtocolVersion) -> Int {
        guard version == .v5_0 else { return 0 }
        var length = message.properties.count
        if messageExpirySeconds != nil { length += 5 }
        if topicAlias != nil { length += 3 }
        for identifier in subscriptionIdentifiers {
            length += 1 + VariableByteInteger.length(of: Int(identifier))
        }
        return length
    }

    private func remainingLength(_ version: ProtocolVersion, _ propertiesLength: Int) -> Int {
        let propertiesSize =
            version == .v5_0 ? VariableByteInteger.length(of: propertiesLength) + propertiesLength : 0
        return 2 + (omitsTopicName ? 0 : message.topic.count) + (id == nil ? 0 : 2) + propertiesSize
            + message.payload.count
    }
}

extension Acknowledgement {
    fileprivate func encode(_ type: PacketType, _ version: ProtocolVersion, into bytes: inout [UInt8]) {
        let first = type.firstByte(flags: type == .pubrel ? 0b0010 : 0)
        let hasProperties = reasonString != nil || !userProperties.isEmpty
        guard version == .v5_0, reason != .success || hasProperties else {
            bytes.append(first)
            bytes.append(2)
            bytes.append(uint16: id.rawValue)
            return
        }
        var body = PacketBody()
        body.bytes.append(uint16: id.rawValue)
        body.bytes.append(reason.rawValue)
        if hasProperties { body.append(PropertyWriter(reasonString, userProperties)) }
        body.write(first, to: &bytes)
    }
}

extension Subscribe {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        precondition(!requests.isEmpty, "SUBSCRIBE asks for something [MQTT5-3.8.3-2]")
        var body = PacketBody()
        body.bytes.append(uint16: id.rawValue)
        if version == .v5_0 {
            var properties = PropertyWriter()
            if let subscriptionIdentifier {
                properties.bytes.append(subscriptionIdentifier: subscriptionIdentifier)
            }
            properties.append(userProperties)
            body.append(properties)
        }
        for request in requests {
            body.bytes.append(binary: request.filter.bytes)
            body.bytes.append(request.options(version))
        }
        body.write(PacketType.subscribe.firstByte(flags: 0b0010), to: &bytes)
    }
}

extension SubscriptionRequest {
    fileprivate func options(_ version: ProtocolVersion) -> UInt8 {
        guard version == .v5_0 else { return maximumQoS.rawValue }
        return maximumQoS.rawValue | (noLocal ? 0b0100 : 0) | (retainAsPublished ? 0b1000 : 0)
            | retainHandling.rawValue << 4
    }
}

extension Suback {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        var body = PacketBody()
        body.bytes.append(uint16: id.rawValue)
        if version == .v5_0 { body.append(PropertyWriter(reasonString, userProperties)) }
        for reason in reasons {
            let isPlainFailure = version < .v5_0 && reason.isError
            body.bytes.append(isPlainFailure ? ReasonCode.unspecifiedError.rawValue : reason.rawValue)
        }
        body.write(PacketType.suback.firstByte(), to: &bytes)
    }
}

extension Unsubscribe {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        precondition(!filters.isEmpty, "UNSUBSCRIBE names something [MQTT5-3.10.3-2]")
        var body = PacketBody()
        body.bytes.append(uint16: id.rawValue)
        if version == .v5_0 { body.append(PropertyWriter(nil, userProperties)) }
        for filter in filters { body.bytes.append(binary: filter.bytes) }
        body.write(PacketType.unsubscribe.firstByte(flags: 0b0010), to: &bytes)
    }
}

extension Unsuback {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        var body = PacketBody()
        body.bytes.append(uint16: id.rawValue)
        if version == .v5_0 {
            body.append(PropertyWriter(reasonString, userProperties))
            for reason in reasons { body.bytes.append(reason.rawValue) }
        }
        body.write(PacketType.unsuback.firstByte(), to: &bytes)
    }
}

extension Disconnect {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        var properties = PropertyWriter()
        properties.append(.sessionExpiryInterval, sessionExpirySeconds)
        properties.append(.reasonString, reasonString)
        properties.append(userProperties)
        properties.append(.serverReference, serverReference)
        var body = PacketBody()
        if version == .v5_0, reason != .normalDisconnection || !properties.isEmpty {
            body.bytes.append(reason.rawValue)
            if !properties.isEmpty { body.append(properties) }
        }
        body.write(PacketType.disconnect.firstByte(), to: &bytes)
    }
}

extension Auth {
    fileprivate func encode(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        precondition(version == .v5_0, "AUTH is a packet of MQTT 5")
        var properties = PropertyWriter()
        properties.append(.authenticationMethod, authenticationMethod)
        properties.append(.authenticationData, authenticationData)
        properties.append(.reasonString, reasonString)
        properties.append(userProperties)
        var body = PacketBody()
        if reason != .success || !properties.isEmpty {
            body.bytes.append(reason.rawValue)
            body.append(properties)
        }
        body.write(PacketType.auth.firstByte(), to: &bytes)
    }
}
