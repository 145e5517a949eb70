import MQTT
import Testing
import Workbench

/// What a CONNECT is answered.
enum Greeting: Equatable, Sendable {
    /// CONNACK with success, and the connection goes on.
    case accepted
    /// CONNACK with a reason, and the end; before MQTT 5 with the Return Code nearest to it.
    case refused(ReasonCode)
    /// The end, without a word.
    case closed
}

/// CONNECT in all its forms, as bytes.
@Suite("3.1 CONNECT, by its bytes")
struct ConnectTests {
    private func greeting(_ bytes: [UInt8], _ version: ProtocolVersion) throws -> Greeting {
        let caller = try Caller(version)
        switch try caller.response(to: bytes) {
        case .closed([]): return .closed
        case .closed(let packets):
            guard case .connack(let connack)? = packets.first, packets.count == 1 else { break }
            #expect(!connack.sessionPresent)  // [MQTT5-3.2.2-6, MQTT311-3.2.2-4]
            return .refused(connack.reason)
        case .open(let packets):
            guard case .connack(let connack)? = packets.first, packets.count == 1 else { break }
            // [MQTT5-3.2.2-7, MQTT311-3.2.2-5] What does not succeed does not go on.
            // [MQTT5-3.2.2-8] The decoder takes no Reason Code that CONNACK cannot have.
            #expect(connack.reason == .success)
            return .accepted
        }
        throw WorkbenchError("CONNECT was answered with something else than CONNACK")
    }

    /// Before MQTT 5 a CONNECT of the wrong form is closed without CONNACK.
    private func malformed(_ reason: ReasonCode, _ version: ProtocolVersion) -> Greeting {
        version == .v5_0 ? .refused(reason) : .closed
    }

