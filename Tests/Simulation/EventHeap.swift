/// What is to happen, by time, and what was planned first first.
struct EventHeap<Event> {
    private var items: [(time: UInt64, order: UInt64, event: Event)] = []
    private var nextOrder: UInt64 = 0

    var isEmpty: Bool { items.isEmpty }

    /// - Complexity: O(log count)
    mutating func add(_ event: Event, at time: UInt64) {
        items.append((time, nextOrder, event))
        nextOrder += 1
        var child = items.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard comes(child, before: parent) else { return }
            items.swapAt(child, parent)
            child = parent
        }
    }

    /// - Complexity: O(log count)
    mutating func next() -> (time: UInt64, event: Event)? {
        guard let first = items.first else { return nil }
        let last = items.removeLast()
        guard !items.isEmpty else { return (first.time, first.event) }
        items[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < items.count {
                if comes(child, before: least) { least = child }
            }
            if least == parent { return (first.time, first.event) }
            items.swapAt(parent, least)
            parent = least
        }
    }

    private func comes(_ a: Int, before b: Int) -> Bool {
        (items[a].time, items[a].order) < (items[b].time, items[b].order)
    }
}
