import MQTT
import Testing
import Workbench

/// A packet that breaks one rule, and the reason MQTT 5 gives for it; before MQTT 5 there is none to give.
struct Broken: Sendable, CustomTestStringConvertible {
    let name: String
    let versions: [ProtocolVersion]
    let reason: ReasonCode
    let bytes: @Sendable (ProtocolVersion) -> [UInt8]

    init(
        _ name: String, _ reason: ReasonCode, in versions: [ProtocolVersion] = allVersions,
        _ bytes: @escaping @Sendable (ProtocolVersion) -> [UInt8]
    ) {
        self.name = name
        self.versions = versions
        self.reason = reason
        self.bytes = bytes
    }

    var testDescription: String { name }

    /// A rule about properties.
    static func property(
        _ name: String, _ reason: ReasonCode, _ bytes: @escaping @Sendable (ProtocolVersion) -> [UInt8]
    ) -> Broken { Broken(name, reason, in: [.v5_0], bytes) }
}

/// A packet with a place for some bytes.
struct Place: Sendable, CustomTestStringConvertible {
    let name: String
    let bytes: @Sendable ([UInt8], ProtocolVersion) -> [UInt8]

    init(_ name: String, _ bytes: @escaping @Sendable ([UInt8], ProtocolVersion) -> [UInt8]) {
        self.name = name
        self.bytes = bytes
    }

    var testDescription: String { name }
}

/// A packet that can be cut off anywhere.
struct Whole: Sendable, CustomTestStringConvertible {
    let name: String
    let first: UInt8
    let body: @Sendable (ProtocolVersion) -> [UInt8]

    init(_ name: String, _ first: UInt8, _ body: @escaping @Sendable (ProtocolVersion) -> [UInt8]) {
        self.name = name
        self.first = first
        self.body = body
    }

    var testDescription: String { name }
}

/// Each rule of the encoding, broken on an established connection: a DISCONNECT with the reason in MQTT 5, and
/// the end of the connection.
@Suite("4.13 Malformed Packets and Protocol Errors, one by one")
struct MalformedTests {
    private func refuses(_ broken: Broken) throws {
        for version in broken.versions {
            let caller = try Caller.connected(version)
            let response = try caller.response(to: broken.bytes(version))
            #expect(response == .refused(broken.reason, version), "\(version)")
        }
    }

    // MARK: Any packet

    @Test(
        "[MQTT5-1.5.5-1] [MQTT5-4.13.1-1] [MQTT311-4.8.0-1] A Remaining Length or Property Length of too many bytes",
        arguments: [
            Broken("five bytes", .malformedPacket) { _ in [0x30, 0x80, 0x80, 0x80, 0x80, 0x01] },
            .property("two where one will do", .malformedPacket) { _ in [0xC0, 0x80, 0x00] },
            .property("two where one will do, for properties", .malformedPacket) {
                _ in raw(0x30, text("t"), [0x80, 0x00])
            },
        ])
    func lengths(broken: Broken) throws { try refuses(broken) }