    @Test(
        "[MQTT5-3.1.4-5, MQTT311-3.1.4-4] Every combination of the Connect Flags that the version allows is accepted, no other",
        arguments: allVersions)
    func flags(version: ProtocolVersion) throws {
        for flags in UInt8(0)...255 {
            let hasWill = flags & 0b100 != 0
            let willQoS = flags >> 3 & 0b11
            let isRetained = flags & 0b10_0000 != 0
            let hasUserName = flags & 0b1000_0000 != 0
            let hasPassword = flags & 0b100_0000 != 0
            let connect = RawConnect(version) {
                $0.flags = flags
                if hasWill { $0.rest += properties(version) + text("conversation/will") + binary([]) }
                if hasUserName { $0.rest += text("user") }
                if hasPassword { $0.rest += binary([1, 2]) }
            }
            // [MQTT5-3.1.2-3, MQTT311-3.1.2-3] The reserved bit; MQTT 3.1 has no rule about it.
            let isReserved = flags & 1 != 0 && version > .v3_1
            // [MQTT5-3.1.2-11, MQTT5-3.1.2-12, MQTT5-3.1.2-13]
            // [MQTT311-3.1.2-13, MQTT311-3.1.2-14, MQTT311-3.1.2-15]
            let isWillWrong = willQoS == 3 || !hasWill && (willQoS > 0 || isRetained)
            // [MQTT311-3.1.2-22] Only MQTT 5 has Passwords without User Names.
            let isPasswordWrong = hasPassword && !hasUserName && version < .v5_0
            let isWrong = isReserved || isWillWrong || isPasswordWrong
            #expect(
                try greeting(connect.bytes, version)
                    == (isWrong ? malformed(.malformedPacket, version) : .accepted),
                "\(version), flags \(String(flags, radix: 2))")
        }
    }

    @Test(
        "[MQTT5-3.1.2-1, MQTT5-3.1.2-2] [MQTT311-3.1.2-1, MQTT311-3.1.2-2] Names and levels: what is no MQTT is closed, an unknown level is told so in the words of its like",
        arguments: [
            ("MQTT", 4, .v3_1_1, .accepted), ("MQTT", 5, .v5_0, .accepted), ("MQIsdp", 3, .v3_1, .accepted),
            // Mosquitto's bridges set the highest bit.
            ("MQTT", 0x84, .v3_1_1, .accepted), ("MQIsdp", 0x83, .v3_1, .accepted),
            ("MQTT", 0, .v3_1_1, .refused(.unsupportedProtocolVersion)),
            ("MQTT", 3, .v3_1_1, .refused(.unsupportedProtocolVersion)),
            ("MQTT", 6, .v5_0, .refused(.unsupportedProtocolVersion)),
            ("MQTT", 127, .v5_0, .refused(.unsupportedProtocolVersion)),
            ("MQTT", 255, .v5_0, .refused(.unsupportedProtocolVersion)),
            ("MQIsdp", 4, .v3_1_1, .refused(.unsupportedProtocolVersion)),
            ("MQIsdp", 5, .v5_0, .refused(.unsupportedProtocolVersion)),
            ("mqtt", 4, .v3_1_1, .closed), ("MQTTX", 5, .v5_0, .closed), ("", 4, .v3_1_1, .closed),
            ("MQIsdq", 3, .v3_1, .closed), ("MQTT\u{0}", 5, .v5_0, .closed),
        ] as [(String, UInt8, ProtocolVersion, Greeting)])
    func levels(_ name: String, _ level: UInt8, _ version: ProtocolVersion, _ expected: Greeting) throws {
        let connect = RawConnect(version) {
            $0.protocolName = text(name)
            $0.level = level
        }
        #expect(try greeting(connect.bytes, version) == expected)
    }

    @Test(
        "[MQTT5-3.1.4-1, MQTT311-3.1.4-1] A CONNECT that ends too soon, at every byte, or goes on too long",
        arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func truncated(version: ProtocolVersion) throws {
        let connect = RawConnect(version) {
            $0.flags = 0b1100_0110
            $0.properties = [0x21] + u16(5) + [0x26] + text("n") + text("v")
            $0.rest = properties(version, [0x18], u32(0)) + text("conversation/will") + binary([1])
            $0.rest += text("user") + binary([1])
        }
        let whole = connect.body
        #expect(try greeting(raw(0x10, whole), version) == .accepted)
        // Before its Protocol Level is read nobody knows in which words to answer.
        let untilLevel = text("MQTT").count
        for count in 0..<whole.count {
            let expected = count <= untilLevel ? .closed : malformed(.malformedPacket, version)
            #expect(try greeting(raw(0x10, Array(whole[..<count])), version) == expected, "\(count) bytes")
        }
        #expect(try greeting(raw(0x10, whole, [0]), version) == malformed(.malformedPacket, version))
    }

    @Test(
        "[MQTT5-3.1.3-4, MQTT5-3.1.3-8] [MQTT5-3.1.3-11, MQTT5-3.1.3-12] [MQTT311-3.1.3-4, MQTT311-3.1.3-10, MQTT311-3.1.3-11] Strings in CONNECT that are none",
        arguments: brokenStrings)
    func strings(string: [UInt8]) throws {
        for version in allVersions {
            let identifier = RawConnect(version) { $0.clientIdentifier = binary(string) }
            // The one mistake of form for which every version has words.
            #expect(try greeting(identifier.bytes, version) == .refused(.clientIdentifierNotValid))
            let willTopic = RawConnect(version) {
                $0.flags = 0b110
                $0.rest = properties(version) + binary(string) + binary([])
            }
            #expect(try greeting(willTopic.bytes, version) == malformed(.malformedPacket, version))
            let userName = RawConnect(version) {
                $0.flags = 0b1000_0010
                $0.rest = binary(string)
            }
            #expect(try greeting(userName.bytes, version) == malformed(.malformedPacket, version))
        }
    }

    @Test("A Will Topic that is no Topic Name", arguments: ["", "a/+", "#"])
    func willTopic(topic: String) throws {
        for version in allVersions {
            let connect = RawConnect(version) {
                $0.flags = 0b110
                $0.rest = properties(version) + text(topic) + binary([])
            }
            let reason: ReasonCode = topic.isEmpty ? .protocolError : .topicNameInvalid
            #expect(try greeting(connect.bytes, version) == malformed(reason, version))
        }
    }

    @Test(
        "[MQTT5-3.1.4-1, MQTT5-3.1.4-2] [MQTT5-4.12.0-1] [MQTT5-4.13.1-1] Properties of CONNECT",
        arguments: [
            ([0x21] + u16(0), .refused(.protocolError)), ([0x21] + u16(1), .accepted),
            ([0x21] + u16(9) + [0x21] + u16(9), .refused(.protocolError)),
            ([0x27] + u32(0), .refused(.protocolError)), ([0x27] + u32(1000), .accepted),
            ([0x27] + u32(1000) + [0x27] + u32(1000), .refused(.protocolError)),
            ([0x11] + u32(0), .accepted),
            ([0x11] + u32(9) + [0x11] + u32(9), .refused(.protocolError)),
            ([0x22] + u16(0), .accepted), ([0x22] + u16(65_535), .accepted),
            ([0x22] + u16(1) + [0x22] + u16(1), .refused(.protocolError)),
            ([0x19, 0], .accepted), ([0x19, 1], .accepted), ([0x19, 2], .refused(.protocolError)),
            ([0x19, 0, 0x19, 0], .refused(.protocolError)),
            ([0x17, 0], .accepted), ([0x17, 1], .accepted), ([0x17, 2], .refused(.protocolError)),
            ([0x17, 0, 0x17, 0], .refused(.protocolError)),
            ([0x26] + text("a") + text("b") + [0x26] + text("a") + text("b"), .accepted),
            ([0x26] + text("a"), .refused(.malformedPacket)),
            ([0x15] + text("METHOD"), .refused(.badAuthenticationMethod)),
            ([0x15] + text("a") + [0x15] + text("a"), .refused(.protocolError)),
            ([0x15] + text("METHOD") + [0x16] + binary([1]), .refused(.badAuthenticationMethod)),
            ([0x16] + binary([1]), .refused(.protocolError)),
            ([0x12] + text("a"), .refused(.malformedPacket)), ([0x13] + u16(9), .refused(.malformedPacket)),
            ([0x01, 1], .refused(.malformedPacket)), ([0x24, 1], .refused(.malformedPacket)),
            ([0x7F, 1], .refused(.malformedPacket)), ([0x11, 0], .refused(.malformedPacket)),
        ] as [([UInt8], Greeting)])
    func properties5(bytes: [UInt8], expected: Greeting) throws {
        #expect(try greeting(RawConnect(.v5_0) { $0.properties = bytes }.bytes, .v5_0) == expected)
    }

    @Test(
        "[MQTT5-4.13.1-1] Properties of a Will",
        arguments: [
            ([0x18] + u32(0), .accepted), ([0x18] + u32(1) + [0x18] + u32(1), .refused(.protocolError)),
            ([0x01, 1], .accepted), ([0x01, 2], .refused(.protocolError)),
            ([0x01, 1, 0x01, 1], .refused(.protocolError)), ([0x02] + u32(1), .accepted),
            ([0x03] + text("a") + [0x03] + text("a"), .refused(.protocolError)),
            ([0x08] + text("a/#"), .refused(.protocolError)), ([0x09] + binary([1]), .accepted),
            ([0x26] + text("a") + text("b"), .accepted), ([0x23] + u16(1), .refused(.malformedPacket)),
            ([0x0B, 1], .refused(.malformedPacket)), ([0x11] + u32(1), .refused(.malformedPacket)),
        ] as [([UInt8], Greeting)])
    func willProperties(bytes: [UInt8], expected: Greeting) throws {
        let connect = RawConnect(.v5_0) {
            $0.flags = 0b110
            $0.rest = properties(.v5_0, bytes) + text("conversation/will") + binary([])
        }
        #expect(try greeting(connect.bytes, .v5_0) == expected)
    }

    @Test(
        "[MQTT311-3.1.3-8, MQTT311-3.1.3-9] [MQTT5-3.1.3-6] A Client Identifier of no bytes",
        arguments: [
            (.v3_1, 0, .refused(.clientIdentifierNotValid)), (.v3_1, 2, .refused(.clientIdentifierNotValid)),
            (.v3_1_1, 0, .refused(.clientIdentifierNotValid)), (.v3_1_1, 2, .accepted),
            (.v5_0, 0, .accepted), (.v5_0, 2, .accepted),
        ] as [(ProtocolVersion, UInt8, Greeting)])
    func emptyClientIdentifier(version: ProtocolVersion, flags: UInt8, expected: Greeting) throws {
        let connect = RawConnect(version) {
            $0.clientIdentifier = text("")
            $0.flags = flags
        }
        #expect(try greeting(connect.bytes, version) == expected)
    }

    @Test(
        "[MQTT5-3.1.3-5, MQTT311-3.1.3-5] 1 to 23 digits and letters are a Client Identifier, and after MQTT 3.1 more are"
    )
    func clientIdentifiers() throws {
        let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        for version in allVersions {
            for count in [1, 22, 23] {
                for start in stride(from: 0, to: letters.count - count, by: count) {
                    let name = String(letters.dropFirst(start).prefix(count))
                    let connect = RawConnect(version) { $0.clientIdentifier = text(name) }
                    #expect(try greeting(connect.bytes, version) == .accepted, "\(name)")
                }
            }
        }
        let tooLong = RawConnect(.v3_1) { $0.clientIdentifier = text(String(letters.prefix(24))) }
        #expect(try greeting(tooLong.bytes, .v3_1) == .refused(.clientIdentifierNotValid))
        let long = RawConnect(.v3_1_1) { $0.clientIdentifier = text(String(repeating: "ö", count: 300)) }
        #expect(try greeting(long.bytes, .v3_1_1) == .accepted)
    }

    @Test(
        "[MQTT5-3.1.0-2, MQTT311-3.1.0-2] [MQTT5-3.2.0-2] A second CONNECT ends the connection, and has no CONNACK",
        arguments: allVersions)
    func twice(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version)
        let again = RawConnect(version) { $0.clientIdentifier = text(caller.name) }
        #expect(try caller.response(to: again.bytes) == .refused(.protocolError, version))
    }

    @Test("A connection without CONNECT is closed when the time for it is over")
    func timeout() throws {
        let silent = try Caller(.v5_0)
        // Half a CONNECT is none.
        let slow = try Caller(.v5_0)
        slow.send(Array(RawConnect(.v5_0).bytes.dropLast()))
        let began = monotonicSeconds()
        #expect(try silent.untilClosed() == [])
        #expect(try slow.untilClosed() == [])
        #expect(monotonicSeconds() - began > Server.connectTimeoutSeconds / 2)
    }
}
