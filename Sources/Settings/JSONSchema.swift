/// A JSON text (RFC 8259), as far as a schema needs it: in the order in which it was put together.
indirect enum JSONText {
    case object([(String, JSONText)])
    case array([JSONText])
    case string(String)
    case number(UInt64)
    case bool(Bool)

    /// Two blanks deeper with each level.
    func written(indent: String = "") -> String {
        let deeper = indent + "  "
        switch self {
        case .object(let members):
            guard !members.isEmpty else { return "{}" }
            let lines = members.map { deeper + Self.quoted($0.0) + ": " + $0.1.written(indent: deeper) }
            return "{\n" + lines.joined(separator: ",\n") + "\n" + indent + "}"
        case .array(let items):
            return "[" + items.map { $0.written(indent: deeper) }.joined(separator: ", ") + "]"
        case .string(let text): return Self.quoted(text)
        case .number(let number): return "\(number)"
        case .bool(let flag): return "\(flag)"
        }
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

/// JSON Schema (draft 2020-12) of what a description says, for editors that complete and check what is written. It
/// refuses nothing that the reading accepts; what takes more than a look at one value only the reading refuses.
enum JSONSchema {
    static func document(_ title: String, _ about: String, _ keys: [KeyDescription]) -> JSONText {
        guard case .object(let members) = mapping(keys, about) else { return .object([]) }
        return .object(
            [
                ("$schema", .string("https://json-schema.org/draft/2020-12/schema")),
                ("title", .string(title)),
            ] + members)
    }

    private static func mapping(_ keys: [KeyDescription], _ about: String) -> JSONText {
        let required = keys.filter(\.isRequired).map { JSONText.string($0.name) }
        return .object(
            [
                ("description", .string(about)),
                ("type", .string("object")),
                ("additionalProperties", .bool(false)),
            ] + (required.isEmpty ? [] : [("required", .array(required))])
                + [("properties", .object(keys.map { ($0.name, value(of: $0)) }))])
    }

    private static func value(of key: KeyDescription) -> JSONText {
        switch key.kind {
        case .text(let pattern): described(key, text(pattern))
        case .word(let words):
            described(key, [("enum", .array(words.map { .string($0) }))])
        case .count(let range):
            described(
                key,
                [
                    ("type", .string("integer")), ("minimum", .number(UInt64(range.lowerBound))),
                    ("maximum", .number(UInt64(range.upperBound))),
                ])
        case .seconds(_, let mayBeNever):
            described(key, unit(Duration.units.map(\.name), or: mayBeNever ? "|never" : ""))
        case .milliseconds:
            described(key, unit(Duration.units.map(\.name)))
        case .size:
            described(key, unit(ByteSize.units.map(\.name)))
        case .countPerSecond:
            described(key, [("type", .string("string")), ("pattern", .string("^[0-9]+/s$"))])
        case .sizePerSecond:
            described(key, unit(ByteSize.units.map(\.name), behind: " */s"))
        case .texts(let countMax):
            described(
                key,
                [("anyOf", .array([.object(text(nil)), list(.object(text(nil)), countMax)]))])
        case .mapping(_, let keys): mapping(keys, key.about)
        case .mappings(_, let keys, let countMax):
            described(
                key,
                [("anyOf", .array([mapping(keys, key.about), list(mapping(keys, key.about), countMax)]))]
            )
        }
    }

    private static func described(_ key: KeyDescription, _ members: [(String, JSONText)]) -> JSONText {
        .object([("description", .string("\(key.about) Example: \(key.example)"))] + members)
    }

    /// YAML takes some words without quotes for something else, which is text all the same to us.
    private static func text(_ pattern: String?) -> [(String, JSONText)] {
        [("type", .array(["string", "number", "boolean"].map { .string($0) }))]
            + (pattern.map { [("pattern", .string($0))] } ?? [])
    }

    private static func unit(
        _ units: [String], behind: String = "", or other: String = ""
    ) -> [(String, JSONText)] {
        [
            ("type", .string("string")),
            ("pattern", .string("^([0-9]+ *(\(units.joined(separator: "|")))\(behind)\(other))$")),
        ]
    }

    private static func list(_ item: JSONText, _ countMax: Int) -> JSONText {
        .object([
            ("type", .string("array")), ("items", item), ("maxItems", .number(UInt64(countMax))),
        ])
    }
}