    @Test(
        "[MQTT5-3.2.2-15] A packet larger than announced is refused as soon as its length is known",
        arguments: allVersions)
    func tooLarge(version: ProtocolVersion) throws {
        let (caller, connack) = try Caller.greeted(version)
        if version == .v5_0 { #expect(connack.maximumPacketSize == UInt32(Server.packetBytesMax)) }
        // The largest that is taken: one byte of header, three of length, and the rest.
        let topic = properties(version)
        let rest = Server.packetBytesMax - 4 - text("t").count - topic.count
        let largest = raw(0x30, text("t"), topic, [UInt8](repeating: 0x78, count: rest))
        #expect(largest.count == Server.packetBytesMax)
        #expect(try caller.response(to: largest) == .open([]))
        let length = variableByteInteger(Server.packetBytesMax - 3)
        #expect(try caller.response(to: [0x30] + length) == .refused(.packetTooLarge, version))
    }

    @Test(
        "[MQTT5-2.2.1-3] [MQTT311-2.3.1-1] Packet Identifier 0",
        arguments: [
            Broken("PUBLISH QoS 1", .protocolError) { raw(0x32, text("t"), u16(0), properties($0)) },
            Broken("PUBLISH QoS 2", .protocolError) { raw(0x34, text("t"), u16(0), properties($0)) },
            Broken("PUBACK", .protocolError) { _ in raw(0x40, u16(0)) },
            Broken("PUBREC", .protocolError) { _ in raw(0x50, u16(0)) },
            Broken("PUBREL", .protocolError) { _ in raw(0x62, u16(0)) },
            Broken("PUBCOMP", .protocolError) { _ in raw(0x70, u16(0)) },
            Broken("SUBSCRIBE", .protocolError) { raw(0x82, u16(0), properties($0), text("t"), [0]) },
            Broken("UNSUBSCRIBE", .protocolError) { raw(0xA2, u16(0), properties($0), text("t")) },
        ])
    func packetIdentifiers(broken: Broken) throws { try refuses(broken) }

    @Test(
        "[MQTT5-1.5.4-1, MQTT5-1.5.4-2] [MQTT311-1.5.3-1, MQTT311-1.5.3-2] Strings that are not UTF-8 or hold U+0000",
        arguments: [
            Place("Topic Name") { raw(0x30, $0, properties($1)) },
            Place("filter of SUBSCRIBE") { raw(0x82, u16(1), properties($1), $0, [0]) },
            Place("filter of UNSUBSCRIBE") { raw(0xA2, u16(1), properties($1), $0) },
        ])
    func strings(place: Place) throws {
        for string in brokenStrings {
            for version in allVersions {
                let caller = try Caller.connected(version)
                let response = try caller.response(to: place.bytes(binary(string), version))
                #expect(response == .refused(.malformedPacket, version), "\(version) \(string)")
            }
        }
    }

    @Test(
        "[MQTT5-1.5.4-1, MQTT5-1.5.4-2] [MQTT5-1.5.7-1] [MQTT5-3.3.2-13, MQTT5-3.3.2-19] Strings in properties likewise",
        arguments: [
            Place("Response Topic") { raw(0x30, text("t"), properties($1, [0x08] + $0)) },
            Place("Content Type") { raw(0x30, text("t"), properties($1, [0x03] + $0)) },
            Place("User Property name") { raw(0x30, text("t"), properties($1, [0x26] + $0 + text("v"))) },
            Place("User Property value") { raw(0x30, text("t"), properties($1, [0x26] + text("n") + $0)) },
            Place("Reason String of PUBACK") { raw(0x40, u16(1), [0], properties($1, [0x1F] + $0)) },
            Place("Reason String of DISCONNECT") { raw(0xE0, [0], properties($1, [0x1F] + $0)) },
            Place("User Property of SUBSCRIBE") {
                raw(0x82, u16(1), properties($1, [0x26] + text("n") + $0), text("t"), [0])
            },
            Place("User Property of UNSUBSCRIBE") {
                raw(0xA2, u16(1), properties($1, [0x26] + $0 + text("v")), text("t"))
            },
        ])
    func propertyStrings(place: Place) throws {
        for string in brokenStrings {
            let caller = try Caller.connected()
            #expect(
                try caller.response(to: place.bytes(binary(string), .v5_0))
                    == .refused(.malformedPacket, .v5_0),
                "\(string)")
        }
    }

    @Test(
        "A body that ends too soon, at every byte",
        arguments: [
            Whole("PUBLISH", 0x32) { text("t") + u16(1) + properties($0, [0x26] + text("n") + text("v")) },
            Whole("PUBACK", 0x40) { _ in u16(1) }, Whole("PUBREC", 0x50) { _ in u16(1) },
            Whole("PUBREL", 0x62) { _ in u16(1) }, Whole("PUBCOMP", 0x70) { _ in u16(1) },
            Whole("SUBSCRIBE", 0x82) { u16(1) + properties($0, [0x0B, 1]) + text("t") + [0] },
            Whole("UNSUBSCRIBE", 0xA2) { u16(1) + properties($0) + text("t") },
        ])
    func truncated(packet: Whole) throws {
        for version in allVersions {
            let body = packet.body(version)
            for count in 0..<body.count {
                let caller = try Caller.connected(version)
                let response = try caller.response(to: raw(packet.first, Array(body[..<count])))
                // Where it ends just behind the Packet Identifier there is no filter: a Protocol Error.
                let reasons: [ReasonCode] = [.malformedPacket, .protocolError]
                let allowed = reasons.map { Response.refused($0, version) }
                #expect(allowed.contains(response), "\(version) after \(count) bytes: \(response)")
            }
        }
    }

