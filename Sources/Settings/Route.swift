import GatewayCore
import MQTT

/// A route's two topic templates made into a filter and a change of Topic Name.
///
/// Each side is a literal prefix and a tail from its first wildcard on; the tails must be the same, and so
/// only the prefix changes: `sensors/#` to `site/7/sensors/#` makes `sensors` into `site/7/sensors`.
struct RouteTemplate {
    var filter: TopicFilter
    var rename: TopicRename?

    struct Refusal: Error {
        var isAboutTarget: Bool
        var wrong: String
        var write: String
    }

    /// - Parameters:
    ///   - source: what is carried, after `${gateway}` was filled in.
    ///   - target: what it becomes; nil leaves topics as they are.
    init(from source: String, to target: String?) throws(Refusal) {
        let from = try Self.filter(source, isTarget: false)
        guard let target else {
            self.init(filter: from, rename: nil)
            return
        }
        let to = try Self.filter(target, isTarget: true)
        let (fromPrefix, fromTail) = Self.split(from.bytes)
        let (toPrefix, toTail) = Self.split(to.bytes)
        guard fromTail == toTail else {
            let tail = String(decoding: fromTail, as: UTF8.self)
            let shown = String(decoding: toPrefix, as: UTF8.self)
            throw Refusal(
                isAboutTarget: true,
                wrong:
                    "only what stands before the first wildcard can change: from there on \"\(source)\" and "
                    + "\"\(target)\" must be the same",
                write:
                    "to: \"\(shown)\(tail.isEmpty || shown.hasSuffix("/") || shown.isEmpty ? "" : "/")\(tail)\""
            )
        }
        guard fromPrefix != toPrefix else {
            self.init(filter: from, rename: nil)
            return
        }
        let isWhole = fromTail.elementsEqual("#".utf8)
        if isWhole, !fromPrefix.isEmpty, !toPrefix.isEmpty {
            // "a/#" also matches "a" [MQTT5-4.7.1.2], which has no slash to replace: it stays with the tail.
            let rename = TopicRename(dropping: fromPrefix.count - 1, prepending: Array(toPrefix.dropLast()))
            self.init(filter: from, rename: rename)
        } else if isWhole, !fromPrefix.isEmpty {
            // "a/#" to "#" would leave nothing of "a": one level at least is asked for.
            let narrowed = TopicFilter(Array(fromPrefix) + Array("+/#".utf8))
            self.init(
                filter: narrowed ?? from, rename: TopicRename(dropping: fromPrefix.count, prepending: []))
        } else {
            self.init(
                filter: from, rename: TopicRename(dropping: fromPrefix.count, prepending: Array(toPrefix)))
        }
    }

    private init(filter: TopicFilter, rename: TopicRename?) {
        self.filter = filter
        self.rename = rename
    }

    private static func filter(_ text: String, isTarget: Bool) throws(Refusal) -> TopicFilter {
        guard let filter = TopicFilter(text) else {
            throw Refusal(
                isAboutTarget: isTarget,
                wrong: "\"\(text)\" is not a topic filter: # stands alone and last, + stands "
                    + "alone in its level",
                write: "a filter such as \"sensors/#\" or \"sensors/+/temperature\"")
        }
        guard filter.shareName == nil else {
            throw Refusal(
                isAboutTarget: isTarget, wrong: "a route cannot be a shared subscription",
                write: "\"\(String(decoding: filter.pattern, as: UTF8.self))\"")
        }
        return filter
    }

    /// The literal levels with their last slash, and the rest from the first wildcard on.
    private static func split(_ filter: [UInt8]) -> (prefix: ArraySlice<UInt8>, tail: ArraySlice<UInt8>) {
        // A wildcard stands alone in its level, so that it begins at a level's boundary.
        let wildcard = filter.firstIndex { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") }
        return (filter[..<(wildcard ?? filter.endIndex)], filter[(wildcard ?? filter.endIndex)...])
    }
}

/// `${gateway}` in a topic template.
enum Variables {
    struct Unknown: Error {
        /// As written, `${` and `}` included.
        var written: String
    }

    /// - Complexity: O(bytes)
    static func fill(_ text: String, gateway: String) throws(Unknown) -> String {
        var result = ""
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            let after = rest.index(after: dollar)
            guard after < rest.endIndex, rest[after] == "{" else {
                // A lone $ begins topics such as $aws/things.
                result += rest[...dollar]
                rest = rest[after...]
                continue
            }
            let close = rest[after...].firstIndex(of: "}")
            let end = close.map { rest.index(after: $0) } ?? rest.endIndex
            guard rest[dollar..<end] == "${gateway}" else {
                throw Unknown(written: String(rest[dollar..<end]))
            }
            result += rest[..<dollar] + gateway
            rest = rest[end...]
        }
        return result + rest
    }
}
