/// The specification's data types as bytes [MQTT5-1.5].
extension [UInt8] {
    mutating func append(uint16 value: UInt16) {
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }

    mutating func append(uint32 value: UInt32) {
        append(uint16: UInt16(truncatingIfNeeded: value >> 16))
        append(uint16: UInt16(truncatingIfNeeded: value))
    }

    /// In as few bytes as it takes [MQTT5-1.5.5-1].
    mutating func append(variableByteInteger value: Int) {
        precondition(
            value >= 0 && value <= VariableByteInteger.max, "a length or identifier is at most 268 435 455")
        var rest = value
        while rest >= 0x80 {
            append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }

    mutating func append(binary value: some Collection<UInt8>) {
        precondition(value.count <= Int(UInt16.max), "strings and binary data have at most 65 535 bytes")
        append(uint16: UInt16(value.count))
        append(contentsOf: value)
    }

    mutating func append(string value: String) { append(binary: value.utf8) }

    mutating func append(_ id: PropertyIdentifier, _ value: UInt32) {
        append(id.rawValue)
        append(uint32: value)
    }

    mutating func append(_ id: PropertyIdentifier, _ value: UInt16) {
        append(id.rawValue)
        append(uint16: value)
    }

    mutating func append(subscriptionIdentifier value: UInt32) {
        precondition(value != 0, "a Subscription Identifier is not 0 [MQTT5-3.8.2.1.2]")
        append(PropertyIdentifier.subscriptionIdentifier.rawValue)
        append(variableByteInteger: Int(value))
    }
}

extension PacketType {
    func firstByte(flags: UInt8 = 0) -> UInt8 { rawValue << 4 | flags }
}

/// What stands behind a fixed header, whose length is known only once it is all there.
struct PacketBody {
    var bytes: [UInt8] = []

    /// Property Length and the properties.
    mutating func append(_ properties: PropertyWriter) {
        bytes.append(variableByteInteger: properties.bytes.count)
        bytes.append(contentsOf: properties.bytes)
    }

    func write(_ firstByte: UInt8, to target: inout [UInt8]) {
        target.append(firstByte)
        target.append(variableByteInteger: bytes.count)
        target.append(contentsOf: bytes)
    }
}

/// The properties of one packet, one after the other; nil is left out.
struct PropertyWriter {
    var bytes: [UInt8] = []
    var isEmpty: Bool { bytes.isEmpty }

    init() {}

    init(_ reasonString: String?, _ userProperties: [UserProperty]) {
        append(.reasonString, reasonString)
        append(userProperties)
    }

    mutating func append(_ id: PropertyIdentifier, _ value: Bool?) {
        guard let value else { return }
        bytes.append(id.rawValue)
        bytes.append(value ? 1 : 0)
    }

    mutating func append(_ id: PropertyIdentifier, _ value: UInt16?) {
        if let value { bytes.append(id, value) }
    }

    mutating func append(_ id: PropertyIdentifier, _ value: UInt32?) {
        if let value { bytes.append(id, value) }
    }

    mutating func append(_ id: PropertyIdentifier, _ value: String?) {
        guard let value else { return }
        bytes.append(id.rawValue)
        bytes.append(string: value)
    }

    mutating func append(_ id: PropertyIdentifier, _ value: [UInt8]?) {
        guard let value else { return }
        bytes.append(id.rawValue)
        bytes.append(binary: value)
    }

    mutating func append(_ properties: [UserProperty]) {
        for property in properties {
            append(.userProperty, property.name)
            bytes.append(string: property.value)
        }
    }
}
