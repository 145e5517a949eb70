import MQTT

/// A Topic Filter or Topic Name with variables: `devices/${clientid}/#`.
///
/// What a client says of itself takes their place byte for byte. A value that could do more than name one level is
/// none: see `TopicVariables`.
package struct TopicTemplate: Hashable, Sendable, CustomStringConvertible {
    package enum Variable: String, CaseIterable, Sendable {
        case clientIdentifier = "clientid"
        case username
        case profile
        case gateway
    }

    private enum Part: Hashable, Sendable {
        case bytes([UInt8])
        case variable(Variable)
    }

    private let parts: [Part]
    package let description: String

    /// What is wrong with a template.
    package enum Problem: Error, Hashable, Sendable {
        /// `${` without `}`.
        case unclosed
        case unknownVariable(String)
        /// Whatever the values, it is no Topic Filter: a wildcard is not alone in its level, or it is of a shared
        /// subscription.
        case notAFilter
        /// It has wildcards where a Topic Name is asked for.
        case notAName
    }

    package enum Kind: Sendable {
        case filter
        case name
    }

    package init(_ text: String, as kind: Kind = .filter) throws(Problem) {
        description = text
        parts = try Self.parse(Array(text.utf8))
        // A letter stands for any value that is allowed.
        let sample = parts.flatMap { part -> [UInt8] in
            switch part {
            case .bytes(let bytes): bytes
            case .variable: [UInt8(ascii: "x")]
            }
        }
        guard let filter = TopicFilter(sample), filter.shareName == nil else { throw .notAFilter }
        if kind == .name, !TopicName.isValid(sample) { throw .notAName }
    }

    private static func parse(_ text: [UInt8]) throws(Problem) -> [Part] {
        var parts: [Part] = []
        var literal: [UInt8] = []
        var rest = text[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "$"), rest.first == UInt8(ascii: "{") else {
                literal.append(byte)
                continue
            }
            guard let close = rest.firstIndex(of: UInt8(ascii: "}")) else { throw .unclosed }
            let name = String(decoding: rest[(rest.startIndex + 1)..<close], as: UTF8.self)
            guard let variable = Variable(rawValue: name) else { throw .unknownVariable(name) }
            if !literal.isEmpty { parts.append(.bytes(literal)) }
            literal = []
            parts.append(.variable(variable))
            rest = rest[(close + 1)...]
        }
        if !literal.isEmpty { parts.append(.bytes(literal)) }
        return parts
    }

    package var variables: Set<Variable> {
        Set(parts.compactMap { if case .variable(let variable) = $0 { variable } else { nil } })
    }

    /// With every variable's value in its place; nil when one has none, or the result is too long.
    ///
    /// - Complexity: O(bytes)
    func expanded(_ values: TopicVariables) -> [UInt8]? {
        var bytes: [UInt8] = []
        // Mostly enough.
        bytes.reserveCapacity(description.utf8.count + values.clientIdentifier.utf8.count)
        for part in parts {
            switch part {
            case .bytes(let literal): bytes += literal
            case .variable(let variable):
                guard let value = values[variable] else { return nil }
                bytes += value.utf8
            }
        }
        return bytes.count <= Int(UInt16.max) ? bytes : nil
    }
}

extension TopicTemplate {
    /// The Topic Names that it can become for any client of a profile, and some more: a level with a client's own name
    /// is any; `isPossible` tells more of it.
    func filter(profile: String, gateway: String) -> TopicFilter? {
        let own: UInt8 = 0
        let sample = parts.flatMap { part -> [UInt8] in
            switch part {
            case .bytes(let bytes): bytes
            case .variable(.profile): Array(profile.utf8)
            case .variable(.gateway): Array(gateway.utf8)
            case .variable(.clientIdentifier), .variable(.username): [own]
            }
        }
        let levels = sample.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let masked = levels.map { $0.contains(own) ? [UInt8(ascii: "+")][...] : $0 }
        return TopicFilter(Array(masked.joined(separator: [UInt8(ascii: "/")])))
    }

    /// Whether it can become this Topic Name for any client, but for names that cannot be.
    func isPossible(_ topic: ArraySlice<UInt8>, profile: String, gateway: String) -> Bool {
        let pattern = parts.map { part -> String in
            switch part {
            case .bytes(let bytes): String(decoding: bytes, as: UTF8.self)
            case .variable(.profile): profile
            case .variable(.gateway): gateway
            case .variable(.clientIdentifier), .variable(.username): "*"
            }
        }
        return Glob(pattern.joined()).matches(String(decoding: topic, as: UTF8.self))
    }
}

/// What a client's variables stand for.
///
/// A value with `+`, `#` or `/`, one that begins with `$`, and an empty one stand for nothing: a client could name
/// itself into the topics of others. Whoever has such a name and gets a profile that uses it is refused at CONNECT,
/// because leaving out a rule would allow what it denies.
package struct TopicVariables: Hashable, Sendable {
    package var clientIdentifier: String
    package var username: String?
    package var profile: String
    package var gateway: String

    package init(clientIdentifier: String, username: String?, profile: String, gateway: String) {
        self.clientIdentifier = clientIdentifier
        self.username = username
        self.profile = profile
        self.gateway = gateway
    }

    /// nil where it stands for nothing.
    subscript(variable: TopicTemplate.Variable) -> String? {
        let value: String? =
            switch variable {
            case .clientIdentifier: clientIdentifier
            case .username: username
            case .profile: profile
            case .gateway: gateway
            }
        return value.flatMap { Self.isSafe($0) ? $0 : nil }
    }

    /// Whether a name can be nothing but one level of a topic, or part of one.
    ///
    /// - Complexity: O(bytes)
    package static func isSafe(_ value: String) -> Bool {
        guard let first = value.utf8.first, first != UInt8(ascii: "$") else { return false }
        return !value.utf8.contains {
            $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") || $0 == UInt8(ascii: "/") || $0 == 0
        }
    }
}
