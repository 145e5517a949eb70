/// The rules for Topic Names [MQTT5-4.7]. Names are bytes: walking UTF-8 is several times faster than
/// splitting Strings, and they arrive and leave as bytes.
package enum TopicName {
    /// Whether `bytes` may be a PUBLISH's Topic Name: 1 to 65 535 bytes of valid UTF-8 without U+0000 and
    /// without wildcards [MQTT5-4.7.1-1, MQTT5-4.7.3-1, MQTT5-4.7.3-2].
    ///
    /// - Complexity: O(bytes)
    package static func isValid(_ bytes: some Collection<UInt8>) -> Bool {
        !bytes.isEmpty && bytes.count <= Int(UInt16.max)
            && !bytes.contains { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") }
            && UTF8Rules.areValid(bytes)
    }
}

/// A Topic Filter that has passed the specification's rules [MQTT5-4.7].
package struct TopicFilter: Hashable, Sendable {
    package let bytes: [UInt8]
    /// For `$share/name/filter` the ShareName [MQTT5-4.8.2].
    package let shareName: ArraySlice<UInt8>?
    /// What is matched against Topic Names: `bytes` without any `$share/name/`.
    package let pattern: ArraySlice<UInt8>

    /// nil when the filter breaks a rule: empty, U+0000 or invalid UTF-8, `#` not alone in the last level,
    /// `+` not alone in its level, or a `$share` without a valid ShareName and filter [MQTT5-4.8.2-1].
    ///
    /// - Complexity: O(bytes)
    package init?(_ bytes: some Collection<UInt8>) {
        let bytes = Array(bytes)
        guard bytes.count <= Int(UInt16.max), UTF8Rules.areValid(bytes) else { return nil }
        var pattern = bytes[...]
        var shareName: ArraySlice<UInt8>?
        if pattern.starts(with: "$share/".utf8) {
            let rest = pattern.dropFirst(7)
            guard let slash = rest.firstIndex(of: UInt8(ascii: "/")), slash > rest.startIndex else { return nil }
            let name = rest[..<slash]
            guard !name.contains(where: { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") }) else { return nil }
            shareName = name
            pattern = rest[(slash + 1)...]
        }
        guard !pattern.isEmpty, Self.wildcardsStandAlone(in: pattern) else { return nil }
        self.bytes = bytes
        self.shareName = shareName
        self.pattern = pattern
    }

    package init?(_ text: String) { self.init(Array(text.utf8)) }

    /// Whether a Topic Name matches [MQTT5-4.7.2-1]: a leading wildcard does not match a leading `$`.
    ///
    /// - Complexity: O(bytes of the name)
    package func matches(_ topic: some Collection<UInt8>) -> Bool {
        let slash = UInt8(ascii: "/")
        var f = pattern.startIndex
        var t = topic.startIndex
        if topic.first == UInt8(ascii: "$"), pattern.first == UInt8(ascii: "+") || pattern.first == UInt8(ascii: "#") {
            return false
        }
        while f < pattern.endIndex {
            if pattern[f] == UInt8(ascii: "#") { return true }
            if pattern[f] == UInt8(ascii: "+") {
                while t < topic.endIndex, topic[t] != slash { t = topic.index(after: t) }
                f += 1
            } else {
                while f < pattern.endIndex, pattern[f] != slash {
                    guard t < topic.endIndex, topic[t] == pattern[f] else { return false }
                    f += 1
                    t = topic.index(after: t)
                }
                guard t == topic.endIndex || topic[t] == slash else { return false }
            }
            // Both stand at the end of a level.
            if f == pattern.endIndex { return t == topic.endIndex }
            f += 1
            if t == topic.endIndex {
                // "sport/#" also matches "sport" [MQTT5-4.7.1.2].
                return f + 1 == pattern.endIndex && pattern[f] == UInt8(ascii: "#")
            }
            t = topic.index(after: t)
            if f == pattern.endIndex { return t == topic.endIndex }
        }
        return t == topic.endIndex
    }

    private static func wildcardsStandAlone(in pattern: ArraySlice<UInt8>) -> Bool {
        var levelStart = pattern.startIndex
        for i in pattern.indices {
            switch pattern[i] {
            case UInt8(ascii: "/"):
                levelStart = i + 1
            case UInt8(ascii: "#"):
                guard i == levelStart, i == pattern.endIndex - 1 else { return false }
            case UInt8(ascii: "+"):
                guard i == levelStart, i == pattern.endIndex - 1 || pattern[i + 1] == UInt8(ascii: "/") else {
                    return false
                }
            default:
                break
            }
        }
        return true
    }
}

/// The rules for UTF-8 Encoded Strings [MQTT5-1.5.4].
package enum UTF8Rules {
    /// Whether `bytes` are well-formed UTF-8 without surrogates and without U+0000
    /// [MQTT5-1.5.4-1, MQTT5-1.5.4-2].
    ///
    /// - Complexity: O(bytes)
    package static func areValid(_ bytes: some Collection<UInt8>) -> Bool {
        var decoder = Unicode.UTF8.ForwardParser()
        var iterator = bytes.makeIterator()
        while true {
            switch decoder.parseScalar(from: &iterator) {
            case .valid(let scalar):
                if scalar.first == 0 { return false }
            case .error:
                return false
            case .emptyInput:
                return true
            }
        }
    }
}
