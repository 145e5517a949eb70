/// What the flash may be given, as people write it.
extension MappingReader {
    /// A size in bytes for each day: `2 GiB/day`.
    mutating func sizePerDay(
        _ key: String, _ range: ClosedRange<UInt64>, example: String, _ problems: inout Problems
    ) -> UInt64? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard let bytes = ByteSize.bytes(parts[0]) else {
            problems.add(
                place, "\(key) is a size for each day such as \(example), not \"\(text)\"",
                write: "\(key): \(example)")
            return nil
        }
        guard parts.count == 2, parts[1] == "day" else {
            problems.add(
                place, "\(key) does not say for how long", write: "\(key): \(ByteSize.text(bytes))/day")
            return nil
        }
        guard range.contains(bytes) else {
            let bounds = "\(ByteSize.text(range.lowerBound))/day to \(ByteSize.text(range.upperBound))/day"
            problems.add(place, "\(key) of \(text) is out of bounds", write: "a size from \(bounds)")
            return nil
        }
        return bytes
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
