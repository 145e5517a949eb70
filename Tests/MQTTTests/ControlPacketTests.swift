import MQTT
import Testing

/// Sections 2 and 3 of both specifications: what the bytes mean.
///
/// Not tested here, because they say what to do about a packet and not what it looks like: everything under
/// "Actions" and "Response" ([MQTT5-3.1.4], [MQTT5-3.3.4], [MQTT5-3.8.4] …), which is the core's.
@Suite("2, 3 MQTT Control Packets")
struct ControlPacketTests {
    @Test("bytes to packet", arguments: Examples.all)
    func decodes(_ example: Example) throws {
        var decoder = PacketDecoder.awaiting(example)
        decoder.append(example.bytes)
        #expect(try decoder.next() == example.packet)
        #expect(try decoder.next() == nil)
        #expect(decoder.version == example.version)
        #expect(decoder.bufferedBytes == 0)
    }

    @Test("packet to bytes", arguments: Examples.all)
    func encodes(_ example: Example) {
        #expect(example.packet.encoded(example.version) == example.bytes)
        if case .publish(let publish) = example.packet {
            #expect(publish.encodedSize(version: example.version) == example.bytes.count)
        }
    }

    /// Bytes that are allowed and that we would write otherwise.
    @Test(
        "longer forms are read",
        arguments: [
            Example(
                "PUBACK with Reason Code 0", .v5_0, to: .server, .puback(Acknowledgement(7)), "40 03 00 07 00"
            ),
            Example(
                "PUBACK with empty properties", .v5_0, to: .server, .puback(Acknowledgement(7)),
                "40 04 00 07 00 00"),
            Example(
                "DISCONNECT with Reason Code 0", .v5_0, to: .server, .disconnect(Disconnect()), "E0 01 00"),
            Example(
                "DISCONNECT with empty properties", .v5_0, to: .server, .disconnect(Disconnect()),
                "E0 02 00 00"),
            Example(
                "PINGREQ with a padded length, allowed before 5", .v3_1_1, to: .server, .pingreq, "C0 80 00"),
            Example(
                "PUBREL again, of MQTT 3.1", .v3_1, to: .server, .pubrel(Acknowledgement(7)), "6A 02 00 07"),
            Example(
                "UNSUBSCRIBE again, of MQTT 3.1", .v3_1, to: .server,
                .unsubscribe(Unsubscribe(id: 1, filters: [filter("a")])), "AA [ 00 01 s'a' ]"),
            Example(
                "SUBSCRIBE again, of MQTT 3.1", .v3_1, to: .server,
                .subscribe(
                    Subscribe(
                        id: 1, requests: [SubscriptionRequest(filter: filter("a"), maximumQoS: .atMostOnce)])),
                "8A [ 00 01 s'a' 00 ]"),
            Example(
                "PUBLISH at QoS 0 with DUP, of MQTT 3.1", .v3_1, to: .server,
                .publish(Publish(message: message("a", ""))), "38 [ s'a' ]"),
            Example(
                "CONNECT of MQTT 3.1 that leaves out what its flags promise", .v3_1, to: .server,
                .connect(Connect(version: .v3_1, clientIdentifier: "c")),
                "10 [ 00 06 'MQIsdp' 03 C2 00 00 s'c' ]"),
            Example(
                "CONNECT with properties at their defaults", .v5_0, to: .server,
                .connect(Connect(clientIdentifier: "c")),
                "10 [ 00 04 'MQTT' 05 02 00 00 [ 17 01 19 00 ] s'c' ]"),
        ])
    func decodesLongerForm(_ example: Example) throws {
        var decoder = PacketDecoder.awaiting(example)
        decoder.append(example.bytes)
        #expect(try decoder.next() == example.packet)
        #expect(example.packet.encoded(example.version).count <= example.bytes.count)
    }

