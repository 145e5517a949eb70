import MQTT
import Testing

/// Section 4.7 of both specifications, and 4.8.2 of MQTT 5.
///
/// Not tested here: [MQTT5-4.7.2-1] as it concerns what a server publishes, and who receives what through a
/// Shared Subscription: those are the core's.
@Suite("4.7 Topic Names and Topic Filters")
struct TopicTests {
    @Test(
        "[MQTT5-4.7.1-1, MQTT5-4.7.1-2, MQTT5-4.7.2-1] which names a filter matches",
        arguments: [
            ("a", "a", true), ("a", "b", false), ("a", "ab", false), ("ab", "a", false), ("a", "A", false),
            ("a", "a/", false), ("a/", "a", false), ("a/", "a/", true), ("/a", "a", false),
            ("/a", "/a", true),
            ("/", "/", true), ("/", "a", false), ("/", "//", false), ("//", "//", true),
            ("a//b", "a//b", true),
            ("a/b", "a/b/c", false), ("a/b/c", "a/b", false),
            ("#", "a", true), ("#", "a/b", true), ("#", "/", true), ("#", "/a", true),
            ("sport/#", "sport", true), ("sport/#", "sport/", true), ("sport/#", "sport/tennis/x", true),
            ("sport/#", "sports", false), ("sport/tennis/#", "sport", false),
            ("+", "a", true), ("+", "/a", false), ("+", "a/", false), ("+/+", "/a", true), ("/+", "/a", true),
            ("+/", "a/", true), ("+/", "a", false), ("sport/+", "sport/", true), ("sport/+", "sport", false),
            ("sport/+", "sport/a/b", false), ("sport/+/x", "sport//x", true), ("+/b/+", "a/b/c", true),
            ("+/b/+", "a/c/c", false), ("+/#", "a", true), ("+/#", "a/b/c", true), ("+/#", "/", true),
            ("a/+/#", "a", false), ("a/+/#", "a/b", true),
            ("#", "$SYS/x", false), ("+/x", "$SYS/x", false), ("+", "$SYS", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true), ("a/#", "a/$x", true), ("a/+", "a/$x", true),
            ("$share/g/a/+", "a/b", true), ("$share/g/#", "$SYS/x", false), ("$share/g//a", "/a", true),
            ("ü/+", "ü/é", true),
            // [MQTT5-4.7.3-4, MQTT311-4.7.3-4]
            ("\u{E9}", "e\u{301}", false), ("e\u{301}", "\u{E9}", false), ("e\u{301}", "e\u{301}", true),
        ])
    func matches(_ pattern: String, _ topic: String, _ expected: Bool) {
        // [MQTT311-4.7.2-1]
        #expect(filter(pattern).matches(Array(topic.utf8)) == expected)
        #expect(filter(pattern).matches(Array(("x" + topic).utf8).dropFirst()) == expected)
    }

    @Test(
        "[MQTT5-4.7.1-1, MQTT5-4.7.1-2, MQTT5-4.7.3-1, MQTT5-4.7.3-2] which filters break a rule",
        arguments: [
            "", "a#", "#/a", "a/#/b", "a/b#", "##", "a+", "+a", "a/+b/c", "++", "a/b+", "a\0b", "+#", "#+",
        ])
    func invalidFilters(_ text: String) {
        // [MQTT311-4.7.1-2, MQTT311-4.7.1-3, MQTT311-4.7.3-1, MQTT311-4.7.3-2]
        #expect(TopicFilter(text) == nil)
    }

