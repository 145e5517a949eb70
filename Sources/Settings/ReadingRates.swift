/// How much in which time, as people write it.
extension MappingReader {
    /// A size in bytes for each day: `2 GiB/day`.
    mutating func sizePerDay(
        _ key: String, _ range: ClosedRange<UInt64>, example: String, _ problems: inout Problems
    ) -> UInt64? {
        rate(key, range, per: "day", example: example, isSize: true, &problems)
    }

    /// A size in bytes for each second: `64 KiB/s`.
    mutating func sizePerSecond(
        _ key: String, _ range: ClosedRange<UInt64>, example: String, _ problems: inout Problems
    ) -> UInt32? {
        rate(key, range, per: "s", example: example, isSize: true, &problems).map { UInt32(clamping: $0) }
    }

    /// A number for each second: `500/s`.
    mutating func countPerSecond(
        _ key: String, _ range: ClosedRange<UInt64>, example: String, _ problems: inout Problems
    ) -> UInt32? {
        rate(key, range, per: "s", example: example, isSize: false, &problems).map { UInt32(clamping: $0) }
    }

    private mutating func rate(
        _ key: String, _ range: ClosedRange<UInt64>, per time: String, example: String, isSize: Bool,
        _ problems: inout Problems
    ) -> UInt64? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        let each = time == "s" ? "second" : time
        guard let amount = isSize ? ByteSize.bytes(parts[0]) : UInt64(parts[0]) else {
            problems.add(
                place,
                "\(key) is a \(isSize ? "size" : "number") for each \(each) such as \(example), not \"\(text)\"",
                write: "\(key): \(example)")
            return nil
        }
        let shown = { (amount: UInt64) in (isSize ? ByteSize.text(amount) : "\(amount)") + "/" + time }
        guard parts.count == 2, parts[1] == time else {
            problems.add(
                place,
                parts.count == 1
                    ? "\(key) does not say for how long"
                    : "\(key) is counted for each \(each), not \"\(text)\"",
                write: "\(key): \(shown(amount))")
            return nil
        }
        guard range.contains(amount) else {
            problems.add(
                place, "\(key) of \(text) is out of bounds",
                write:
                    "a \(isSize ? "size" : "number") from \(shown(range.lowerBound)) to \(shown(range.upperBound))"
            )
            return nil
        }
        return amount
    }
}

extension ByteSize {
    /// nil unless `text` is a size with its unit.
    static func bytes(_ text: String) -> UInt64? {
        var trimmed = text[...]
        while trimmed.last == " " { trimmed.removeLast() }
        guard let quantity = Quantity(String(trimmed)),
            let unit = units.first(where: { $0.name == quantity.unit })
        else { return nil }
        return quantity.scaled(by: unit.bytes)
    }
}

extension JournalSettings {
    /// A size as it may be written in the file, for what the command line says instead of it.
    package static func bytes(_ text: String) -> UInt64? { ByteSize.bytes(text) }
}
