/// Turns the bytes of one Network Connection, however they are cut up, into packets.
///
/// Bytes go in with `append`, packets come out of `next` until it returns nil. The time spent is constant
/// per byte, also when a large packet arrives in small pieces. Memory follows the bytes received: a length
/// that a peer merely announces reserves nothing, and one above `maximumPacketSize` is refused as soon as
/// the fixed header is there.
package struct PacketDecoder {
    /// Who is decoding: a server refuses packets that only servers send, and a client the others.
    package enum Receiver: Sendable { case server, client }

    /// Memory kept for a connection that has nothing waiting, in bytes.
    private static let idleCapacityMax = 2048

    private let receiver: Receiver
    /// Of a whole packet with its fixed header, in bytes; a change is for the packets that come next.
    package var maximumPacketSize: Int
    private let readsPastLargePublishes: Bool
    /// The version spoken. On a server nil until a CONNECT was read as far as its Protocol Level; if that
    /// CONNECT is then refused, the version in which the client can be answered.
    package private(set) var version: ProtocolVersion?
    private var awaitsConnect: Bool
    private var failure: MalformedPacket?
    /// Received bytes; those before `start` have been decoded.
    private var buffer: [UInt8] = []
    private var start = 0
    /// A PUBLISH above the limit, without its payload, and how much of that is still to come.
    private var passing: (publish: Packet, bytesLeft: Int)?
    /// Whether what `next` returned last is a PUBLISH above the limit, without its payload.
    package private(set) var isPayloadLeftOut = false

    /// - Parameters:
    ///   - version: nil only on a server that has not seen its client's CONNECT.
    ///   - maximumPacketSize: of a whole packet with its fixed header, in bytes.
    ///   - readsPastLargePublishes: a PUBLISH above it is not an error. Its payload is thrown away as it comes, and
    ///     when all of it has, the rest of the packet is returned. Only before MQTT 5, which has Maximum Packet Size.
    package init(
        receiver: Receiver, version: ProtocolVersion?, maximumPacketSize: Int,
        readsPastLargePublishes: Bool = false
    ) {
        precondition(receiver == .server || version != nil, "a client knows which version it speaks")
        self.receiver = receiver
        self.version = version
        self.maximumPacketSize = maximumPacketSize
        self.readsPastLargePublishes = readsPastLargePublishes && version != nil && version != .v5_0
        self.awaitsConnect = version == nil
    }

    /// Bytes received and not yet decoded.
    package var bufferedBytes: Int { buffer.count - start }

    /// Adds bytes as they were received. After a failure they are ignored.
    ///
    /// - Complexity: O(bytes), amortised
    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        if start > 0, start >= buffer.count - start {
            // What moves is no longer than what was decoded since the last move.
            buffer.removeSubrange(..<start)
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next packet, or nil when more bytes are needed. After a throw it stays failed and throws the same
    /// again.
    ///
    /// - Complexity: O(bytes of the packet)
    package mutating func next() throws(MalformedPacket) -> Packet? {
        if let failure { throw failure }
        do {
            return try decodeNext()
        } catch {
            failure = error
            buffer = []
            start = 0
            throw error
        }
    }

    private mutating func decodeNext() throws(MalformedPacket) -> Packet? {
        isPayloadLeftOut = false
        if passing != nil { return readPast() }
        guard start < buffer.count else {
            releaseIdleMemory()
            return nil
        }
        // Checked before the rest of the header arrives, so that a peer that speaks something else is told soon.
        let header = try FixedHeader(buffer[start], receiver, version, awaitsConnect: awaitsConnect)
        guard let frame = try nextFrame(header) else { return nil }
        if frame.isTooLarge { return try beginReadingPast(frame, header) }
        var learned = version
        let receiver = receiver
        defer { version = learned }
        let packet = try buffer.withUnsafeBufferPointer { (all) throws(MalformedPacket) -> Packet in
            let body = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(all)[frame.body])
            var reader = ByteReader(body)
            guard let known = learned else {
                let connect = try Connect(from: &reader, version: &learned)
                guard frame.isMinimal || connect.version < .v5_0 else { throw .overlongVariableByteInteger }
                return .connect(connect)
            }
            return try Packet(header, from: &reader, version: known, receiver: receiver)
        }
        awaitsConnect = false
        start = frame.body.upperBound
        return packet
    }

    private struct Frame {
        var body: Range<Int>
        /// Whether Remaining Length takes no more bytes than it needs.
        var isMinimal: Bool
        /// Not all of the body need be there.
        var isTooLarge: Bool
    }

    /// Where the next packet's body lies; nil until all of it is there, unless it is to be read past.
    private func nextFrame(_ header: FixedHeader) throws(MalformedPacket) -> Frame? {
        let reading = buffer.withUnsafeBufferPointer { all in
            VariableByteInteger.read(
                UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(all)[(start + 1)...]))
        }
        switch reading {
        case .incomplete: return nil
        case .tooLong: throw .overlongVariableByteInteger
        case .value(let remainingLength, let length):
            let isMinimal = length == VariableByteInteger.length(of: Int(remainingLength))
            if version == .v5_0, !isMinimal { throw .overlongVariableByteInteger }
            let isTooLarge = 1 + length + Int(remainingLength) > maximumPacketSize
            if isTooLarge, !readsPastLargePublishes || header.type != .publish { throw .packetTooLarge }
            let from = start + 1 + length
            guard isTooLarge || buffer.count - from >= Int(remainingLength) else { return nil }
            return Frame(
                body: from..<from + Int(remainingLength), isMinimal: isMinimal, isTooLarge: isTooLarge)
        }
    }

    // MARK: Reading past

    /// Decodes what stands before the payload: Topic Name and Packet Identifier; nil until they are there.
    private mutating func beginReadingPast(
        _ frame: Frame, _ header: FixedHeader
    ) throws(MalformedPacket) -> Packet? {
        guard let version else { throw .packetTooLarge }
        let from = frame.body.lowerBound
        guard buffer.count - from >= 2 else { return nil }
        let topicBytes = Int(buffer[from]) << 8 | Int(buffer[from + 1])
        let end = from + 2 + topicBytes + (header.flags & 0b0110 == 0 ? 0 : 2)
        guard end <= frame.body.upperBound else { throw .bodyTooShort }
        guard buffer.count >= end else { return nil }
        let receiver = receiver
        let publish = try buffer.withUnsafeBufferPointer { (all) throws(MalformedPacket) -> Packet in
            var reader = ByteReader(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(all)[from..<end]))
            return try Packet(header, from: &reader, version: version, receiver: receiver)
        }
        start = end
        passing = (publish, frame.body.upperBound - end)
        return readPast()
    }

    /// Throws away what has come of the payload; returns the packet when all of it has.
    private mutating func readPast() -> Packet? {
        guard let (publish, bytesLeft) = passing else { return nil }
        let count = min(bytesLeft, bufferedBytes)
        start += count
        guard count == bytesLeft else {
            passing = (publish, bytesLeft - count)
            releaseIdleMemory()
            return nil
        }
        passing = nil
        isPayloadLeftOut = true
        return publish
    }

    private mutating func releaseIdleMemory() {
        start = 0
        if buffer.capacity > Self.idleCapacityMax {
            buffer = []
        } else {
            buffer.removeAll(keepingCapacity: true)
        }
    }
}

