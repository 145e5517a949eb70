/// The rules for Topic Names [MQTT5-4.7]. Names are bytes: walking UTF-8 is several times faster than
/// splitting Strings, and they arrive and leave as bytes.
package enum TopicName {
    /// Whether `bytes` may be a PUBLISH's Topic Name: 1 to 65 535 bytes of valid UTF-8 without U+0000 and
    /// without wildcards [MQTT5-4.7.0-1, MQTT5-4.7.3-1, MQTT5-4.7.3-2, MQTT5-4.7.3-3].
    ///
    /// - Complexity: O(bytes)
    package static func isValid(_ bytes: some Collection<UInt8>) -> Bool {
        let inPlace = bytes.withContiguousStorageIfAvailable {
            $0.count <= Int(UInt16.max) && check(UnsafeRawBufferPointer($0)) == nil
        }
        return inPlace ?? isValid(Array(bytes))
    }

    /// The rule that `bytes`, at most 65 535 of them, break as a Topic Name; nil when they are one.
    ///
    /// - Complexity: O(bytes)
    static func check(_ bytes: UnsafeRawBufferPointer) -> MalformedPacket? {
        guard !bytes.isEmpty else { return .emptyTopicName }
        guard UTF8Rules.areValid(bytes) else { return .invalidString }
        return hasWildcard(bytes) ? .wildcardInTopicName : nil
    }

    private static func hasWildcard(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var i = 0
        while bytes.count - i >= 8 {
            let word = bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self)
            if EightBytes.contain(UInt8(ascii: "+"), word) || EightBytes.contain(UInt8(ascii: "#"), word) {
                return true
            }
            i += 8
        }
        while i < bytes.count {
            if bytes[i] == UInt8(ascii: "+") || bytes[i] == UInt8(ascii: "#") { return true }
            i += 1
        }
        return false
    }
}

/// A Topic Filter that has passed the specification's rules [MQTT5-4.7].
package struct TopicFilter: Hashable, Sendable {
    package let bytes: [UInt8]
    /// Where `pattern` begins: behind `$share/name/`, or at the front.
    private let patternStart: Int

    /// For `$share/name/filter` the ShareName [MQTT5-4.8.2].
    package var shareName: ArraySlice<UInt8>? {
        patternStart == 0 ? nil : bytes[Self.sharePrefix.utf8.count..<patternStart - 1]
    }
    /// What is matched against Topic Names: `bytes` without any `$share/name/`.
    package var pattern: ArraySlice<UInt8> { bytes[patternStart...] }

    private static let sharePrefix = "$share/"

    /// For tables that are never walked by it. It is seeded anew in each process, so that nobody can choose filters
    /// that collide.
    ///
    /// - Complexity: O(bytes)
    package var tableHash: UInt64 { UInt64(truncatingIfNeeded: hashValue) }

    /// nil when the filter breaks a rule: empty, U+0000 or invalid UTF-8, `#` not alone in the last level,
    /// `+` not alone in its level, or a `$share` without a valid ShareName and filter [MQTT5-4.8.2-1].
    ///
    /// - Complexity: O(bytes)
    package init?(_ bytes: some Collection<UInt8>) {
        let bytes = Array(bytes)
        guard bytes.count <= Int(UInt16.max), UTF8Rules.areValid(bytes) else { return nil }
        var patternStart = 0
        if bytes.starts(with: Self.sharePrefix.utf8) {
            let rest = bytes[Self.sharePrefix.utf8.count...]
            guard let slash = rest.firstIndex(of: UInt8(ascii: "/")), slash > rest.startIndex else {
                return nil
            }
            let name = rest[..<slash]
            guard !name.contains(where: { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") }) else {
                return nil
            }
            patternStart = slash + 1
        }
        let pattern = bytes[patternStart...]
        guard !pattern.isEmpty, Self.wildcardsStandAlone(in: pattern) else { return nil }
        self.bytes = bytes
        self.patternStart = patternStart
    }

    package init?(_ text: String) { self.init(Array(text.utf8)) }

    /// Whether a Topic Name matches [MQTT5-4.7.2-1]: a leading wildcard does not match a leading `$`.
    ///
    /// - Complexity: O(bytes of the name)
    package func matches(_ topic: some Collection<UInt8>) -> Bool {
        let pattern = pattern
        let slash = UInt8(ascii: "/")
        var f = pattern.startIndex
        var t = topic.startIndex
        if topic.first == UInt8(ascii: "$"),
            pattern.first == UInt8(ascii: "+") || pattern.first == UInt8(ascii: "#")
        {
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
        let inPlace = bytes.withContiguousStorageIfAvailable { areValid(UnsafeRawBufferPointer($0)) }
        return inPlace ?? areValid(Array(bytes))
    }

    /// The same in place, eight bytes at a time while they are ASCII.
    static func areValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var i = 0
        while i < bytes.count {
            if bytes.count - i >= 8 {
                let word = bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self)
                if EightBytes.areASCII(word) {
                    guard !EightBytes.contain(0, word) else { return false }
                    i += 8
                    continue
                }
            }
            if bytes[i] &- 1 < 0x7F {
                i += 1
                continue
            }
            let length = scalarLength(bytes, at: i)
            guard length > 0 else { return false }
            i += length
        }
        return true
    }

    /// Bytes of the scalar value beyond ASCII that begins at `i`, or 0 where none does (the Unicode
    /// Standard's table 3-7).
    private static func scalarLength(_ bytes: UnsafeRawBufferPointer, at i: Int) -> Int {
        let first = bytes[i]
        let left = bytes.count - i
        switch first {
        case 0xC2...0xDF:
            return left >= 2 && isTail(bytes[i + 1]) ? 2 : 0
        case 0xE0...0xEF:
            guard left >= 3, isTail(bytes[i + 1]), isTail(bytes[i + 2]) else { return 0 }
            let isOverlong = first == 0xE0 && bytes[i + 1] < 0xA0
            let isSurrogate = first == 0xED && bytes[i + 1] > 0x9F
            return isOverlong || isSurrogate ? 0 : 3
        case 0xF0...0xF4:
            guard left >= 4, isTail(bytes[i + 1]), isTail(bytes[i + 2]), isTail(bytes[i + 3]) else {
                return 0
            }
            let isOverlong = first == 0xF0 && bytes[i + 1] < 0x90
            let isBeyondUnicode = first == 0xF4 && bytes[i + 1] > 0x8F
            return isOverlong || isBeyondUnicode ? 0 : 4
        default: return 0
        }
    }

    private static func isTail(_ byte: UInt8) -> Bool { byte & 0xC0 == 0x80 }
}

/// Questions about eight bytes at once.
enum EightBytes {
    private static let lowBits: UInt64 = 0x0101_0101_0101_0101
    private static let highBits: UInt64 = 0x8080_8080_8080_8080

    static func areASCII(_ word: UInt64) -> Bool { word & highBits == 0 }

    /// Whether one of them is `byte`: exact, for the borrow can only start at a byte that is.
    static func contain(_ byte: UInt8, _ word: UInt64) -> Bool {
        let difference = word ^ (lowBits &* UInt64(byte))
        return (difference &- lowBits) & ~difference & highBits != 0
    }
}
