import DequeModule

/// The ends of clients' Sessions that are not durable yet. A power cut brings such a Session back, so until then nobody
/// may be told that there is none, not even who comes for the second time (rule A9).
struct EndedSessions {
    private var positions: [String: Position] = [:]
    /// In the order of their Records.
    private var inOrder: Deque<(identifier: String, position: Position)> = []

    mutating func note(_ identifier: String, at position: Position) {
        positions[identifier] = position
        inOrder.append((identifier, position))
    }

    /// The Record of the last end of this client's Session, while it is not durable; nil when there is none.
    func position(of identifier: String) -> Position? {
        positions.isEmpty ? nil : positions[identifier]
    }

    /// - Complexity: O(forgotten)
    mutating func forget(through durable: Position) {
        while let first = inOrder.first, first.position <= durable {
            inOrder.removeFirst()
            if positions[first.identifier] == first.position { positions[first.identifier] = nil }
        }
    }
}
