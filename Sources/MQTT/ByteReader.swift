/// Reads a packet's fields one after the other, never past its end.
///
/// It borrows the bytes: nothing it returns may outlive the decoding of one packet, except what it copies
/// (`String`, `[UInt8]`).
struct ByteReader {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - offset }
    var isEmpty: Bool { offset == bytes.count }
    /// What has not been read yet.
    var unread: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[offset...]) }

    mutating func byte() throws(MalformedPacket) -> UInt8 {
        guard offset < bytes.count else { throw .bodyTooShort }
        defer { offset += 1 }
        return bytes[offset]
    }

    /// Two Byte Integer, big-endian [MQTT5-1.5.2].
    mutating func uint16() throws(MalformedPacket) -> UInt16 {
        guard remaining >= 2 else { throw .bodyTooShort }
        defer { offset += 2 }
        return UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    /// Four Byte Integer, big-endian [MQTT5-1.5.3].
    mutating func uint32() throws(MalformedPacket) -> UInt32 {
        guard remaining >= 4 else { throw .bodyTooShort }
        defer { offset += 4 }
        return UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    /// Variable Byte Integer inside a packet, hence of MQTT 5 [MQTT5-1.5.5-1].
    mutating func variableByteInteger() throws(MalformedPacket) -> UInt32 {
        switch VariableByteInteger.read(unread) {
        case .value(let value, let length):
            guard length == VariableByteInteger.length(of: Int(value)) else {
                throw .overlongVariableByteInteger
            }
            offset += length
            return value
        case .incomplete: throw .bodyTooShort
        case .tooLong: throw .overlongVariableByteInteger
        }
    }

    mutating func take(_ count: Int) throws(MalformedPacket) -> UnsafeRawBufferPointer {
        guard count <= remaining else { throw .bodyTooShort }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    mutating func takeRest() -> UnsafeRawBufferPointer {
        defer { offset = bytes.count }
        return unread
    }

    /// Binary Data: a length in two bytes and as many bytes [MQTT5-1.5.6].
    mutating func binary() throws(MalformedPacket) -> UnsafeRawBufferPointer {
        let count = Int(try uint16())
        return try take(count)
    }

    /// A UTF-8 Encoded String as bytes that have been checked [MQTT5-1.5.4].
    mutating func stringBytes() throws(MalformedPacket) -> UnsafeRawBufferPointer {
        let text = try binary()
        guard UTF8Rules.areValid(text) else { throw .invalidString }
        return text
    }

    mutating func string() throws(MalformedPacket) -> String {
        String(decoding: try stringBytes(), as: UTF8.self)
    }

    mutating func userProperty() throws(MalformedPacket) -> UserProperty {
        let name = try string()
        return UserProperty(name, try string())
    }

    mutating func packetIdentifier() throws(MalformedPacket) -> PacketIdentifier {
        guard let id = PacketIdentifier(rawValue: try uint16()) else { throw .zeroPacketIdentifier }
        return id
    }

    /// The properties' own bytes, after their length [MQTT5-2.2.2.1].
    mutating func propertySection() throws(MalformedPacket) -> ByteReader {
        let length = Int(try variableByteInteger())
        return ByteReader(try take(length))
    }

    func finish() throws(MalformedPacket) {
        guard isEmpty else { throw .trailingBytes }
    }
}

/// The specification's integer of one to four bytes, seven bits each, lowest first [MQTT5-1.5.5].
package enum VariableByteInteger {
    /// The largest: also the largest Remaining Length, in bytes.
    package static let max = 268_435_455

    enum Reading {
        case value(UInt32, length: Int)
        case incomplete
        case tooLong
    }

    static func read(_ bytes: UnsafeRawBufferPointer) -> Reading {
        var value: UInt32 = 0
        for i in 0..<Swift.min(4, bytes.count) {
            let byte = bytes[i]
            value |= UInt32(byte & 0x7F) << UInt32(7 * i)
            if byte & 0x80 == 0 { return .value(value, length: i + 1) }
        }
        return bytes.count < 4 ? .incomplete : .tooLong
    }

    /// In bytes, 1 to 4.
    static func length(of value: Int) -> Int {
        value < 128 ? 1 : value < 16_384 ? 2 : value < 2_097_152 ? 3 : 4
    }
}