    @Test(
        "Bytes behind the last field",
        arguments: [
            Broken("PUBACK", .malformedPacket, in: [.v3_1, .v3_1_1]) { _ in raw(0x40, u16(1), [0]) },
            Broken("PUBREC", .malformedPacket, in: [.v3_1, .v3_1_1]) { _ in raw(0x50, u16(1), [0]) },
            Broken("PUBREL", .malformedPacket, in: [.v3_1, .v3_1_1]) { _ in raw(0x62, u16(1), [0]) },
            Broken("PUBCOMP", .malformedPacket, in: [.v3_1, .v3_1_1]) { _ in raw(0x70, u16(1), [0]) },
            Broken("PINGREQ", .malformedPacket) { _ in raw(0xC0, [0]) },
            Broken("DISCONNECT", .malformedPacket, in: [.v3_1, .v3_1_1]) { _ in raw(0xE0, [0]) },
            .property("PUBACK, behind its properties", .malformedPacket) {
                raw(0x40, u16(1), [0], properties($0), [0])
            },
            .property("PUBREC, behind its properties", .malformedPacket) {
                raw(0x50, u16(1), [0], properties($0), [0])
            },
            .property("PUBREL, behind its properties", .malformedPacket) {
                raw(0x62, u16(1), [0], properties($0), [0])
            },
            .property("PUBCOMP, behind its properties", .malformedPacket) {
                raw(0x70, u16(1), [0], properties($0), [0])
            },
            .property("DISCONNECT, behind its properties", .malformedPacket) {
                raw(0xE0, [0], properties($0), [0])
            },
        ])
    func trailing(broken: Broken) throws { try refuses(broken) }

    // MARK: PUBLISH

    @Test(
        "[MQTT5-3.3.2-2, MQTT5-4.7.0-1] [MQTT311-3.3.2-2, MQTT311-4.7.1-1] Wildcards in a Topic Name",
        arguments: ["#", "+", "a/#", "a/+/b", "a+", "#b"])
    func wildcards(topic: String) throws {
        try refuses(Broken("", .topicNameInvalid) { raw(0x30, text(topic), properties($0)) })
    }

    @Test(
        "[MQTT5-4.7.3-1] [MQTT311-4.7.3-1] An empty Topic Name",
        arguments: [
            Broken("QoS 0", .protocolError) { raw(0x30, text(""), properties($0), [0x78]) },
            Broken("QoS 1", .protocolError) { raw(0x32, text(""), u16(1), properties($0), [0x78]) },
        ])
    func emptyTopic(broken: Broken) throws { try refuses(broken) }

    @Test(
        "[MQTT5-3.3.2-8] [MQTT5-3.2.2-17, MQTT5-3.3.2-9] Topic Alias 0, above the maximum, and never set",
        arguments: [
            .property("0", .topicAliasInvalid) { raw(0x30, text("t"), properties($0, [0x23], u16(0))) },
            .property("65 535", .topicAliasInvalid) {
                raw(0x30, text("t"), properties($0, [0x23], u16(65_535)))
            },
            .property("never set", .protocolError) { raw(0x30, text(""), properties($0, [0x23], u16(3))) },
        ] as [Broken])
    func aliases(broken: Broken) throws { try refuses(broken) }

