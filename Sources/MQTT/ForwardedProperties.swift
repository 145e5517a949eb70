/// The properties that travel with an Application Message from its publisher to every receiver, as values
/// [MQTT5-3.3.2.3]. `ApplicationMessage` carries them as bytes; this is for who reads or makes them.
package struct ForwardedProperties: Hashable, Sendable {
    /// Payload Format Indicator 1; false for 0 and when absent [MQTT5-3.3.2.3.2].
    package var payloadIsUTF8: Bool
    package var contentType: String?
    package var responseTopic: String?
    package var correlationData: [UInt8]?
    /// In the publisher's order [MQTT5-3.3.2-17].
    package var userProperties: [UserProperty]

    package init(
        payloadIsUTF8: Bool = false, contentType: String? = nil, responseTopic: String? = nil,
        correlationData: [UInt8]? = nil, userProperties: [UserProperty] = []
    ) {
        self.payloadIsUTF8 = payloadIsUTF8
        self.contentType = contentType
        self.responseTopic = responseTopic
        self.correlationData = correlationData
        self.userProperties = userProperties
    }

    /// Reads `ApplicationMessage.properties`; bytes that are none end the reading.
    ///
    /// - Complexity: O(bytes)
    package init(_ bytes: ArraySlice<UInt8>) {
        self.init()
        for property in ForwardedPropertySequence(bytes) {
            switch property {
            case .payloadFormat(let isUTF8): payloadIsUTF8 = isUTF8
            case .contentType(let text): contentType = String(decoding: text, as: UTF8.self)
            case .responseTopic(let topic): responseTopic = String(decoding: topic, as: UTF8.self)
            case .correlationData(let data): correlationData = Array(data)
            case .userProperty(let name, let value):
                userProperties.append(
                    UserProperty(
                        String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
            }
        }
    }

    /// What `ApplicationMessage.init` takes. A string or binary value of more than 65 535 bytes stops the
    /// process.
    ///
    /// - Complexity: O(bytes)
    package var bytes: [UInt8] {
        var properties = PropertyWriter()
        if payloadIsUTF8 { properties.append(.payloadFormatIndicator, true) }
        properties.append(.contentType, contentType)
        properties.append(.responseTopic, responseTopic)
        properties.append(.correlationData, correlationData)
        properties.append(userProperties)
        return properties.bytes
    }
}

extension ApplicationMessage {
    /// The forwarded properties one by one, in the publisher's order, without copies.
    package var forwardedProperties: ForwardedPropertySequence { ForwardedPropertySequence(properties) }

    /// Whether the publisher says that the payload is UTF-8 text [MQTT5-3.3.2.3.2].
    ///
    /// - Complexity: O(bytes of the properties)
    package var payloadFormatIsUTF8: Bool { forwardedProperties.contains(.payloadFormat(isUTF8: true)) }

    /// Whether the payload is what its Payload Format Indicator says: well-formed UTF-8, in which unlike in a string
    /// of MQTT also U+0000 may be, or anything [MQTT5-3.3.2.3.2].
    ///
    /// - Complexity: O(bytes)
    package var payloadIsOfItsFormat: Bool {
        guard payloadFormatIsUTF8 else { return true }
        var parser = Unicode.UTF8.ForwardParser()
        var bytes = payload.makeIterator()
        while true {
            switch parser.parseScalar(from: &bytes) {
            case .valid: continue
            case .emptyInput: return true
            case .error: return false
            }
        }
    }
}

/// One property of an Application Message, its text as checked UTF-8 bytes.
package enum ForwardedProperty: Hashable, Sendable {
    case payloadFormat(isUTF8: Bool)
    case contentType(ArraySlice<UInt8>)
    case responseTopic(ArraySlice<UInt8>)
    case correlationData(ArraySlice<UInt8>)
    case userProperty(name: ArraySlice<UInt8>, value: ArraySlice<UInt8>)
}

/// Walks `ApplicationMessage.properties`. It ends early at bytes that are no such property, which only a
/// damaged disk brings.
package struct ForwardedPropertySequence: Sequence, IteratorProtocol, Sendable {
    private var rest: ArraySlice<UInt8>

    package init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

    package mutating func next() -> ForwardedProperty? {
        guard let byte = rest.popFirst() else { return nil }
        switch PropertyIdentifier(rawValue: byte) {
        case .payloadFormatIndicator: return rest.popFirst().map { .payloadFormat(isUTF8: $0 == 1) }
        case .contentType: return takeBinary().map { .contentType($0) }
        case .responseTopic: return takeBinary().map { .responseTopic($0) }
        case .correlationData: return takeBinary().map { .correlationData($0) }
        case .userProperty:
            guard let name = takeBinary(), let value = takeBinary() else { return nil }
            return .userProperty(name: name, value: value)
        default:
            rest = []
            return nil
        }
    }

    private mutating func takeBinary() -> ArraySlice<UInt8>? {
        guard let high = rest.popFirst(), let low = rest.popFirst() else { return nil }
        let count = Int(high) << 8 | Int(low)
        guard count <= rest.count else {
            rest = []
            return nil
        }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }
}
