/// The levels of a Topic Name or Topic Filter without copying a byte.
struct TopicLevels: Sequence, IteratorProtocol {
    private var rest: ArraySlice<UInt8>?

    init(_ topic: ArraySlice<UInt8>) { rest = topic }

    mutating func next() -> ArraySlice<UInt8>? {
        guard let current = rest else { return nil }
        guard let slash = current.firstIndex(of: UInt8(ascii: "/")) else {
            rest = nil
            return current
        }
        rest = current[(slash + 1)...]
        return current[..<slash]
    }

    /// - Complexity: O(bytes)
    static func count(in topic: ArraySlice<UInt8>) -> Int {
        topic.reduce(1) { $1 == UInt8(ascii: "/") ? $0 + 1 : $0 }
    }
}

/// A tree of topic levels with a value at each node, in one array: what subscriptions and retained messages
/// are both found by. Wildcard levels have a place of their own in each node: every message asks for them at
/// every level, and mostly in vain.
struct TopicTree<Value> {
    private struct Node {
        var parent: Int
        var level: ArraySlice<UInt8>
        /// The children that are not for wildcards: a few in a list, which is looked through sooner than a level is
        /// hashed, and more in a table; one of the two is empty.
        var few: [Int] = []
        var many: [ArraySlice<UInt8>: Int] = [:]
        /// The child for `+`, and the one for `#`.
        var singleLevel: Int?
        var multiLevel: Int?
        var value: Value?
    }

    private var nodes = [Node(parent: -1, level: [])]
    private var free: [Int] = []

    static var root: Int { 0 }
    private static var fewMax: Int { 8 }

    func singleLevel(of node: Int) -> Int? { nodes[node].singleLevel }
    func multiLevel(of node: Int) -> Int? { nodes[node].multiLevel }

    func child(of node: Int, _ level: ArraySlice<UInt8>) -> Int? {
        if level.count == 1 {
            if level.first == UInt8(ascii: "+") { return nodes[node].singleLevel }
            if level.first == UInt8(ascii: "#") { return nodes[node].multiLevel }
        }
        return namedChild(of: node, level)
    }
    func value(at node: Int) -> Value? { nodes[node].value }

    /// All children but those for wildcards, in the order of their bytes: a stated order, so that the outcome is the same everywhere.
    ///
    /// - Complexity: O(children · log children)
    func children(of node: Int) -> [(level: ArraySlice<UInt8>, node: Int)] {
        (nodes[node].few + nodes[node].many.values).map { (nodes[$0].level, $0) }
            .sorted { $0.0.lexicographicallyPrecedes($1.0) }
    }

    /// - Complexity: O(levels)
    subscript(path: ArraySlice<UInt8>) -> Value? {
        var node = Self.root
        for level in TopicLevels(path) {
            guard let next = child(of: node, level) else { return nil }
            node = next
        }
        return nodes[node].value
    }

    /// Changes the value at a path in place; nil afterwards removes it, and every node that only led there.
    ///
    /// - Complexity: O(levels)
    mutating func update(_ path: ArraySlice<UInt8>, _ body: (inout Value?) -> Void) {
        var node = Self.root
        for level in TopicLevels(path) { node = child(of: node, level) ?? addChild(to: node, level) }
        body(&nodes[node].value)
        while node != Self.root, nodes[node].value == nil, isLeaf(node) {
            let parent = nodes[node].parent
            setChild(of: parent, nodes[node].level, to: nil)
            nodes[node].level = []
            free.append(node)
            node = parent
        }
    }

    private mutating func addChild(to parent: Int, _ level: ArraySlice<UInt8>) -> Int {
        // A copy, so that a node does not keep the whole of a longer array alive.
        let level = ArraySlice(Array(level))
        let new = free.popLast() ?? nodes.count
        if new == nodes.count {
            nodes.append(Node(parent: parent, level: level))
        } else {
            nodes[new] = Node(parent: parent, level: level)
        }
        setChild(of: parent, level, to: new)
        return new
    }

    private mutating func setChild(of node: Int, _ level: ArraySlice<UInt8>, to child: Int?) {
        switch level.count == 1 ? level.first : nil {
        case UInt8(ascii: "+"): nodes[node].singleLevel = child
        case UInt8(ascii: "#"): nodes[node].multiLevel = child
        case .some, nil: setNamedChild(of: node, level, to: child)
        }
    }

    private func namedChild(of node: Int, _ level: ArraySlice<UInt8>) -> Int? {
        guard nodes[node].many.isEmpty else { return nodes[node].many[level] }
        return nodes[node].few.first { nodes[$0].level == level }
    }

    /// - Parameter child: a new one, or nil for the one that is there.
    private mutating func setNamedChild(of node: Int, _ level: ArraySlice<UInt8>, to child: Int?) {
        let few = nodes[node].few
        guard nodes[node].many.isEmpty, few.count < Self.fewMax || child == nil else {
            for other in few { nodes[node].many[nodes[other].level] = other }
            nodes[node].few = []
            nodes[node].many[level] = child
            return
        }
        nodes[node].few = few.filter { nodes[$0].level != level } + (child.map { [$0] } ?? [])
    }

    private func isLeaf(_ node: Int) -> Bool {
        nodes[node].few.isEmpty && nodes[node].many.isEmpty && nodes[node].singleLevel == nil
            && nodes[node].multiLevel == nil
    }
}