    @Test("[MQTT5-3.3.2-9] The first Topic Alias above the announced maximum, and the last below")
    func lastAlias() throws {
        let (caller, connack) = try Caller.greeted()
        let maximum = Int(connack.topicAliasMaximum ?? 0)
        let last = raw(0x30, text("t"), properties(.v5_0, [0x23], u16(maximum)))
        if maximum > 0 { #expect(try caller.response(to: last) == .open([])) }
        let above = raw(0x30, text("t"), properties(.v5_0, [0x23], u16(maximum + 1)))
        #expect(try caller.response(to: above) == .refused(.topicAliasInvalid, .v5_0))
    }

    @Test(
        "Properties a PUBLISH cannot have",
        arguments: [
            ("no Property Length", .malformedPacket, nil),
            ("Payload Format Indicator 2", .protocolError, [0x01, 2]),
            ("Payload Format Indicator twice", .protocolError, [0x01, 1, 0x01, 1]),
            ("Message Expiry Interval twice", .protocolError, [0x02] + u32(9) + [0x02] + u32(9)),
            ("Message Expiry Interval cut off", .malformedPacket, [0x02, 0, 0]),
            ("Content Type twice", .protocolError, [0x03] + text("a") + [0x03] + text("a")),
            ("Response Topic twice", .protocolError, [0x08] + text("a") + [0x08] + text("a")),
            ("Correlation Data twice", .protocolError, [0x09] + binary([1]) + [0x09] + binary([1])),
            ("Topic Alias twice", .protocolError, [0x23] + u16(1) + [0x23] + u16(1)),
            ("Session Expiry Interval", .malformedPacket, [0x11] + u32(9)),
            ("Reason String", .malformedPacket, [0x1F] + text("a")),
            ("Will Delay Interval", .malformedPacket, [0x18] + u32(9)),
            ("no such property", .malformedPacket, [0x7F, 0]),
            ("property 0", .malformedPacket, [0x00]),
            ("User Property without value", .malformedPacket, [0x26] + text("n")),
        ] as [(String, ReasonCode, [UInt8]?)])
    func publishProperties(_ name: String, _ reason: ReasonCode, _ bytes: [UInt8]?) throws {
        try refuses(
            .property(name, reason) { _ in raw(0x30, text("t"), bytes.map { properties(.v5_0, $0) } ?? []) })
    }

    @Test(
        "[MQTT5-3.3.2-14] [MQTT5-3.3.4-6] A Response Topic with a wildcard, a Subscription Identifier to the server",
        arguments: [[0x08] + text("a/+"), [0x08] + text("#"), [0x08] + text(""), [0x0B, 1]])
    func notForServers(bytes: [UInt8]) throws {
        try refuses(.property("", .protocolError) { raw(0x30, text("t"), properties($0, bytes)) })
    }

    @Test("[MQTT5-3.3.4-7] More PUBLISHes in flight than the Receive Maximum: 0x93")
    func receiveMaximum() throws {
        let (caller, connack) = try Caller.greeted()
        let maximum = Int(connack.receiveMaximum ?? 0)
        #expect(maximum == Server.inflightMax)
        let publishes = (1...maximum + 1).flatMap {
            raw(0x34, text(caller.name), u16($0), properties(.v5_0))
        }
        guard case .closed(let packets) = try caller.response(to: publishes) else {
            Issue.record("it goes on")
            return
        }
        #expect(packets.last == .disconnect(Disconnect(.receiveMaximumExceeded)))
        #expect(packets.count <= maximum + 1)
    }

    // MARK: PUBACK, PUBREC, PUBREL, PUBCOMP

    @Test(
        "[MQTT5-3.4.2-1, MQTT5-3.5.2-1, MQTT5-3.6.2-1, MQTT5-3.7.2-1] Reason Codes and properties they cannot have",
        arguments: [0x40, 0x50, 0x62, 0x70] as [UInt8])
    func acknowledgements(first: UInt8) throws {
        let unknown: [UInt8] =
            first < 0x60 ? [0x01, 0x04, 0x11, 0x82, 0x92, 0xFF] : [0x01, 0x10, 0x80, 0x91]
        for code in unknown {
            try refuses(.property("", .protocolError) { _ in raw(first, u16(1), [code]) })
        }
        for (reason, bytes) in [
            (.protocolError, [0x1F] + text("a") + [0x1F] + text("a")),
            (.malformedPacket, [0x11] + u32(9)), (.malformedPacket, [0x7F, 0]),
            (.malformedPacket, [0x26] + text("n")),
        ] as [(ReasonCode, [UInt8])] {
            try refuses(.property("", reason) { raw(first, u16(1), [0], properties($0, bytes)) })
        }
        try refuses(.property("", .malformedPacket) { _ in raw(first, u16(1), [0], [9, 0x1F]) })
    }

    // MARK: SUBSCRIBE and UNSUBSCRIBE

    @Test(
        "[MQTT5-3.8.3-2, MQTT5-3.10.3-2] [MQTT311-3.8.3-3, MQTT311-3.10.3-2] No Topic Filter at all",
        arguments: [
            Broken("SUBSCRIBE", .protocolError) { raw(0x82, u16(1), properties($0)) },
            Broken("UNSUBSCRIBE", .protocolError) { raw(0xA2, u16(1), properties($0)) },
        ])
    func noFilters(broken: Broken) throws { try refuses(broken) }

    @Test(
        "[MQTT5-3.8.3-5] [MQTT311-3.8.3-4] Subscription Options with reserved bits, QoS 3, Retain Handling 3",
        arguments: [
            (0x40, .malformedPacket, allVersions), (0x80, .malformedPacket, allVersions),
            (0x04, .malformedPacket, [.v3_1, .v3_1_1]), (0x08, .malformedPacket, [.v3_1, .v3_1_1]),
            (0x10, .malformedPacket, [.v3_1, .v3_1_1]), (0x20, .malformedPacket, [.v3_1, .v3_1_1]),
            (0x03, .protocolError, allVersions), (0x30, .protocolError, [.v5_0]),
        ] as [(UInt8, ReasonCode, [ProtocolVersion])])
    func options(_ options: UInt8, _ reason: ReasonCode, _ versions: [ProtocolVersion]) throws {
        // The second filter is as wrong as the first would be.
        try refuses(
            Broken("", reason, in: versions) {
                raw(0x82, u16(1), properties($0), text("a"), [0], text("t"), [options])
            })
    }

    @Test(
        "[MQTT5-4.7.1-1, MQTT5-4.7.1-2, MQTT5-4.7.3-1] [MQTT311-4.7.1-2, MQTT311-4.7.1-3, MQTT311-4.7.3-1] Filters with misplaced wildcards, or of no character",
        arguments: ["", "a#", "a/#/b", "#/", "a+", "+a", "a/b+/c"])
    func filters(text filter: String) throws {
        try refuses(Broken("", .topicFilterInvalid) { raw(0x82, u16(1), properties($0), text(filter), [0]) })
        try refuses(Broken("", .topicFilterInvalid) { raw(0xA2, u16(1), properties($0), text(filter)) })
    }

    @Test(
        "[MQTT5-4.8.2-1, MQTT5-4.8.2-2] Shared filters without a ShareName, or without a filter",
        arguments: ["$share/", "$share/a", "$share//t", "$share/a/", "$share/a+/t", "$share/#/t"])
    func sharedFilters(text filter: String) throws {
        try refuses(
            Broken("", .topicFilterInvalid, in: [.v5_0]) {
                raw(0x82, u16(1), properties($0), text(filter), [0])
            })
    }

    @Test(
        "[MQTT5-3.8.3-4] Properties and options a SUBSCRIBE cannot have",
        arguments: [
            .property("No Local on a Shared Subscription", .protocolError) {
                raw(0x82, u16(1), properties($0), text("$share/g/t"), [0b0100])
            },
            .property("Subscription Identifier 0", .protocolError) {
                raw(0x82, u16(1), properties($0, [0x0B, 0]), text("t"), [0])
            },
            .property("Subscription Identifier twice", .protocolError) {
                raw(0x82, u16(1), properties($0, [0x0B, 1, 0x0B, 2]), text("t"), [0])
            },
            .property("Subscription Identifier of five bytes", .malformedPacket) {
                raw(0x82, u16(1), properties($0, [0x0B, 0x80, 0x80, 0x80, 0x80, 1]), text("t"), [0])
            },
            .property("Reason String", .malformedPacket) {
                raw(0x82, u16(1), properties($0, [0x1F], text("a")), text("t"), [0])
            },
            .property("Subscription Identifier in UNSUBSCRIBE", .malformedPacket) {
                raw(0xA2, u16(1), properties($0, [0x0B, 1]), text("t"))
            },
            .property("Properties longer than the packet", .malformedPacket) {
                _ in raw(0x82, u16(1), [99], text("t"), [0])
            },
        ] as [Broken])
    func subscribeProperties(broken: Broken) throws { try refuses(broken) }

    // MARK: DISCONNECT and AUTH

    @Test(
        "[MQTT5-3.14.2-1] Reason Codes and properties a client's DISCONNECT cannot have",
        arguments: [
            .property("0x01", .protocolError) { _ in raw(0xE0, [0x01]) },
            .property("0x8E, which is for servers", .protocolError) { _ in raw(0xE0, [0x8E]) },
            .property("0x8B, which is for servers", .protocolError) { _ in raw(0xE0, [0x8B]) },
            .property("Session Expiry Interval twice", .protocolError) {
                raw(0xE0, [0], properties($0, [0x11], u32(0), [0x11], u32(0)))
            },
            .property("Session Expiry Interval raised from 0", .protocolError) {
                raw(0xE0, [0], properties($0, [0x11], u32(9)))
            },
            .property("Server Reference", .malformedPacket) {
                raw(0xE0, [0], properties($0, [0x1C], text("a")))
            },
            .property("cut off", .malformedPacket) { _ in raw(0xE0, [0], [5, 0x11]) },
        ] as [Broken])
    func disconnect(broken: Broken) throws { try refuses(broken) }

    @Test(
        "[MQTT5-3.15.2-1] [MQTT5-4.12.0-7] AUTH where no Authentication Method was agreed on",
        arguments: [[], [0x18], [0x19], [0x00], [0x18, 4, 0x15] + text("m"), [0x77]] as [[UInt8]])
    func auth(body: [UInt8]) throws {
        try refuses(.property("", .protocolError) { _ in raw(0xF0, body) })
    }
}
