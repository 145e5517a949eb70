/// A span of time as people write it: `250ms`, `5s`, `10m`, `2h`, `7d`, `never`.
enum Duration: Hashable {
    case milliseconds(UInt64)
    case never

    static let units: [(name: String, milliseconds: UInt64)] = [
        ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1),
    ]

    /// In its largest unit that leaves no remainder.
    var text: String {
        guard case .milliseconds(let milliseconds) = self else { return "never" }
        for unit in Self.units
        where milliseconds >= unit.milliseconds && milliseconds % unit.milliseconds == 0 {
            return "\(milliseconds / unit.milliseconds)\(unit.name)"
        }
        return "0s"
    }
}

/// A number of bytes as people write it: `64 KiB`, `4 MiB`, `1 MB`.
enum ByteSize {
    static let units: [(name: String, bytes: UInt64)] = [
        ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("KB", 1000),
        ("B", 1),
    ]

    /// In its largest unit that leaves no remainder, binary units first.
    static func text(_ bytes: UInt64) -> String {
        for unit in units where bytes >= unit.bytes && bytes % unit.bytes == 0 {
            return "\(bytes / unit.bytes) \(unit.name)"
        }
        return "0 B"
    }
}

/// A whole number and the word behind it: what durations and sizes are made of.
struct Quantity {
    var number: UInt64
    var unit: String

    /// nil unless `text` is digits, perhaps a space, and perhaps a word.
    init?(_ text: String) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { return nil }
        var rest = text.dropFirst(digits.count)
        while rest.first == " " { rest = rest.dropFirst() }
        guard rest.allSatisfy({ $0.isASCII && $0.isLetter }) else { return nil }
        self.number = number
        self.unit = String(rest)
    }

    /// `number` units of `scale`; nil beyond 64 bits.
    func scaled(by scale: UInt64) -> UInt64? {
        let (product, overflow) = number.multipliedReportingOverflow(by: scale)
        return overflow ? nil : product
    }
}
