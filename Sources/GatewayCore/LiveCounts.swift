import DequeModule

/// How many deliveries still need the message Records of each stretch of the journal, so that the journal
/// knows what it may delete without walking any queue.
struct LiveCounts {
    /// Records a stretch; a stretch that straddles two segments holds both until it is settled.
    private static let stretch: UInt64 = 1024

    private var counts: Deque<Int32> = []
    /// The stretch of `counts[0]`.
    private var first: UInt64 = 0

    mutating func retain(_ position: Position) {
        let stretch = position.number / Self.stretch
        if counts.isEmpty { first = stretch }
        while stretch < first {
            counts.prepend(0)
            first -= 1
        }
        while stretch >= first + UInt64(counts.count) { counts.append(0) }
        counts[Int(stretch - first)] += 1
    }

    mutating func release(_ position: Position) {
        let stretch = position.number / Self.stretch
        guard stretch >= first, stretch < first + UInt64(counts.count) else { return }
        counts[Int(stretch - first)] -= 1
        while counts.first == 0 {
            counts.removeFirst()
            first += 1
        }
    }

    /// - Complexity: O(stretches in between)
    func isOwed(from low: Position, through high: Position) -> Bool {
        let end = first + UInt64(counts.count)
        let from = max(low.number / Self.stretch, first)
        let through = high.number / Self.stretch
        guard from <= through, from < end else { return false }
        return counts[Int(from - first)...Int(min(through, end - 1) - first)].contains { $0 > 0 }
    }
}
