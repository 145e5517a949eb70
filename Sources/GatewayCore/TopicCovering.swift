import MQTT

// How Topic Filters relate to each other: for rights, where a subscription asks for many topics at once, and for routes.
extension TopicFilter {
    /// Whether it matches every Topic Name that `other` matches: with a leading wildcard none that begins with `$`
    /// [MQTT5-4.7.2-1]. Only what is after `$share/name/` counts.
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

    /// Whether there is a name that both spell. A leading wildcard spells names that begin with `$` as well, which it does
    /// not match: what is excepted from a route, or denied, is so whatever it begins with.
    ///
    /// - Complexity: O(bytes)
    package func overlaps(_ other: TopicFilter) -> Bool { overlaps(other.pattern) }

    /// The same of the pattern of another; a Topic Name is one that has no wildcards.
    func overlaps(_ other: ArraySlice<UInt8>) -> Bool {
        var (mine, theirs) = (TopicLevels(pattern), TopicLevels(other))
        while true {
            switch (mine.next(), theirs.next()) {
            case (nil, nil): return true
            // "sport/#" also matches "sport" [MQTT5-4.7.1-1].
            case (nil, let rest?), (let rest?, nil): return Self.isAll(rest)
            case (let a?, let b?):
                if Self.isAll(a) || Self.isAll(b) { return true }
                guard Self.isAny(a) || Self.isAny(b) || a == b else { return false }
            }
        }
    }

    /// Whether a rule of `deny` forbids a topic: it means what it says, and `#` is everything, also where no subscription's
    /// leading wildcard reaches [MQTT5-4.7.2-1].
    func denies(topic: ArraySlice<UInt8>) -> Bool { overlaps(topic) }

    /// Whether it forbids a subscription, because that asks for a topic that it forbids.
    func denies(subscribingTo filter: TopicFilter) -> Bool {
        // By a leading wildcard nothing comes whose name begins with `$`.
        if pattern.first == UInt8(ascii: "$"), Self.isWildcard(filter.pattern.first) { return false }
        return overlaps(filter)
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
