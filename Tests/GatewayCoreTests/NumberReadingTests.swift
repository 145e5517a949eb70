import MQTT
import Testing

@testable import GatewayCore

/// Numbers in payloads (RFC 8259 and RFC 6901).
@Suite("Numbers in payloads")
struct NumberReadingTests {
    private static func number(_ text: String, _ pointer: String? = nil) throws -> Double? {
        NumberReader.number(
            in: Array(text.utf8)[...], at: try pointer.map { try #require(JSONPointer($0)) })
    }

    @Test(
        "A payload that is a number",
        arguments: [
            ("0", 0), ("-0.5", -0.5), (" 21.25\r\n", 21.25), ("1e3", 1000), ("1.5E-2", 0.015), ("2E+1", 20),
            ("", nil), ("-", nil), ("01", nil), ("1.", nil), (".5", nil), ("+1", nil), ("0x10", nil),
            ("inf", nil), ("nan", nil), ("1e999", nil), ("21 C", nil), ("1,5", nil), ("\"1\"", nil),
            ("1e", nil),
            (String(repeating: "1", count: 65), nil),
        ] as [(String, Double?)])
    func plain(text: String, number: Double?) throws {
        #expect(try Self.number(text) == number)
    }

    private static let document = #"""
        { "a": 1.5, "b" : {"c":[10, {"d":-2}, "}],", [3]], "x/y": 4, "m~n": 5}, "": 6, "k\"l": 7,
          "\u00e9\ud83d\ude00": 8, "s": "9", "t": true, "n": null, "a": 99, "long": 12 }
        """#

    @Test(
        "A number in a JSON text",
        arguments: [
            ("/a", 1.5), ("/b/c/0", 10), ("/b/c/1/d", -2), ("/b/c/3/0", 3), ("/b/x~1y", 4), ("/b/m~0n", 5),
            ("/", 6), ("/k\"l", 7), ("/é😀", 8), ("/long", 12), ("/s", nil), ("/t", nil), ("/n", nil),
            ("/b", nil), ("/b/c", nil), ("/b/c/4", nil), ("/b/c/00", nil), ("/b/c/-", nil), ("/b/c/x", nil),
            ("/c", nil), ("/lon", nil), ("/longer", nil), ("/a/0", nil), ("", nil),
        ] as [(String, Double?)])
    func pointer(pointer: String, number: Double?) throws {
        #expect(try Self.number(Self.document, pointer) == number)
    }

    @Test("What is no pointer is none", arguments: ["a", "a/b", "/~", "/~2", "/a~"])
    func noPointer(text: String) {
        #expect(JSONPointer(text) == nil)
    }

    @Test(
        "A pointer of more than 32 tokens is none; what was read is written alike",
        arguments: ["", "/", "/a~1b/~0/0"])
    func pointers(text: String) {
        #expect(JSONPointer(text)?.description == text)
        #expect(JSONPointer(String(repeating: "/a", count: 32)) != nil)
        #expect(JSONPointer(String(repeating: "/a", count: 33)) == nil)
    }

    @Test("Nesting is bounded")
    func deep() throws {
        func text(_ depth: Int) -> String {
            #"{"x":"# + String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
                + #","a":1}"#
        }
        #expect(try Self.number(text(64), "/a") == 1)
        #expect(try Self.number(text(65), "/a") == nil)
        #expect(try Self.number(text(1_000_000), "/a") == nil)
    }

    @Test("Whatever is cut off or changed, there is a number or there is none")
    func fuzz() throws {
        var random = LinearRandom(seed: 7)
        let whole = Array(Self.document.utf8)
        let pointers = try ["/a", "/b/c/1/d", "/é😀", "/zzz"].map { try #require(JSONPointer($0)) }
        for n in 0..<20_000 {
            var bytes = whole
            for _ in 0...(n % 4) {
                bytes[random.below(bytes.count)] = Array(#"{}[]",:\u0~ "#.utf8)[random.below(12)]
            }
            let cut = bytes[..<random.below(bytes.count + 1)]
            for pointer in pointers {
                if let number = NumberReader.number(in: cut, at: pointer) { #expect(number.isFinite) }
            }
        }
    }
}

private struct LinearRandom {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func below(_ limit: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % limit
    }
}
