import Foundation
import Testing

@testable import Settings

/// The schema against the reading: what one refuses by itself, the other does.
@Suite("JSON Schema of device profiles")
struct ProfileSchemaTests {
    private static func schema() throws -> [String: Any] {
        let object = try JSONSerialization.jsonObject(with: Data(ProfileSettings.schema.utf8))
        return try #require(object as? [String: Any])
    }

    private static func accepts(_ text: String) throws -> Bool {
        let node = try #require(try YamlReader.document(in: Array(text.utf8)))
        return try validates(value(node), schema())
    }

    @Test("it accepts every profile that is shipped")
    func shipped() throws {
        for file in try ProfileFileTests.shipped {
            #expect(try Self.accepts(String(contentsOf: file, encoding: .utf8)), "\(file.lastPathComponent)")
        }
    }

    @Test("it accepts the example of each key, and the reading does too")
    func examples() throws {
        func check(_ keys: [KeyDescription], _ wrap: (String) -> String) throws {
            for key in keys where key.name != "profile" && key.name != "order" {
                let text = wrap("\(key.name): \(key.example)")
                #expect(try Self.accepts(text), "\(text)")
                switch key.kind {
                case .mapping(_, let inner) where !inner.contains(where: \.isRequired):
                    try check(inner) { wrap("\(key.name): { \($0) }") }
                default: break
                }
            }
        }
        try check(ProfileKeys.all) { "profile: p\n\($0)" }
        for key in ProfileKeys.all where !["profile", "order", "match", "uplink"].contains(key.name) {
            #expect(throws: Never.self) {
                try ProfileFileTests.parse("profile: p\n\(key.name): \(key.example)")
            }
        }
    }

    @Test(
        "it refuses what the reading refuses of a value by itself",
        arguments: [
            "ordr: 5", "qos: 3", "qos: much", "receive-maximum: 0", "packet-size: 4096", "durability: fast",
            "keep-alive: { min: 30 }", "keep-alive: 30s", "rate: { messages: 10 }", "rate: { bytes: 3/s }",
            "queue: { when-full: drop, messages: 3 }", "liveness: { topic: a }", "match: [ { client: a } ]",
            "sessions: { expiry-max: 3 weeks }", "publish: [ a ]", "publish: { allow: { a: b } }",
            "report-by-exception: { topic: a, deadband: wide }",
        ])
    func refuses(_ text: String) throws {
        let whole = "profile: p\n" + text
        #expect(try !Self.accepts(whole))
        #expect(throws: SettingsErrors.self) { try ProfileFileTests.parse(whole) }
    }

    @Test("it says what every key is for")
    func descriptions() throws {
        let properties = try #require(try Self.schema()["properties"] as? [String: [String: Any]])
        #expect(Set(properties.keys) == Set(ProfileKeys.all.map(\.name)))
        for (name, property) in properties {
            #expect((property["description"] as? String)?.isEmpty == false, "\(name)")
        }
    }

    // MARK: As much of JSON Schema as it uses

    /// As YAML's core schema reads it.
    private static func value(_ node: YamlNode) -> Any {
        switch node.content {
        case .sequence(let items): return items.map { value($0) }
        case .mapping(let entries):
            return Dictionary(uniqueKeysWithValues: entries.map { ($0.key, value($0.value)) })
        case .scalar(let scalar):
            guard scalar.isPlain else { return scalar.text }
            if let number = Int(scalar.text) { return number }
            if let number = Double(scalar.text) { return number }
            return ["true": true, "false": false][scalar.text] ?? scalar.text
        }
    }

    private static func validates(_ value: Any, _ schema: [String: Any]) throws -> Bool {
        if let choices = schema["anyOf"] as? [[String: Any]] {
            return try choices.contains { try validates(value, $0) }
        }
        if let words = schema["enum"] as? [String] { return (value as? String).map(words.contains) ?? false }
        let types = (schema["type"] as? [String]) ?? (schema["type"] as? String).map { [$0] } ?? []
        try #require(!types.isEmpty)
        guard types.contains(where: { isOf($0, value) }) else { return false }
        if let number = value as? Int, let low = schema["minimum"] as? Int, number < low { return false }
        if let number = value as? Int, let high = schema["maximum"] as? Int, number > high { return false }
        if let text = value as? String, let pattern = schema["pattern"] as? String {
            let whole = text.range(of: pattern, options: .regularExpression)
            if whole == nil { return false }
        }
        if let items = value as? [Any], let item = schema["items"] as? [String: Any] {
            guard items.count <= schema["maxItems"] as? Int ?? .max else { return false }
            return try items.allSatisfy { try validates($0, item) }
        }
        if let members = value as? [String: Any] {
            let properties = try #require(schema["properties"] as? [String: [String: Any]])
            let required = schema["required"] as? [String] ?? []
            guard required.allSatisfy({ members[$0] != nil }) else { return false }
            return try members.allSatisfy { name, value in
                try properties[name].map { try validates(value, $0) } ?? false
            }
        }
        return true
    }

    private static func isOf(_ type: String, _ value: Any) -> Bool {
        switch type {
        case "string": value is String
        case "integer": value is Int
        case "number": value is Int || value is Double
        case "boolean": value is Bool
        case "array": value is [Any]
        case "object": value is [String: Any]
        default: false
        }
    }
}
