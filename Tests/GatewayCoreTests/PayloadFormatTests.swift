import MQTT
import Testing

@testable import GatewayCore

/// That the indicator is passed on unchanged is the codec's part.
@Suite("3.3.2.3.2 Payload Format Indicator")
struct PayloadFormatTests {
    private static let wellFormed: [[UInt8]] = [
        [], Array("21.5 °C".utf8), [0x00], [0xEF, 0xBF, 0xBF], [0xF4, 0x8F, 0xBF, 0xBF],
    ]
    private static let illFormed: [[UInt8]] = [
        [0xFF], [0x61, 0x80], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80],
        [0xE2, 0x82],
    ]

    private static func publish(
        _ payload: [UInt8], isUTF8: Bool = true, qos: QoS = .atMostOnce, id: PacketIdentifier? = nil
    ) -> Publish {
        Publish(message: message(payload, isUTF8: isUTF8), qos: qos, id: id)
    }

    private static func message(_ payload: [UInt8], isUTF8: Bool) -> ApplicationMessage {
        ApplicationMessage(
            topic: Array("t".utf8), properties: ForwardedProperties(payloadIsUTF8: isUTF8).bytes,
            payload: payload)
    }

    private static func scenario(validates: Bool) -> Scenario {
        var plan = GatewayPlan()
        plan.limits.validatesPayloadFormat = validates
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t")
        return s
    }

    @Test("A payload that is UTF-8 is taken, U+0000 included", arguments: Self.wellFormed)
    func takesUTF8(payload: [UInt8]) {
        var s = Self.scenario(validates: true)
        s.sends("press", .publish(Self.publish(payload, qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        #expect(s.received("archive").publishes.map { Array($0.message.payload) } == [payload])
    }

    @Test(
        "[MQTT5-3.3.2.3.2] A payload that is not is refused with 0x99, and goes to nobody",
        arguments: Self.illFormed)
    func refusesOther(payload: [UInt8]) {
        var s = Self.scenario(validates: true)
        s.sends("press", .publish(Self.publish(payload, qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(Self.publish(payload, qos: .exactlyOnce, id: 2)))
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1, .payloadFormatInvalid)),
                .pubrec(Acknowledgement(2, .payloadFormatInvalid)),
            ])
        // The refused identifier is free again: this is a new message.
        s.sends("press", .publish(Self.publish([0x61], qos: .exactlyOnce, id: 2)))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(2))])
        // QoS 0 has no answer but DISCONNECT.
        s.sends("press", .publish(Self.publish(payload)))
        #expect(s.received("press") == [.disconnect(Disconnect(.payloadFormatInvalid))])
        #expect(s.closedClients == ["press"])
        #expect(s.drains("archive").map(\.text) == ["a"])
    }

    @Test("Without the indicator any payload is taken", arguments: Self.illFormed)
    func unspecified(payload: [UInt8]) {
        var s = Self.scenario(validates: true)
        s.sends("press", .publish(Self.publish(payload, isUTF8: false, qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
    }

    @Test("Unless asked the gateway does not look", arguments: Self.illFormed)
    func unasked(payload: [UInt8]) {
        var s = Self.scenario(validates: false)
        s.sends("press", .publish(Self.publish(payload, qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
    }

    @Test("[MQTT5-3.1.3.2.3] A Will whose payload is not what it says is refused with CONNECT")
    func will() {
        var s = Self.scenario(validates: true)
        let will = Will(message: Self.message([0xFF], isUTF8: true), qos: .atMostOnce, retain: false)
        s.opens("lamp", Connect(clientIdentifier: "lamp", will: will))
        #expect(s.received("lamp").connack?.reason == .payloadFormatInvalid)
        #expect(s.closedClients == ["lamp"])
    }
}
