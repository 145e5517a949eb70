/// Takes the keys out of one mapping. Whatever is not taken was unknown; the order of taking is the order in
/// which the known keys are listed to the user.
///
/// Every function reports what is wrong and answers nil, and then the default stays: reading goes on, so that
/// all errors show at once.
struct MappingReader {
    let place: Place
    /// What the mapping describes, for sentences: "a listener".
    private let subject: String
    private var entries: [YamlNode.Entry]
    private var known: [String] = []

    init?(_ node: YamlNode, subject: String, example: String, _ problems: inout Problems) {
        guard case .mapping(let entries) = node.content else {
            problems.add(
                node.place, "\(subject) is a mapping of keys to values, and this is \(node.kind)",
                write: example)
            return nil
        }
        self.place = node.place
        self.subject = subject
        self.entries = entries
    }

    /// The value of a key; nil when it is not written, or written without a value, which is an error.
    mutating func take(_ key: String, _ problems: inout Problems) -> YamlNode? {
        known.append(key)
        guard let index = entries.firstIndex(where: { $0.key == key }) else { return nil }
        let entry = entries.remove(at: index)
        if case .scalar(let scalar) = entry.value.content, scalar.isNull {
            problems.add(entry.keyPlace, "\(key) has no value", write: "one, or leave the line out")
            return nil
        }
        return entry.value
    }

    /// Where a key's value stands; nil when it is not written.
    func peek(_ key: String) -> Place? { entries.first { $0.key == key }?.value.place }

    /// A key that a later version will offer: writing it is an error that says so, never a silent no-op.
    ///
    /// - Returns: whether it was written.
    mutating func refuseAsLater(_ key: String, instead: String, _ problems: inout Problems) -> Bool {
        guard let index = entries.firstIndex(where: { $0.key == key }) else { return false }
        let entry = entries.remove(at: index)
        problems.add(
            entry.keyPlace, "\(key) is not offered by this version, a later one will", write: instead)
        return true
    }

    /// Reports the keys nobody took.
    func finish(_ problems: inout Problems) {
        for entry in entries {
            let all = known.joined(separator: ", ")
            let nearest = known.map { (key: $0, distance: editDistance(entry.key, $0)) }
                .min { $0.distance < $1.distance }
            if let nearest, nearest.distance <= max(2, nearest.key.utf8.count / 3) {
                problems.add(
                    entry.keyPlace, "unknown key \"\(entry.key)\" in \(subject)",
                    write: "\(nearest.key) (known here: \(all))")
            } else {
                problems.add(
                    entry.keyPlace, "unknown key \"\(entry.key)\" in \(subject)", write: "one of \(all)")
            }
        }
    }

    // MARK: Single values

    /// Text; a number or word without quotes counts as text too.
    mutating func text(_ key: String, example: String, _ problems: inout Problems) -> (
        text: String, place: Place
    )? {
        guard let node = take(key, &problems) else { return nil }
        guard case .scalar(let scalar) = node.content else {
            problems.add(
                node.place, "\(key) is a single value, and this is \(node.kind)", write: "\(key): \(example)")
            return nil
        }
        guard !scalar.text.isEmpty else {
            problems.add(node.place, "\(key) is empty", write: "\(key): \(example)")
            return nil
        }
        return (scalar.text, node.place)
    }

    mutating func flag(_ key: String, _ problems: inout Problems) -> Bool? {
        guard let (text, place) = text(key, example: "true", &problems) else { return nil }
        switch text {
        case "true": return true
        case "false": return false
        default:
            let yes = ["yes", "on", "1", "True", "TRUE"].contains(text)
            problems.add(place, "\(key) is true or false, not \"\(text)\"", write: "\(key): \(yes)")
            return nil
        }
    }