    @Test(
        "[MQTT5-4.8.2-1, MQTT5-4.8.2-2] which shared filters break a rule",
        arguments: [
            "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#/a", "$share/g+/a",
            "$share/g/a#",
        ])
    func invalidSharedFilters(_ text: String) { #expect(TopicFilter(text) == nil) }

    @Test("[MQTT5-4.8.2-2] a shared filter has a ShareName and a pattern")
    func sharedFilter() {
        let shared = filter("$share/consumer1//finance/#")
        #expect(shared.shareName.map(Array.init) == Array("consumer1".utf8))
        #expect(Array(shared.pattern) == Array("/finance/#".utf8))
        #expect(filter("$shared/g/a").shareName == nil)
        #expect(filter("$share/g/a") != filter("$share/h/a"))
        #expect(Set([filter("a/b"), filter("a/b"), filter("$share/g/a/b")]).count == 2)
    }

    @Test(
        "[MQTT5-4.7.0-1, MQTT5-4.7.3-1, MQTT5-4.7.3-2] which Topic Names are valid",
        arguments: [
            ("a", true), ("/", true), ("$SYS/x", true), ("a b/ü", true), (" ", true), ("", false),
            ("a/+", false),
            ("a/#", false), ("#", false), ("12345678+", false), ("1234567#", false), ("a\0", false),
            ("12345678\0", false),
        ])
    func topicNames(_ text: String, _ expected: Bool) {
        #expect(TopicName.isValid(text.utf8) == expected)
        #expect(TopicName.isValid(Array(text.utf8)) == expected)
    }

    @Test("[MQTT5-4.7.3-3, MQTT311-4.7.3-3] a Topic Name or Topic Filter has at most 65 535 bytes")
    func longestNames() {
        let longest = [UInt8](repeating: UInt8(ascii: "a"), count: 65535)
        #expect(TopicName.isValid(longest))
        #expect(TopicFilter(longest) != nil)
        #expect(!TopicName.isValid(longest + [UInt8(ascii: "a")]))
        #expect(TopicFilter(longest + [UInt8(ascii: "a")]) == nil)
    }
}

/// Section 1.5.4 of MQTT 5 and 1.5.3 of MQTT 3.1.1.
///
/// Not tested here: control characters and non-characters, which a receiver may refuse and this one takes.
@Suite("1.5.4 UTF-8 Encoded Strings")
struct UTF8Tests {
    @Test(
        "[MQTT5-1.5.4-1, MQTT5-1.5.4-2, MQTT311-1.5.3-1, MQTT311-1.5.3-2] which bytes are a string",
        arguments: [
            ("", true), ("'plain'", true), ("01", true), ("7F", true), ("00", false), ("'a' 00 'b'", false),
            ("80", false), ("BF", false), ("C0 80", false), ("C1 BF", false), ("C2 80", true),
            ("DF BF", true),
            ("C2", false), ("C2 41", false), ("E0 9F BF", false), ("E0 A0 80", true), ("E0 A0", false),
            ("ED 9F BF", true), ("ED A0 80", false), ("ED BF BF", false), ("EE 80 80", true),
            ("EF BF BF", true),
            ("EF BB BF", true), ("F0 8F BF BF", false), ("F0 90 80 80", true), ("F0 90 80", false),
            ("F4 8F BF BF", true), ("F4 90 80 80", false), ("F5 80 80 80", false), ("FF", false),
            ("FE", false),
            ("E2 28 A1", false), ("E2 82 28", false), ("F0 28 8C BC", false),
        ])
    func rules(_ notation: String, _ expected: Bool) {
        let bytes = hex(notation)
        // At every distance from the eight-byte steps of the fast path.
        for before in 0...9 {
            for after in 0...9 {
                let padded =
                    [UInt8](repeating: 0x61, count: before) + bytes + [UInt8](repeating: 0x62, count: after)
                #expect(UTF8Rules.areValid(padded) == expected, "\(before) before, \(after) after")
            }
        }
    }

    @Test("the fast path agrees with the standard library", arguments: [UInt64](1...10))
    func agreesWithTheStandardLibrary(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let interesting: [UInt8] = [
            0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE1, 0xED, 0xF0, 0xF4,
        ]
        for _ in 0..<3000 {
            let bytes = (0..<Int.random(in: 1...12, using: &random)).map { _ in
                interesting[Int.random(in: interesting.indices, using: &random)]
            }
            #expect(
                UTF8Rules.areValid(bytes) == (String(validating: bytes, as: UTF8.self) != nil), "\(bytes)")
        }
    }

    @Test("[MQTT5-1.5.4-3, MQTT311-1.5.3-3] U+FEFF is kept wherever it stands")
    func byteOrderMark() throws {
        var decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 100)
        decoder.append(hex("10 [ s'MQTT' 04 02 00 00 00 04 EF BB BF 'c' ]"))
        guard case .connect(let connect) = try decoder.next() else {
            Issue.record("no CONNECT")
            return
        }
        #expect(Array(connect.clientIdentifier.utf8) == hex("EF BB BF 'c'"))
    }
}
