import MQTT

// How Topic Filters relate to each other: for rights, where a subscription asks for many topics at once. Both are about
// Topic Names as `matches` sees them: a leading wildcard is not about names that begin with `$` [MQTT5-4.7.2-1].
extension TopicFilter {
    /// Whether it matches every Topic Name that `other` matches. Only what is after `$share/name/` counts.
    ///
    /// - Complexity: O(bytes)
    func covers(_ other: TopicFilter) -> Bool {
        var (mine, theirs) = (TopicLevels(pattern), TopicLevels(other.pattern))
        if other.pattern.first == UInt8(ascii: "$"), Self.isWildcard(pattern.first) { return false }
        while true {
            switch (mine.next(), theirs.next()) {
            case (nil, nil): return true
            // "a" is covered by "a/#": the level above is matched as well [MQTT5-4.7.1-1].
            case (let a?, nil): return Self.isAll(a)
            case (nil, .some): return false
            case (let a?, let b?):
                if Self.isAll(a) { return true }
                guard !Self.isAll(b), Self.isAny(a) || a == b else { return false }
            }
        }
    }

    /// Whether there is a Topic Name that both match.
    ///
    /// - Complexity: O(bytes)
    func overlaps(_ other: TopicFilter) -> Bool {
        Self.overlap(pattern, other.pattern, isDollarApart: true)
    }

    /// The same of two patterns; a Topic Name is one that has no wildcards.
    ///
    /// - Parameter isDollarApart: whether a leading wildcard leaves names that begin with `$` out.
    /// - Complexity: O(bytes)
    static func overlap(
        _ one: ArraySlice<UInt8>, _ other: ArraySlice<UInt8>, isDollarApart: Bool
    ) -> Bool {
        var (mine, theirs) = (TopicLevels(one), TopicLevels(other))
        if isDollarApart {
            if one.first == UInt8(ascii: "$"), isWildcard(other.first) { return false }
            if other.first == UInt8(ascii: "$"), isWildcard(one.first) { return false }
        }
        while true {
            switch (mine.next(), theirs.next()) {
            case (nil, nil): return true
            case (nil, let rest?), (let rest?, nil): return isAll(rest)
            case (let a?, let b?):
                if isAll(a) || isAll(b) { return true }
                guard isAny(a) || isAny(b) || a == b else { return false }
            }
        }
    }

    private static func isWildcard(_ byte: UInt8?) -> Bool {
        byte == UInt8(ascii: "+") || byte == UInt8(ascii: "#")
    }
    private static func isAll(_ level: ArraySlice<UInt8>) -> Bool {
        level.count == 1 && level.first == UInt8(ascii: "#")
    }
    private static func isAny(_ level: ArraySlice<UInt8>) -> Bool {
        level.count == 1 && level.first == UInt8(ascii: "+")
    }
}
