import Foundation
import MQTT
import Testing

/// A packet that breaks one rule.
struct BrokenPacket: Sendable, CustomTestStringConvertible {
    let version: ProtocolVersion?
    let receiver: PacketDecoder.Receiver
    let bytes: [UInt8]
    let error: MalformedPacket
    let reason: ReasonCode

    init(
        _ version: ProtocolVersion?, to receiver: PacketDecoder.Receiver = .server, _ notation: String,
        _ error: MalformedPacket, _ reason: ReasonCode
    ) {
        self.version = version
        self.receiver = receiver
        self.bytes = hex(notation)
        self.error = error
        self.reason = reason
    }

    var testDescription: String { "\(error.description) (\(bytes.prefix(12)), \(receiver))" }
}

/// Every rule of the encoding, broken [MQTT5-4.13.1], [MQTT311-4.8].
///
/// Not tested here: Client Identifiers that a version restricts further ([MQTT311-3.1.3-5], 1 to 23
/// characters in MQTT 3.1) and an empty one with Clean Session 0 [MQTT311-3.1.3-8], which the core refuses;
/// Payload Format 1 with a payload that is not UTF-8, which a server need not look into [MQTT5-3.3.2.3.2];
/// [MQTT311-3.1.2-24] and other rules about what happens after a refusal, which are the core's.
@Suite("4.13 Malformed Packets and Protocol Errors")
struct MalformedPacketTests {
    @Test(
        "a broken rule is named, and stays broken",
        arguments: fixedHeaders + fields + properties + connects + publishes + subscribes)
    func refuses(_ broken: BrokenPacket) throws {
        var decoder = PacketDecoder(
            receiver: broken.receiver, version: broken.version, maximumPacketSize: 1000)
        decoder.append(broken.bytes)
        #expect(throws: broken.error) { try decoder.all() }
        decoder.append(hex("C0 00"))
        #expect(throws: broken.error) { try decoder.next() }
        #expect(broken.error.reasonCode == broken.reason)
        #expect(decoder.bufferedBytes == 0)
    }

    static let fixedHeaders: [BrokenPacket] = [
        BrokenPacket(.v5_0, "C0 FF FF FF FF", .overlongVariableByteInteger, .malformedPacket),
        BrokenPacket(.v3_1_1, "C0 80 80 80 80 00", .overlongVariableByteInteger, .malformedPacket),
        // [MQTT5-1.5.5-1]
        BrokenPacket(.v5_0, "C0 80 00", .overlongVariableByteInteger, .malformedPacket),
        BrokenPacket(
            nil, "10 8D 00 00 04 'MQTT' 05 02 00 00 00 00 00", .overlongVariableByteInteger, .malformedPacket),
        BrokenPacket(.v5_0, "82 [ 00 01 80 00 s'a' 00 ]", .overlongVariableByteInteger, .malformedPacket),
        BrokenPacket(
            .v5_0, "82 [ 00 01 FF FF FF FF s'a' 00 ]", .overlongVariableByteInteger, .malformedPacket),
        // [MQTT5-3.2.2-15]
        BrokenPacket(.v3_1_1, "30 FF FF FF 7F", .packetTooLarge, .packetTooLarge),
        BrokenPacket(nil, "10 E6 07", .packetTooLarge, .packetTooLarge),
        BrokenPacket(.v5_0, "00 00", .reservedPacketType, .malformedPacket),
        BrokenPacket(nil, "00", .reservedPacketType, .malformedPacket),
        BrokenPacket(.v3_1_1, "F0 00", .reservedPacketType, .malformedPacket),
        BrokenPacket(.v3_1, to: .client, "F0 00", .reservedPacketType, .malformedPacket),
        BrokenPacket(.v5_0, "20 03 00 00 00", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v5_0, "90", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v3_1_1, "B0", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v5_0, "D0", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v5_0, to: .client, "10", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v5_0, to: .client, "82", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v5_0, to: .client, "A2", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "C0", .packetFromWrongSide, .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "E0", .packetFromWrongSide, .protocolError),
        // [MQTT5-3.1.0-1, MQTT311-3.1.0-1]
        BrokenPacket(nil, "C0", .firstPacketNotConnect, .protocolError),
        BrokenPacket(nil, "F0", .firstPacketNotConnect, .protocolError),
        // "GET /" of a browser.
        BrokenPacket(nil, "'GET / HTTP/1.1'", .firstPacketNotConnect, .protocolError),
        // [MQTT5-3.1.0-2, MQTT311-3.1.0-2]
        BrokenPacket(
            nil, "10 0C 00 04 'MQTT' 04 02 00 00 00 00 10 0C 00 04 'MQTT' 04 02 00 00 00 00", .secondConnect,
            .protocolError),
        // [MQTT5-2.1.3-1, MQTT311-2.2.2-1, MQTT311-2.2.2-2]
        BrokenPacket(nil, "11", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "22", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "41", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "52", .reservedFlags, .malformedPacket),
        // [MQTT5-3.6.1-1, MQTT311-3.6.1-1]
        BrokenPacket(.v5_0, "60", .reservedFlags, .malformedPacket),
        BrokenPacket(.v3_1_1, "60", .reservedFlags, .malformedPacket),
        BrokenPacket(.v3_1_1, "6A", .reservedFlags, .malformedPacket),
        BrokenPacket(.v3_1, "60", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "78", .reservedFlags, .malformedPacket),
        // [MQTT5-3.8.1-1, MQTT311-3.8.1-1]
        BrokenPacket(.v3_1_1, "80", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "80", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "8A", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "92", .reservedFlags, .malformedPacket),
        // [MQTT5-3.10.1-1, MQTT311-3.10.1-1]
        BrokenPacket(.v5_0, "A0", .reservedFlags, .malformedPacket),
        BrokenPacket(.v3_1_1, "A0", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "B2", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "C1", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "D1", .reservedFlags, .malformedPacket),
        // [MQTT5-3.14.1-1, MQTT311-3.14.1-1]
        BrokenPacket(.v3_1_1, "E1", .reservedFlags, .malformedPacket),
        BrokenPacket(.v5_0, "E8", .reservedFlags, .malformedPacket),
        // [MQTT5-3.15.1-1]
        BrokenPacket(.v5_0, "F1", .reservedFlags, .malformedPacket),
    ]

