/// Which Application Message: the n-th of one author. It is written in the payload, so that whoever receives a message
/// can say which it is, and whether it is whole.
package struct MessageName: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var author: UInt16
    /// From 1 on, in the order in which they were made.
    package var number: UInt32

    package init(_ author: UInt16, _ number: UInt32) {
        self.author = author
        self.number = number
    }

    package var description: String { "\(author)#\(number)" }

    package static func < (a: Self, b: Self) -> Bool { (a.author, a.number) < (b.author, b.number) }

    /// "author#number:padding " and so many bytes that follow from the number.
    package func payload(padding: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(24 + padding)
        Self.append(UInt64(author), to: &bytes)
        bytes.append(UInt8(ascii: "#"))
        Self.append(UInt64(number), to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        Self.append(UInt64(padding), to: &bytes)
        bytes.append(UInt8(ascii: " "))
        for i in 0..<padding { bytes.append(filler(i)) }
        return bytes
    }

    /// nil unless the payload is, to the last byte, one that `payload(padding:)` made.
    package init?(payload: ArraySlice<UInt8>) {
        var rest = payload
        guard let author = Self.number(from: &rest, until: UInt8(ascii: "#")), author <= UInt64(UInt16.max),
            let number = Self.number(from: &rest, until: UInt8(ascii: ":")), number <= UInt64(UInt32.max),
            let padding = Self.number(from: &rest, until: UInt8(ascii: " ")), rest.count == Int(padding)
        else { return nil }
        self.init(UInt16(author), UInt32(number))
        for (i, byte) in rest.enumerated() where byte != filler(i) { return nil }
    }

    private func filler(_ i: Int) -> UInt8 { UInt8(ascii: "a") + UInt8((Int(number) + i) % 26) }

    private static func append(_ number: UInt64, to bytes: inout [UInt8]) {
        if number >= 10 { append(number / 10, to: &bytes) }
        bytes.append(UInt8(ascii: "0") + UInt8(number % 10))
    }

    private static func number(from rest: inout ArraySlice<UInt8>, until end: UInt8) -> UInt64? {
        var value: UInt64 = 0
        var digits = 0
        while let byte = rest.popFirst() {
            if byte == end { return digits > 0 ? value : nil }
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), digits < 12 else { return nil }
            value = value * 10 + UInt64(byte - UInt8(ascii: "0"))
            digits += 1
        }
        return nil
    }
}
