/// A key of a file: what both its reading and the JSON Schema for editors are made of, so that they cannot differ.
struct KeyDescription: Sendable {
    let name: String
    let kind: ValueKind
    /// A sentence or two for whoever writes the file.
    let about: String
    /// A value as it may be written.
    let example: String
    var isRequired = false

    init(_ name: String, _ kind: ValueKind, example: String, isRequired: Bool = false, _ about: String) {
        self.name = name
        self.kind = kind
        self.about = about
        self.example = example
        self.isRequired = isRequired
    }
}

/// What is written behind a key.
indirect enum ValueKind: Sendable {
    /// - pattern: a regular expression that what is right matches, for editors; the reading knows better.
    case text(pattern: String? = nil)
    case word([String])
    case count(ClosedRange<Int>)
    /// Whole seconds.
    case seconds(ClosedRange<UInt64>, mayBeNever: Bool = false)
    case milliseconds(ClosedRange<UInt64>)
    case size(ClosedRange<UInt64>)
    case countPerSecond(ClosedRange<UInt64>)
    case sizePerSecond(ClosedRange<UInt64>)
    /// One text, or a list of them.
    case texts(countMax: Int)
    /// - subject: what the mapping describes, for sentences: "a queue".
    case mapping(subject: String, [KeyDescription])
    /// A list of mappings; a single one may stand for itself.
    case mappings(subject: String, [KeyDescription], countMax: Int)
}

/// What was read of a mapping by its description. Asking for a key that is not in the description, or for another kind
/// than it has, is a mistake in this program.
struct ReadMapping {
    let place: Place
    private var values: [String: Value] = [:]
    private var places: [String: Place] = [:]

    private enum Value {
        case text(String)
        case texts([(text: String, place: Place)])
        /// A count, seconds (`UInt32.max` for never), milliseconds, bytes, or any of these each second.
        case number(UInt64)
        case mapping(ReadMapping)
        case mappings([ReadMapping])
    }

    /// Reads `node`; nil when it is no mapping. What is wrong in it is left out, and noted.
    init?(_ node: YamlNode, _ subject: String, _ keys: [KeyDescription], _ problems: inout Problems) {
        let example = keys.first { $0.isRequired } ?? keys.first
        guard
            var reader = MappingReader(
                node, subject: subject, example: example.map { "\($0.name): \($0.example)" } ?? "key: value",
                &problems)
        else { return nil }
        place = node.place
        for key in keys {
            places[key.name] = reader.peek(key.name)
            if key.isRequired, places[key.name] == nil {
                problems.add(place, "\(subject) needs a \(key.name)", write: "\(key.name): \(key.example)")
            }
            values[key.name] = Self.read(key, &reader, &problems)
        }
        reader.finish(&problems)
    }

    private static func read(
        _ key: KeyDescription, _ reader: inout MappingReader, _ problems: inout Problems
    ) -> Value? {
        let (name, example) = (key.name, key.example)
        switch key.kind {
        case .text:
            return reader.text(name, example: example, &problems).map { .text($0.text) }
        case .word(let words):
            return reader.word(name, words, example: example, &problems).map { .text($0) }
        case .count(let range):
            return reader.count(name, range, example: Int(example) ?? range.lowerBound, &problems)
                .map { .number(UInt64($0)) }
        case .seconds(let range, let mayBeNever):
            return reader.seconds(name, range, never: mayBeNever, example: example, &problems)
                .map { .number(UInt64($0)) }
        case .milliseconds(let range):
            guard
                case (.milliseconds(let span), _)? = reader.duration(name, range, example: example, &problems)
            else { return nil }
            return .number(span)
        case .size(let range):
            return reader.size(name, range, example: example, &problems).map { .number(UInt64($0)) }
        case .countPerSecond(let range):
            return reader.countPerSecond(name, range, example: example, &problems)
                .map { .number(UInt64($0)) }
        case .sizePerSecond(let range):
            return reader.sizePerSecond(name, range, example: example, &problems).map { .number(UInt64($0)) }
        case .texts(let countMax):
            return reader.texts(name, example: "\(name): \(example)", countMax: countMax, &problems)
                .map { .texts($0) }
        case .mapping(let subject, let keys):
            guard let node = reader.take(name, &problems) else { return nil }
            return ReadMapping(node, subject, keys, &problems).map { .mapping($0) }
        case .mappings(let subject, let keys, let countMax):
            guard let node = reader.take(name, &problems) else { return nil }
            var items = [node]
            if case .sequence(let nodes) = node.content { items = nodes }
            if items.count > countMax {
                problems.add(items[countMax].place, "\(name) has more than \(countMax) items", write: "fewer")
            }
            return .mappings(
                items.prefix(countMax).compactMap { ReadMapping($0, subject, keys, &problems) })
        }
    }

    // MARK: Asking

    /// Where the value of a key stands; the mapping itself where it has none.
    func place(of key: String) -> Place { places[key] ?? place }

    func isWritten(_ key: String) -> Bool { places[key] != nil }

    func text(_ key: String) -> String? {
        guard case .text(let text)? = values[key] else { return nil }
        return text
    }

    func texts(_ key: String) -> [(text: String, place: Place)]? {
        guard case .texts(let texts)? = values[key] else { return nil }
        return texts
    }

    /// In the unit of the kind.
    func number<Number: FixedWidthInteger>(_ key: String) -> Number? {
        guard case .number(let number)? = values[key] else { return nil }
        return Number(clamping: number)
    }

    func mapping(_ key: String) -> ReadMapping? {
        guard case .mapping(let mapping)? = values[key] else { return nil }
        return mapping
    }

    func mappings(_ key: String) -> [ReadMapping] {
        guard case .mappings(let mappings)? = values[key] else { return [] }
        return mappings
    }
}

extension MappingReader {
    /// One of a few words.
    fileprivate mutating func word(
        _ key: String, _ words: [String], example: String, _ problems: inout Problems
    ) -> String? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        guard words.contains(text) else {
            let last = words.last ?? ""
            let all =
                words.count > 1 ? words.dropLast().joined(separator: ", ") + " or " + last : last
            let nearest = words.min { editDistance(text, $0) < editDistance(text, $1) } ?? example
            problems.add(place, "\(key) is \(all), not \"\(text)\"", write: "\(key): \(nearest)")
            return nil
        }
        return text
    }
}
