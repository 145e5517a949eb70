import MQTT

/// The retained message of each topic [MQTT5-3.3.1.3].
package struct RetainedStore {
    private var tree = TopicTree<RetainedRecord>()
    package private(set) var count = 0
    /// Of all messages: topics, properties and payloads.
    package private(set) var bytes = 0

    /// - Complexity: O(levels)
    subscript(topic: ArraySlice<UInt8>) -> RetainedRecord? { tree[topic] }

    /// - Complexity: O(levels)
    mutating func store(_ record: RetainedRecord) {
        var replaced: RetainedRecord?
        tree.update(record.message.topic) { value in
            replaced = value
            value = record
        }
        if replaced == nil { count += 1 }
        bytes += record.message.bytes.count - (replaced?.message.bytes.count ?? 0)
    }

    /// - Complexity: O(levels)
    mutating func clear(_ topic: ArraySlice<UInt8>) {
        var removed: RetainedRecord?
        tree.update(topic) { value in
            removed = value
            value = nil
        }
        guard let removed else { return }
        count -= 1
        bytes -= removed.message.bytes.count
    }

    /// All that match, in the order of their topics' levels.
    ///
    /// - Complexity: O(topics under the filter's literal prefix)
    func matching(_ filter: TopicFilter) -> [RetainedRecord] {
        var found: [RetainedRecord] = []
        collect(Array(TopicLevels(filter.pattern))[...], TopicTree<RetainedRecord>.root, first: true, &found)
        return found
    }

    /// All, in the order of their topics' levels.
    ///
    /// - Complexity: O(topics)
    var all: [RetainedRecord] {
        var found: [RetainedRecord] = []
        collectAll(TopicTree<RetainedRecord>.root, skippingDollar: false, &found)
        return found
    }

    private func collect(
        _ levels: ArraySlice<ArraySlice<UInt8>>, _ node: Int, first: Bool, _ found: inout [RetainedRecord]
    ) {
        guard let level = levels.first else {
            if let value = tree.value(at: node) { found.append(value) }
            return
        }
        if level.elementsEqual("#".utf8) {
            collectAll(node, skippingDollar: first, &found)
        } else if level.elementsEqual("+".utf8) {
            for (name, child) in tree.children(of: node) where !(first && name.first == UInt8(ascii: "$")) {
                collect(levels.dropFirst(), child, first: false, &found)
            }
        } else if let child = tree.child(of: node, level) {
            collect(levels.dropFirst(), child, first: false, &found)
        }
    }

    private func collectAll(_ node: Int, skippingDollar: Bool, _ found: inout [RetainedRecord]) {
        if let value = tree.value(at: node) { found.append(value) }
        for (name, child) in tree.children(of: node)
        where !(skippingDollar && name.first == UInt8(ascii: "$")) {
            collectAll(child, skippingDollar: false, &found)
        }
    }
}
