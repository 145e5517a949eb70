import MQTT
import Testing

/// Section 3.3.2.3: the properties that a message keeps on its whole way.
///
/// Not tested here: that a server sends them on unaltered [MQTT5-3.3.2-4, MQTT5-3.3.2-15, MQTT5-3.3.2-16,
/// MQTT5-3.3.2-18, MQTT5-3.3.2-20], which is the core's.
@Suite("3.3.2.3 Forwarded properties")
struct ForwardedPropertiesTests {
    static let full = ForwardedProperties(
        payloadIsUTF8: true, contentType: "text/plain", responseTopic: "r/s", correlationData: [0, 1],
        userProperties: [UserProperty("k", "1"), UserProperty("k", "2"), UserProperty("", "")])

    @Test(
        "values to bytes and back",
        arguments: [
            ForwardedProperties(), ForwardedProperties(contentType: ""),
            ForwardedProperties(correlationData: []), full,
        ])
    func valuesAndBytes(_ properties: ForwardedProperties) {
        #expect(ForwardedProperties(properties.bytes[...]) == properties)
    }

    @Test("[MQTT5-3.3.2-17] one by one, in the publisher's order")
    func oneByOne() {
        let carrying = ApplicationMessage(
            topic: "t".utf8, properties: hex("26 s'b' s'1' 01 01 26 s'a' s'2' 09 00 01 FF"), payload: "x".utf8
        )
        #expect(
            Array(carrying.forwardedProperties) == [
                .userProperty(name: hex("'b'")[...], value: hex("'1'")[...]), .payloadFormat(isUTF8: true),
                .userProperty(name: hex("'a'")[...], value: hex("'2'")[...]), .correlationData([0xFF]),
            ])
        #expect(carrying.payloadFormatIsUTF8)
    }

    @Test(
        "[MQTT5-3.3.2.3.2] a payload is text only when the publisher says so",
        arguments: [
            ("", false), ("01 00", false), ("01 01", true), ("03 s'c' 01 01", true),
            ("09 00 02 01 01", false),
        ])
    func payloadFormat(_ notation: String, _ expected: Bool) {
        let carrying = ApplicationMessage(topic: "t".utf8, properties: hex(notation), payload: [])
        #expect(carrying.payloadFormatIsUTF8 == expected)
    }

    @Test(
        "bytes that are no properties end the walk",
        arguments: ["FF", "03 00", "03 00 05 'abc'", "26 s'k'", "01", "02 00"])
    func damagedBytes(_ notation: String) {
        #expect(
            Array(ForwardedPropertySequence((hex("03 s'c'") + hex(notation))[...])) == [
                .contentType(hex("'c'")[...])
            ])
    }

    @Test("a message lends the parts that it has", arguments: [ForwardedProperties(), full])
    func parts(_ properties: ForwardedProperties) {
        let message = message("a/b", "payload", properties)
        message.withParts { topic, carried, payload in
            #expect(Array(topic) == Array(message.topic))
            #expect(Array(carried) == Array(message.properties))
            #expect(Array(payload) == Array(message.payload))
        }
        #expect(message.payloadCount == 7)
    }

    @Test("a message under another Topic Name keeps its properties and payload")
    func renamed() {
        let before = message("a/b", "payload", Self.full)
        let after = before.renamed(to: "site/a/b".utf8)
        #expect(after == message("site/a/b", "payload", Self.full))
        #expect(Array(after.payload) == hex("'payload'"))
    }
}
