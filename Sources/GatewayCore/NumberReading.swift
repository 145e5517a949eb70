/// Numbers in payloads: a payload that is one, or a place in a JSON text (RFC 8259). Only as much is looked at as leads
/// to the number; what is no JSON up to there has none.
struct NumberReader {
    private let bytes: ArraySlice<UInt8>
    private var place: Int
    /// Texts nested deeper have no number, wherever it is.
    private static let depthMax = 64
    /// Longer numbers are none.
    private static let numberBytesMax = 64

    private init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        place = bytes.startIndex
    }

    /// The number that a payload is, with white space around it, or has at `pointer`; nil where there is none.
    ///
    /// - Complexity: O(bytes)
    static func number(in payload: ArraySlice<UInt8>, at pointer: JSONPointer?) -> Double? {
        var reader = NumberReader(payload)
        for token in pointer?.tokens ?? [] {
            guard reader.enter(token) else { return nil }
        }
        reader.skipSpace()
        guard let number = reader.number(), reader.next.map({ endsValue($0) }) ?? true else { return nil }
        guard pointer == nil else { return number }
        reader.skipSpace()
        return reader.next == nil ? number : nil
    }

    // MARK: Walking

    private var next: UInt8? { place < bytes.endIndex ? bytes[place] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard next == UInt8(ascii: scalar) else { return false }
        place += 1
        return true
    }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { place += 1 }
    }

    /// Goes to the member with this name, the first of several, or to the element with this number.
    private mutating func enter(_ token: [UInt8]) -> Bool {
        skipSpace()
        if take("{") { return enterMember(token) }
        if take("["), let index = Self.index(token) { return enterElement(index) }
        return false
    }

    private mutating func enterMember(_ name: [UInt8]) -> Bool {
        while true {
            skipSpace()
            guard let isIt = string(comparedWith: name) else { return false }
            skipSpace()
            guard take(":") else { return false }
            if isIt { return true }
            guard skipValue() else { return false }
            skipSpace()
            guard take(",") else { return false }
        }
    }

    private mutating func enterElement(_ index: Int) -> Bool {
        for _ in 0..<index {
            guard skipValue() else { return false }
            skipSpace()
            guard take(",") else { return false }
        }
        return true
    }

    /// Without leading zeros (RFC 6901, 4); no payload has more elements than bytes.
    private static func index(_ token: [UInt8]) -> Int? {
        guard 1...9 ~= token.count, token.allSatisfy({ 0x30...0x39 ~= $0 }) else { return nil }
        guard token.count == 1 || token[0] != 0x30 else { return nil }
        return token.reduce(0) { $0 * 10 + Int($1 - 0x30) }
    }

    // MARK: Values

    /// Passes over one value; of objects and arrays only that brackets and quotes close is looked at.
    private mutating func skipValue() -> Bool {
        var depth = 0
        var isAnythingThere = false
        while true {
            skipSpace()
            guard let byte = next else { return false }
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                guard depth <= Self.depthMax else { return false }
                place += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { return isAnythingThere }
                depth -= 1
                place += 1
            case UInt8(ascii: "\""):
                guard string(comparedWith: []) != nil else { return false }
            case UInt8(ascii: ","), UInt8(ascii: ":"):
                guard depth > 0 else { return isAnythingThere }
                place += 1
            default:
                place += 1
            }
            isAnythingThere = true
            if depth == 0, next.map({ Self.endsValue($0) }) ?? true { return true }
        }
    }

    private static func endsValue(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]"), 0x20, 0x0A, 0x0D, 0x09: true
        default: false
        }
    }

    /// Passes over a string.
    ///
    /// - Returns: whether it is `name`; nil when there is no whole string.
    private mutating func string(comparedWith name: [UInt8]) -> Bool? {
        guard take("\"") else { return nil }
        var matched = 0
        var isSame = true
        func compare(_ byte: UInt8) {
            isSame = isSame && matched < name.count && name[matched] == byte
            matched += 1
        }
        while let byte = next {
            place += 1
            switch byte {
            case UInt8(ascii: "\""): return isSame && matched == name.count
            case UInt8(ascii: "\\"):
                guard let scalar = escape() else { return nil }
                for unit in UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter { compare(unit) }
            default: compare(byte)
            }
        }
        return nil
    }

    /// What follows a backslash.
    private mutating func escape() -> Unicode.Scalar? {
        guard let byte = next else { return nil }
        place += 1
        switch byte {
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "u"):
            guard let unit = hexadecimal() else { return nil }
            guard 0xD800..<0xDC00 ~= unit, take("\\"), take("u"), let low = hexadecimal(),
                0xDC00..<0xE000 ~= low
            else { return Unicode.Scalar(unit) }
            return Unicode.Scalar(0x1_0000 + (unit - 0xD800) << 10 + (low - 0xDC00))
        default: return nil
        }
    }

    private mutating func hexadecimal() -> UInt32? {
        guard bytes.endIndex - place >= 4 else { return nil }
        var value: UInt32 = 0
        for byte in bytes[place..<place + 4] {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { return nil }
            value = value << 4 | UInt32(digit)
        }
        place += 4
        return value
    }

    /// As JSON writes it, so neither `0x10` nor `inf`, and none that is too large for a Double.
    private mutating func number() -> Double? {
        let start = place
        _ = take("-")
        if !take("0") { guard digits() else { return nil } }
        if take(".") { guard digits() else { return nil } }
        if take("e") || take("E") {
            _ = take("+") || take("-")
            guard digits() else { return nil }
        }
        guard place - start <= Self.numberBytesMax,
            let value = Double(String(decoding: bytes[start..<place], as: UTF8.self)), value.isFinite
        else { return nil }
        return value
    }

    private mutating func digits() -> Bool {
        let start = place
        while let byte = next, 0x30...0x39 ~= byte { place += 1 }
        return place > start
    }
}