    /// A plain count.
    mutating func count(_ key: String, _ range: ClosedRange<Int>, example: Int, _ problems: inout Problems)
        -> Int?
    {
        guard let (text, place) = text(key, example: "\(example)", &problems) else { return nil }
        guard let number = Int(text), text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else {
            problems.add(place, "\(key) is a whole number, not \"\(text)\"", write: "\(key): \(example)")
            return nil
        }
        guard range.contains(number) else {
            problems.add(
                place, "\(key) of \(number) is out of bounds",
                write: "a number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return number
    }

    /// A span of time in milliseconds, or `never` where that is allowed.
    ///
    /// - Parameter never: whether `never` may be written.
    mutating func duration(
        _ key: String, _ range: ClosedRange<UInt64>, never: Bool = false, example: String,
        _ problems: inout Problems
    ) -> (duration: Duration, place: Place)? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        if text == "never" {
            if never { return (.never, place) }
            problems.add(place, "\(key) cannot be never", write: "\(key): \(example)")
            return nil
        }
        guard let quantity = Quantity(text) else {
            problems.add(
                place, "\(key) is a time such as \(example), not \"\(text)\"", write: "\(key): \(example)")
            return nil
        }
        guard !quantity.unit.isEmpty || quantity.number == 0 else {
            problems.add(place, "\(key) has no unit", write: "\(key): \(text)s, or another of ms, s, m, h, d")
            return nil
        }
        guard
            let unit = quantity.unit.isEmpty
                ? Duration.units.last : Duration.units.first(where: { $0.name == quantity.unit })
        else {
            problems.add(
                place, "\(key) has the unknown unit \"\(quantity.unit)\"",
                write: "ms, s, m, h or d, as in \(example)")
            return nil
        }
        guard let milliseconds = quantity.scaled(by: unit.milliseconds), range.contains(milliseconds) else {
            let (low, high) = (
                Duration.milliseconds(range.lowerBound), Duration.milliseconds(range.upperBound)
            )
            problems.add(
                place, "\(key) of \(text) is out of bounds",
                write: "a time from \(low.text) to \(high.text)" + (never ? ", or never" : ""))
            return nil
        }
        return (.milliseconds(milliseconds), place)
    }

    /// A size in bytes.
    mutating func size(
        _ key: String, _ range: ClosedRange<UInt64>, example: String, _ problems: inout Problems
    ) -> Int? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        guard let quantity = Quantity(text) else {
            problems.add(
                place, "\(key) is a size such as \(example), not \"\(text)\"", write: "\(key): \(example)")
            return nil
        }
        guard !quantity.unit.isEmpty else {
            problems.add(place, "\(key) has no unit", write: "\(key): \(ByteSize.text(quantity.number))")
            return nil
        }
        guard let unit = ByteSize.units.first(where: { $0.name == quantity.unit }) else {
            problems.add(
                place, "\(key) has the unknown unit \"\(quantity.unit)\"",
                write: "B, KiB, MiB, GiB, kB, MB or GB, as in \(example)")
            return nil
        }
        guard let bytes = quantity.scaled(by: unit.bytes), range.contains(bytes) else {
            problems.add(
                place, "\(key) of \(text) is out of bounds",
                write: "a size from \(ByteSize.text(range.lowerBound)) to \(ByteSize.text(range.upperBound))")
            return nil
        }
        return Int(bytes)
    }

    /// One text, or a list of at most `countMax` of them.
    mutating func texts(_ key: String, example: String, countMax: Int, _ problems: inout Problems) -> [(
        text: String, place: Place
    )]? {
        guard let node = take(key, &problems) else { return nil }
        let items: [YamlNode]
        switch node.content {
        case .scalar: items = [node]
        case .sequence(let nodes): items = nodes
        case .mapping:
            problems.add(node.place, "\(key) is a value or a list, and this is a mapping", write: example)
            return nil
        }
        if items.count > countMax {
            problems.add(items[countMax].place, "\(key) has more than \(countMax) items", write: "fewer")
        }
        var texts: [(text: String, place: Place)] = []
        for item in items.prefix(countMax) {
            if case .scalar(let scalar) = item.content, !scalar.text.isEmpty, !scalar.isNull {
                texts.append((scalar.text, item.place))
            } else {
                problems.add(item.place, "\(key) holds something that is not text", write: example)
            }
        }
        return texts
    }

    /// The items of a list.
    ///
    /// - Parameter emptiness: why a list of nothing is an error; nil where it is none.
    mutating func list(
        _ key: String, example: String, emptiness: String? = nil, _ problems: inout Problems
    ) -> [YamlNode]? {
        guard let node = take(key, &problems) else { return nil }
        guard case .sequence(let items) = node.content else {
            problems.add(node.place, "\(key) is a list, and this is \(node.kind)", write: example)
            return nil
        }
        if items.isEmpty, let emptiness {
            problems.add(place, "\(key) is empty, and \(emptiness)", write: example)
        }
        return items
    }
}

/// How many letters must be put, removed, changed or swapped with their neighbour to make `a` into `b`.
///
/// - Complexity: O(length of a × length of b), both cut at 64 bytes
func editDistance(_ a: String, _ b: String) -> Int {
    let a = Array(a.utf8.prefix(64))
    let b = Array(b.utf8.prefix(64))
    var beforeLast = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in a.indices {
        var row = [i + 1]
        for j in b.indices {
            let changed = last[j] + (a[i] == b[j] ? 0 : 1)
            var best = min(changed, last[j + 1] + 1, row[j] + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, beforeLast[j - 1] + 1) }
            row.append(best)
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}
