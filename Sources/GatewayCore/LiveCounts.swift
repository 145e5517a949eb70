/// How many deliveries still need the message Records of each stretch of the journal, so that the journal
/// knows what it may delete without walking any queue.
struct LiveCounts {
    /// Records a stretch; a stretch that straddles two segments holds both until it is settled.
    private static let stretch: UInt64 = 1024

    /// By the number of the stretch; only stretches that are needed, so that a damaged journal's wildest
    /// position costs no more than any other.
    private var counts: [UInt64: Int32] = [:]

    mutating func retain(_ position: Position) { counts[position.number / Self.stretch, default: 0] += 1 }

    mutating func release(_ position: Position) {
        let stretch = position.number / Self.stretch
        guard let count = counts[stretch] else { return }
        counts[stretch] = count == 1 ? nil : count - 1
    }

    /// - Complexity: O(stretches from `low` through `high`, or stretches needed where they are fewer)
    func isOwed(from low: Position, through high: Position) -> Bool {
        guard low <= high else { return false }
        let stretches = low.number / Self.stretch...high.number / Self.stretch
        if stretches.upperBound - stretches.lowerBound >= UInt64(counts.count) {
            return counts.keys.contains { stretches.contains($0) }
        }
        return stretches.contains { counts[$0] != nil }
    }
}