    @Test(
        "[MQTT5-3.3.2-17] forwarded properties keep the publisher's order, and the delivery's are taken out")
    func forwardedPropertiesKeepTheirOrder() throws {
        var decoder = PacketDecoder(receiver: .server, version: .v5_0, maximumPacketSize: 1000)
        decoder.append(
            hex("30 [ s't' [ 26 s'a' s'1' 02 00 00 00 09 03 s'c' 23 00 05 26 s'b' s'2' 01 00 ] 'x' ]"))
        guard case .publish(let publish) = try decoder.next() else {
            Issue.record("no PUBLISH")
            return
        }
        // [MQTT5-3.3.2-18]
        #expect(Array(publish.message.properties) == hex("26 s'a' s'1' 03 s'c' 26 s'b' s'2' 01 00"))
        #expect(Array(publish.message.topic) == hex("'t'"))
        #expect(Array(publish.message.payload) == hex("'x'"))
        #expect(publish.messageExpirySeconds == 9)
        #expect(publish.topicAlias == 5)
    }

    @Test("[MQTT311-3.3.2] before MQTT 5, a message loses its properties on the way out")
    func propertiesAreLeftOutBeforeMQTT5() {
        let publish = Publish(
            message: message("t", "x", ForwardedProperties(contentType: "c")), messageExpirySeconds: 5,
            topicAlias: 1)
        #expect(Packet.publish(publish).encoded(.v3_1_1) == hex("30 [ s't' 'x' ]"))
        #expect(publish.encodedSize(version: .v3_1_1) == 6)
    }

    @Test(
        "[MQTT311-3.2.2.3] a Reason Code becomes the nearest Return Code",
        arguments: [
            (ReasonCode.success, 0), (.unsupportedProtocolVersion, 1), (.clientIdentifierNotValid, 2),
            (.serverUnavailable, 3), (.serverBusy, 3), (.quotaExceeded, 3), (.connectionRateExceeded, 3),
            (.badUserNameOrPassword, 4), (.badAuthenticationMethod, 4), (.notAuthorized, 5), (.banned, 5),
        ] as [(ReasonCode, UInt8)])
    func returnCodes(_ reason: ReasonCode, _ code: UInt8) {
        #expect(
            Packet.connack(Connack(sessionPresent: false, reason: reason)).encoded(.v3_1_1) == [
                0x20, 2, 0, code,
            ])
    }

    @Test("[MQTT5-3.2.2-6, MQTT311-3.2.2-4] a refusal never says Session Present")
    func refusalHasNoSession() {
        let refusal = Packet.connack(Connack(sessionPresent: true, reason: .notAuthorized))
        #expect(refusal.encoded(.v5_0) == hex("20 03 00 87 00"))
        #expect(refusal.encoded(.v3_1_1) == hex("20 02 00 05"))
    }

    @Test("[MQTT311-3.9.3-2] every failure of a SUBACK is 0x80 before MQTT 5, and UNSUBACK has no payload")
    func subscriptionFailuresBeforeMQTT5() {
        let suback = Packet.suback(Suback(id: 1, reasons: [.notAuthorized, .grantedQoS1], reasonString: "r"))
        #expect(suback.encoded(.v3_1_1) == hex("90 04 00 01 80 01"))
        let unsuback = Packet.unsuback(Unsuback(id: 1, reasons: [.notAuthorized]))
        #expect(unsuback.encoded(.v3_1) == hex("B0 02 00 01"))
    }

    @Test("[MQTT311-3.4] before MQTT 5 an acknowledgement has two bytes, whatever its reason")
    func acknowledgementsBeforeMQTT5() {
        #expect(
            Packet.puback(Acknowledgement(7, .quotaExceeded, reasonString: "r")).encoded(.v3_1_1)
                == hex("40 02 00 07"))
        #expect(Packet.disconnect(Disconnect(.serverShuttingDown)).encoded(.v3_1_1) == hex("E0 00"))
    }

    @Test(
        "[MQTT5-1.5.5] Remaining Length at the edges of its sizes",
        arguments: [(127, 1), (128, 2), (16383, 2), (16384, 3), (2_097_151, 3), (2_097_152, 4)])
    func remainingLengths(_ length: Int, _ headerBytes: Int) throws {
        let publish = Publish(
            message: ApplicationMessage(topic: "t".utf8, payload: [UInt8](repeating: 1, count: length - 3)))
        let bytes = Packet.publish(publish).encoded(.v3_1_1)
        #expect(bytes.count == 1 + headerBytes + length)
        #expect(publish.encodedSize(version: .v3_1_1) == bytes.count)
        var decoder = PacketDecoder(receiver: .client, version: .v3_1_1, maximumPacketSize: bytes.count)
        decoder.append(bytes)
        #expect(try decoder.next() == .publish(publish))
    }
}