    static let fields: [BrokenPacket] = [
        BrokenPacket(.v5_0, "40 01 00", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v3_1_1, "40 00", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v3_1_1, "30 [ 00 05 'abcd' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v3_1_1, "32 [ s'a' 00 ]", .bodyTooShort, .malformedPacket),
        // [MQTT5-2.2.2-1]
        BrokenPacket(.v5_0, "30 [ s'a' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v5_0, "30 [ s'a' 05 01 00 ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v5_0, "30 [ s'a' [ 02 00 00 ] 00 00 ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v5_0, "30 [ s'a' [ 26 s'k' ] ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 00", .bodyTooShort, .malformedPacket),
        // [MQTT5-3.1.3-3, MQTT311-3.1.3-3]
        BrokenPacket(nil, "10 [ s'MQTT' 04 02 00 00 ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 02 00 00 [ ] ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ 00 04 'MQTT' 04 02 00 ]", .bodyTooShort, .malformedPacket),
        // [MQTT5-3.1.2-9, MQTT311-3.1.2-9]
        BrokenPacket(nil, "10 [ s'MQTT' 05 06 00 00 [ ] s'c' [ ] s'w' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ 00 04 'MQTT' 04 06 00 00 s'c' s'w' ]", .bodyTooShort, .malformedPacket),
        // [MQTT5-3.1.2-17, MQTT5-3.1.2-19, MQTT311-3.1.2-19, MQTT311-3.1.2-21]
        BrokenPacket(nil, "10 [ s'MQTT' 05 82 00 00 [ ] s'c' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 42 00 00 [ ] s'c' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 04 C2 00 00 s'c' s'u' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(nil, "10 [ 00 04 'MQTT' 04 82 00 00 s'c' ]", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v3_1_1, to: .client, "20 01 00", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "20 02 00 00", .bodyTooShort, .malformedPacket),
        BrokenPacket(.v3_1_1, "40 03 00 01 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v5_0, "40 05 00 01 00 00 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v5_0, "C0 01 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "D0 01 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v3_1_1, "E0 01 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v5_0, "E0 03 00 00 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v3_1_1, to: .client, "B0 03 00 01 00", .trailingBytes, .malformedPacket),
        BrokenPacket(.v3_1_1, to: .client, "20 03 00 00 00", .trailingBytes, .malformedPacket),
        // [MQTT5-3.1.2-16, MQTT5-3.1.2-18, MQTT311-3.1.2-11, MQTT311-3.1.2-18, MQTT311-3.1.2-20]
        BrokenPacket(nil, "10 [ s'MQTT' 04 02 00 00 s'c' s'u' ]", .trailingBytes, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 02 00 00 [ ] s'c' s'u' ]", .trailingBytes, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 82 00 00 [ ] s'c' s'u' s'p' ]", .trailingBytes, .malformedPacket),
        BrokenPacket(nil, "10 0D 00 04 'MQTT' 04 02 00 00 00 00 00", .trailingBytes, .malformedPacket),
        // [MQTT5-3.3.2-1, MQTT311-3.3.2-1]
        BrokenPacket(.v5_0, "30 [ 00 01 FF [ ] ]", .invalidString, .malformedPacket),
        BrokenPacket(.v3_1_1, "30 [ 00 01 FF ]", .invalidString, .malformedPacket),
        // [MQTT311-4.7.3-2]
        BrokenPacket(.v3_1_1, "30 [ 00 02 'a' 00 ]", .invalidString, .malformedPacket),
        // [MQTT5-3.8.3-1, MQTT311-3.8.3-1]
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] 00 01 FF 00 ]", .invalidString, .malformedPacket),
        BrokenPacket(.v3_1_1, "82 [ 00 01 00 02 C0 80 00 ]", .invalidString, .malformedPacket),
        // [MQTT5-3.10.3-1, MQTT311-3.10.3-1]
        BrokenPacket(.v3_1_1, "A2 [ 00 01 00 01 FF ]", .invalidString, .malformedPacket),
        BrokenPacket(.v5_0, "A2 [ 00 01 [ ] 00 03 ED A0 80 ]", .invalidString, .malformedPacket),
        // [MQTT5-3.3.2-19]
        BrokenPacket(.v5_0, "30 [ s'a' [ 03 00 01 FF ] ]", .invalidString, .malformedPacket),
        // [MQTT5-1.5.7-1]
        BrokenPacket(.v5_0, "30 [ s'a' [ 26 00 01 FF s'v' ] ]", .invalidString, .malformedPacket),
        BrokenPacket(.v5_0, "30 [ s'a' [ 26 s'k' 00 01 00 ] ]", .invalidString, .malformedPacket),
        // [MQTT5-3.1.3-12, MQTT311-3.1.3-11]
        BrokenPacket(nil, "10 [ s'MQTT' 05 82 00 00 [ ] s'c' 00 01 FF ]", .invalidString, .malformedPacket),
        BrokenPacket(nil, "10 [ 00 04 'MQTT' 04 82 00 00 s'c' 00 01 FF ]", .invalidString, .malformedPacket),
        // [MQTT5-3.1.3-11, MQTT311-3.1.3-10]
        BrokenPacket(
            nil, "10 [ s'MQTT' 05 06 00 00 [ ] s'c' [ ] 00 01 FF 00 00 ]", .invalidString, .malformedPacket),
        BrokenPacket(
            nil, "10 [ 00 04 'MQTT' 04 06 00 00 s'c' 00 01 FF 00 00 ]", .invalidString, .malformedPacket),
        // [MQTT5-2.2.1-3, MQTT311-2.3.1-1]
        BrokenPacket(.v5_0, "32 [ s'a' 00 00 [ ] ]", .zeroPacketIdentifier, .protocolError),
        BrokenPacket(.v3_1_1, "40 02 00 00", .zeroPacketIdentifier, .protocolError),
        BrokenPacket(.v3_1_1, "82 [ 00 00 s'a' 00 ]", .zeroPacketIdentifier, .protocolError),
        BrokenPacket(.v5_0, "A2 [ 00 00 [ ] s'a' ]", .zeroPacketIdentifier, .protocolError),
        // [MQTT5-3.4.2-1]
        BrokenPacket(.v5_0, "40 03 00 01 92", .reasonCodeNotAllowed(0x92), .protocolError),
        // [MQTT5-3.5.2-1]
        BrokenPacket(.v5_0, "50 03 00 01 01", .reasonCodeNotAllowed(0x01), .protocolError),
        // [MQTT5-3.6.2-1]
        BrokenPacket(.v5_0, "62 03 00 01 10", .reasonCodeNotAllowed(0x10), .protocolError),
        // [MQTT5-3.7.2-1]
        BrokenPacket(.v5_0, "70 03 00 01 80", .reasonCodeNotAllowed(0x80), .protocolError),
        BrokenPacket(.v5_0, to: .client, "90 04 00 01 00 03", .reasonCodeNotAllowed(0x03), .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "90 03 00 01 87", .reasonCodeNotAllowed(0x87), .protocolError),
        BrokenPacket(.v5_0, to: .client, "B0 04 00 01 00 01", .reasonCodeNotAllowed(0x01), .protocolError),
        // [MQTT5-3.14.2-1]
        BrokenPacket(.v5_0, "E0 01 8D", .reasonCodeNotAllowed(0x8D), .protocolError),
        BrokenPacket(.v5_0, to: .client, "E0 01 04", .reasonCodeNotAllowed(0x04), .protocolError),
        // [MQTT5-3.15.2-1]
        BrokenPacket(.v5_0, "F0 00", .reasonCodeNotAllowed(0x00), .protocolError),
        BrokenPacket(
            .v5_0, to: .client, "F0 [ 19 [ 15 s'm' ] ]", .reasonCodeNotAllowed(0x19), .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "20 02 00 06", .reasonCodeNotAllowed(0x06), .protocolError),
        BrokenPacket(.v5_0, to: .client, "20 03 00 01 00", .reasonCodeNotAllowed(0x01), .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "90 02 00 01", .missingReasonCodes, .protocolError),
        BrokenPacket(.v5_0, to: .client, "B0 03 00 01 00", .missingReasonCodes, .protocolError),
    ]

    static let properties: [BrokenPacket] =
        [
            BrokenPacket(
                .v5_0, "30 [ s'a' [ 11 00 00 00 01 ] ]", .propertyNotAllowed(0x11), .malformedPacket),
            BrokenPacket(
                .v5_0, "30 [ s'a' [ 18 00 00 00 01 ] ]", .propertyNotAllowed(0x18), .malformedPacket),
            BrokenPacket(.v5_0, "30 [ s'a' [ 00 ] ]", .propertyNotAllowed(0x00), .malformedPacket),
            BrokenPacket(.v5_0, "30 [ s'a' [ FF 01 ] ]", .propertyNotAllowed(0xFF), .malformedPacket),
            BrokenPacket(.v5_0, "40 [ 00 01 00 [ 23 00 01 ] ]", .propertyNotAllowed(0x23), .malformedPacket),
            BrokenPacket(
                .v5_0, "82 [ 00 01 [ 1F s'r' ] s'a' 00 ]", .propertyNotAllowed(0x1F), .malformedPacket),
            BrokenPacket(.v5_0, "A2 [ 00 01 [ 0B 01 ] s'a' ]", .propertyNotAllowed(0x0B), .malformedPacket),
            BrokenPacket(.v5_0, "E0 [ 00 [ 1C s's' ] ]", .propertyNotAllowed(0x1C), .malformedPacket),
            // [MQTT5-3.14.2-2]
            BrokenPacket(
                .v5_0, to: .client, "E0 [ 00 [ 11 00 00 00 01 ] ]", .propertyNotAllowed(0x11),
                .malformedPacket),
            BrokenPacket(
                nil, "10 [ 00 04 'MQTT' 05 02 00 00 [ 12 s'a' ] 00 00 ]", .propertyNotAllowed(0x12),
                .malformedPacket),
            BrokenPacket(
                nil, "10 [ 00 04 'MQTT' 05 06 00 00 [ ] s'c' [ 23 00 01 ] s'w' 00 00 ]",
                .propertyNotAllowed(0x23),
                .malformedPacket),
            BrokenPacket(.v5_0, "30 [ s'a' [ 01 00 01 00 ] ]", .duplicateProperty(0x01), .protocolError),
            BrokenPacket(.v5_0, "30 [ s'a' [ 03 s'a' 03 s'a' ] ]", .duplicateProperty(0x03), .protocolError),
            BrokenPacket(
                .v5_0, "30 [ s'a' [ 23 00 01 23 00 01 ] ]", .duplicateProperty(0x23), .protocolError),
            BrokenPacket(
                .v5_0, "82 [ 00 01 [ 0B 01 0B 01 ] s'a' 00 ]", .duplicateProperty(0x0B), .protocolError),
            BrokenPacket(
                nil, "10 [ 00 04 'MQTT' 05 02 00 00 [ 21 00 01 21 00 01 ] 00 00 ]", .duplicateProperty(0x21),
                .protocolError),
            BrokenPacket(.v5_0, "30 [ s'a' [ 01 02 ] ]", .propertyValueOutOfRange(0x01), .protocolError),
            BrokenPacket(
                .v5_0, "82 [ 00 01 [ 0B 00 ] s'a' 00 ]", .propertyValueOutOfRange(0x0B), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "30 [ s'a' [ 0B 00 ] ]", .propertyValueOutOfRange(0x0B), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 24 02 ] ]", .propertyValueOutOfRange(0x24), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 25 02 ] ]", .propertyValueOutOfRange(0x25), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 28 FF ] ]", .propertyValueOutOfRange(0x28), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 29 02 ] ]", .propertyValueOutOfRange(0x29), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 2A 02 ] ]", .propertyValueOutOfRange(0x2A), .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "20 [ 00 00 [ 21 00 00 ] ]", .propertyValueOutOfRange(0x21),
                .protocolError),
        ]
        + [("21 00 00", 0x21), ("27 00 00 00 00", 0x27), ("17 02", 0x17), ("19 02", 0x19)].map { bytes, id in
            BrokenPacket(
                nil, "10 [ 00 04 'MQTT' 05 02 00 00 [ \(bytes) ] 00 00 ]", .propertyValueOutOfRange(id),
                .protocolError)
        } + [
            BrokenPacket(
                nil, "10 [ 00 04 'MQTT' 05 02 00 00 [ 16 00 01 01 ] 00 00 ]",
                .authenticationDataWithoutMethod,
                .protocolError),
            BrokenPacket(
                .v5_0, "F0 [ 18 [ 16 00 01 01 ] ]", .authenticationDataWithoutMethod, .protocolError),
            BrokenPacket(.v5_0, "F0 [ 18 [ ] ]", .authenticationMethodMissing, .protocolError),
            BrokenPacket(.v5_0, "F0 01 19", .authenticationMethodMissing, .protocolError),
            BrokenPacket(
                .v5_0, to: .client, "F0 [ 18 [ 1F s'r' ] ]", .authenticationMethodMissing, .protocolError),
        ]

    static let connects: [BrokenPacket] = [
        // [MQTT5-3.1.2-1, MQTT311-3.1.2-1]
        BrokenPacket(
            nil, "10 [ s'MQTX' 04 02 00 00 00 00 ]", .wrongProtocolName, .unsupportedProtocolVersion),
        BrokenPacket(
            nil, "10 [ s'mqtt' 04 02 00 00 00 00 ]", .wrongProtocolName, .unsupportedProtocolVersion),
        BrokenPacket(
            nil, "10 [ s'MQTT' 06 02 00 00 00 00 ]", .unsupportedProtocolVersion(6),
            .unsupportedProtocolVersion),
        BrokenPacket(
            nil, "10 [ s'MQTT' 03 02 00 00 00 00 ]", .unsupportedProtocolVersion(3),
            .unsupportedProtocolVersion),
        BrokenPacket(
            nil, "10 [ s'MQIsdp' 04 02 00 00 00 00 ]", .unsupportedProtocolVersion(4),
            .unsupportedProtocolVersion),
        BrokenPacket(
            nil, "10 [ s'MQTT' 85 02 00 00 00 00 00 ]", .unsupportedProtocolVersion(0x85),
            .unsupportedProtocolVersion),
        // [MQTT5-3.1.2-3, MQTT311-3.1.2-3]
        BrokenPacket(nil, "10 [ s'MQTT' 04 03 00 00 00 00 ]", .reservedConnectFlag, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 03 00 00 00 00 00 ]", .reservedConnectFlag, .malformedPacket),
        // [MQTT5-3.1.2-11, MQTT5-3.1.2-13, MQTT311-3.1.2-13, MQTT311-3.1.2-15]
        BrokenPacket(nil, "10 [ s'MQTT' 04 22 00 00 00 00 ]", .willFlagsWithoutWill, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 12 00 00 00 00 00 ]", .willFlagsWithoutWill, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 04 0A 00 00 00 00 ]", .willFlagsWithoutWill, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 22 00 00 00 00 00 ]", .willFlagsWithoutWill, .malformedPacket),
        // [MQTT5-3.1.2-12, MQTT311-3.1.2-14]
        BrokenPacket(nil, "10 [ s'MQTT' 04 1E 00 00 00 00 ]", .invalidWillQoS, .malformedPacket),
        BrokenPacket(nil, "10 [ s'MQTT' 05 1E 00 00 00 00 00 ]", .invalidWillQoS, .malformedPacket),
        // [MQTT311-3.1.2-22]
        BrokenPacket(nil, "10 [ s'MQTT' 04 42 00 00 s'c' s'p' ]", .passwordWithoutUserName, .malformedPacket),
        BrokenPacket(
            nil, "10 [ s'MQIsdp' 03 42 00 00 s'c' s'p' ]", .passwordWithoutUserName, .malformedPacket),
        // [MQTT5-3.1.3-4, MQTT311-3.1.3-4]
        BrokenPacket(
            nil, "10 [ s'MQTT' 04 02 00 00 00 01 FF ]", .invalidClientIdentifier, .clientIdentifierNotValid),
        BrokenPacket(
            nil, "10 [ s'MQTT' 05 02 00 00 [ ] 00 01 00 ]", .invalidClientIdentifier,
            .clientIdentifierNotValid),
        BrokenPacket(
            nil, "10 [ s'MQTT' 04 06 00 00 s'c' s'w/#' 00 00 ]", .wildcardInTopicName, .topicNameInvalid),
        BrokenPacket(
            nil, "10 [ s'MQTT' 05 06 00 00 [ ] s'c' [ ] 00 00 00 00 ]", .emptyTopicName, .protocolError),
        BrokenPacket(.v3_1_1, to: .client, "20 02 02 00", .reservedConnackFlags, .malformedPacket),
        BrokenPacket(.v5_0, to: .client, "20 03 80 00 00", .reservedConnackFlags, .malformedPacket),
        BrokenPacket(.v3_1_1, to: .client, "20 02 01 05", .sessionPresentOnRefusal, .protocolError),
        BrokenPacket(.v5_0, to: .client, "20 03 01 80 00", .sessionPresentOnRefusal, .protocolError),
    ]

    static let publishes: [BrokenPacket] = [
        // [MQTT5-3.3.1-4, MQTT311-3.3.1-4]
        BrokenPacket(.v3_1_1, "36", .invalidQoS, .malformedPacket),
        BrokenPacket(.v5_0, "36", .invalidQoS, .malformedPacket),
        BrokenPacket(.v3_1, "3F", .invalidQoS, .malformedPacket),
        // [MQTT5-3.3.1-2, MQTT311-3.3.1-2]
        BrokenPacket(.v5_0, "38", .duplicateAtQoS0, .malformedPacket),
        BrokenPacket(.v3_1_1, to: .client, "39", .duplicateAtQoS0, .malformedPacket),
        // [MQTT5-3.3.2-2, MQTT311-3.3.2-2, MQTT311-4.7.1-1]
        BrokenPacket(.v3_1_1, "30 [ s'a/+' ]", .wildcardInTopicName, .topicNameInvalid),
        BrokenPacket(.v5_0, "30 [ s'sensors/a#b/long' [ ] ]", .wildcardInTopicName, .topicNameInvalid),
        // [MQTT311-4.7.3-1]
        BrokenPacket(.v3_1_1, "30 [ 00 00 'x' ]", .emptyTopicName, .protocolError),
        BrokenPacket(.v5_0, "30 [ 00 00 [ ] 'x' ]", .emptyTopicName, .protocolError),
        // [MQTT5-3.3.2-8]
        BrokenPacket(.v5_0, "30 [ s'a' [ 23 00 00 ] ]", .zeroTopicAlias, .topicAliasInvalid),
        // [MQTT5-3.3.2-13, MQTT5-3.3.2-14]
        BrokenPacket(.v5_0, "30 [ s'a' [ 08 00 01 FF ] ]", .invalidString, .malformedPacket),
        BrokenPacket(.v5_0, "30 [ s'a' [ 08 s'r/+' ] ]", .invalidResponseTopic, .protocolError),
        BrokenPacket(.v5_0, "30 [ s'a' [ 08 00 00 ] ]", .invalidResponseTopic, .protocolError),
        // [MQTT5-3.3.4-6]
        BrokenPacket(.v5_0, "30 [ s'a' [ 0B 01 ] ]", .subscriptionIdentifierFromClient, .protocolError),
    ]

    static let subscribes: [BrokenPacket] = [
        // [MQTT311-4.7.1-2, MQTT311-4.7.1-3]
        BrokenPacket(.v3_1_1, "82 [ 00 01 s'a/#/b' 00 ]", .invalidTopicFilter, .topicFilterInvalid),
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a/#/b' 00 ]", .invalidTopicFilter, .topicFilterInvalid),
        BrokenPacket(.v3_1_1, "82 [ 00 01 00 00 00 ]", .invalidTopicFilter, .topicFilterInvalid),
        BrokenPacket(.v3_1_1, "A2 [ 00 01 s'a+' ]", .invalidTopicFilter, .topicFilterInvalid),
        BrokenPacket(.v5_0, "A2 [ 00 01 [ ] s'$share//a' ]", .invalidTopicFilter, .topicFilterInvalid),
        // [MQTT5-3.8.3-2, MQTT311-3.8.3-3]
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] ]", .emptySubscribe, .protocolError),
        BrokenPacket(.v3_1_1, "82 02 00 01", .emptySubscribe, .protocolError),
        // [MQTT5-3.10.3-2, MQTT311-3.10.3-2]
        BrokenPacket(.v3_1_1, "A2 02 00 01", .emptyUnsubscribe, .protocolError),
        BrokenPacket(.v5_0, "A2 [ 00 01 [ ] ]", .emptyUnsubscribe, .protocolError),
        BrokenPacket(.v3_1, "A2 02 00 01", .emptyUnsubscribe, .protocolError),
        // [MQTT5-3.8.3-5, MQTT311-3.8.3-4]
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a' 40 ]", .reservedSubscriptionOptions, .malformedPacket),
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a' 80 ]", .reservedSubscriptionOptions, .malformedPacket),
        BrokenPacket(.v3_1_1, "82 [ 00 01 s'a' 04 ]", .reservedSubscriptionOptions, .malformedPacket),
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a' 03 ]", .invalidSubscriptionQoS, .protocolError),
        BrokenPacket(.v3_1_1, "82 [ 00 01 s'a' 03 ]", .invalidSubscriptionQoS, .protocolError),
        BrokenPacket(.v5_0, "82 [ 00 01 [ ] s'a' 30 ]", .invalidRetainHandling, .protocolError),
        // [MQTT5-3.8.3-4]
        BrokenPacket(
            .v5_0, "82 [ 00 01 [ ] s'$share/g/a' 04 ]", .noLocalOnSharedSubscription, .protocolError),
    ]

    @Test(
        "[MQTT5-3.1.2-2, MQTT311-3.1.2-2] a level not spoken here is answered in a version its client knows",
        arguments: [
            ("10 [ s'MQTT' 06 02 00 00 00 00 ]", ProtocolVersion.v5_0),
            ("10 [ s'MQTT' 02 02 00 00 00 00 ]", .v3_1_1),
            ("10 [ s'MQIsdp' 02 02 00 00 00 00 ]", .v3_1_1),
            ("10 [ s'MQTX' 04 02 00 00 00 00 ]", nil),
            // Refused for another reason: the level still counts.
            ("10 [ s'MQTT' 05 03 00 00 00 00 00 ]", .v5_0),
            ("10 [ s'MQIsdp' 03 42 00 00 s'c' s'p' ]", .v3_1),
        ] as [(String, ProtocolVersion?)])
    func versionToAnswerIn(_ notation: String, _ version: ProtocolVersion?) {
        var decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 1000)
        decoder.append(hex(notation))
        #expect(throws: MalformedPacket.self) { try decoder.next() }
        #expect(decoder.version == version)
    }

    @Test("every case of MalformedPacket is in these tables")
    func everyCaseIsTested() throws {
        let tests = URL(fileURLWithPath: #filePath)
        let source = tests.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources/MQTT/MalformedPacket.swift")
        let ownText = try String(contentsOf: tests, encoding: .utf8)
        let cases = try String(contentsOf: source, encoding: .utf8).split(separator: "\n")
            .prefix { !$0.contains("var reasonCode") }
            .compactMap { $0.wholeMatch(of: #/    case (\w+)(\(UInt8\))?/#).map { String($0.1) } }
        #expect(cases.count > 40)
        for name in cases { #expect(ownText.contains(" .\(name)"), "no table breaks \(name)") }
    }

    @Test("every error says what it is in words of its own")
    func descriptionsDiffer() {
        let all =
            Self.fixedHeaders + Self.fields + Self.properties + Self.connects + Self.publishes
            + Self.subscribes
        let errors = Set(all.map(\.error))
        #expect(Set(errors.map(\.description)).count == errors.count)
        #expect(MalformedPacket.propertyNotAllowed(0x0B).description.contains("0x0B"))
    }
}