/// The packet types of the fixed header [MQTT5-2.1.2].
enum PacketType: UInt8 {
    case connect = 1
    case connack, publish, puback, pubrec, pubrel, pubcomp, subscribe, suback, unsubscribe, unsuback, pingreq
    case pingresp, disconnect, auth

    /// Whether `receiver` may be sent this packet in `version` [MQTT5-2.1.2], [MQTT311-2.2.1].
    func travels(to receiver: PacketDecoder.Receiver, in version: ProtocolVersion?) -> Bool {
        switch self {
        case .publish, .puback, .pubrec, .pubrel, .pubcomp, .auth: true
        case .connect, .subscribe, .unsubscribe, .pingreq: receiver == .server
        case .connack, .suback, .unsuback, .pingresp: receiver == .client
        case .disconnect: receiver == .server || version == .v5_0
        }
    }
}

/// The first byte of a packet, checked [MQTT5-2.1].
struct FixedHeader {
    let type: PacketType
    let flags: UInt8

    init(
        _ byte: UInt8, _ receiver: PacketDecoder.Receiver, _ version: ProtocolVersion?, awaitsConnect: Bool
    ) throws(MalformedPacket) {
        guard let type = PacketType(rawValue: byte >> 4) else { throw .reservedPacketType }
        if awaitsConnect {
            guard type == .connect else { throw .firstPacketNotConnect }
        } else {
            guard type != .auth || version == .v5_0 else { throw .reservedPacketType }
            guard type.travels(to: receiver, in: version) else { throw .packetFromWrongSide }
            guard type != .connect else { throw .secondConnect }
        }
        self.type = type
        self.flags = byte & 0x0F
        try checkFlags(version)
    }

    private func checkFlags(_ version: ProtocolVersion?) throws(MalformedPacket) {
        switch type {
        case .publish:
            guard flags & 0b0110 != 0b0110 else { throw .invalidQoS }
            // MQTT 3.1 has no such rule.
            guard flags & 0b1110 != 0b1000 || version == .v3_1 else { throw .duplicateAtQoS0 }
        case .pubrel, .subscribe, .unsubscribe:
            // In MQTT 3.1 these are sent at QoS 1 and sent again with DUP (its sections 3.6, 3.8 and 3.10).
            guard flags == 0b0010 || version == .v3_1 && flags == 0b1010 else { throw .reservedFlags }
        case .connect, .connack, .puback, .pubrec, .pubcomp, .suback, .unsuback, .pingreq, .pingresp,
            .disconnect,
            .auth:
            guard flags == 0 else { throw .reservedFlags }
        }
    }
}
