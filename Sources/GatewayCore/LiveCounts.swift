import DequeModule

/// How many deliveries still need the message Records of each part of the journal, so that the journal knows what
/// it may delete without walking any queue.
struct LiveCounts {
    /// Records a block, as a power of two; a block that straddles two segments holds both until it is settled.
    /// Changed only before anything is counted.
    var blockBits: UInt64 = 10
    /// Blocks counted in a row, a few bytes each.
    private static let rowMax: UInt64 = 65_536

    /// Of blocks from `rowFirst` on; neither the first nor the last is 0.
    private var row: Deque<Int32> = []
    private var rowFirst: UInt64 = 0
    /// Of blocks far from those, so that a damaged journal's wildest position costs no more than any other.
    private var far: [UInt64: Int32] = [:]
    /// Of deliveries in pages, whose positions are known to the index alone.
    private var paged: [Stretch: Int] = [:]

    mutating func retain(_ position: Position) {
        guard position != .zero else { return }
        let block = position.number >> blockBits
        if row.isEmpty { rowFirst = block }
        let place = block &- rowFirst
        if place < UInt64(row.count) {
            row[Int(place)] += 1
        } else if place < Self.rowMax {
            for _ in UInt64(row.count)..<place { row.append(0) }
            row.append(1)
        } else {
            far[block, default: 0] += 1
        }
    }

    mutating func release(_ position: Position) {
        let block = position.number >> blockBits
        let place = block &- rowFirst
        if place < UInt64(row.count), row[Int(place)] > 0 {
            row[Int(place)] -= 1
            while row.first == 0 {
                row.removeFirst()
                rowFirst += 1
            }
            while row.last == 0 { row.removeLast() }
        } else if let count = far[block] {
            far[block] = count == 1 ? nil : count - 1
        }
    }

    mutating func retain(paged count: Int, in stretch: Stretch) {
        paged[stretch] = Self.sum(paged[stretch, default: 0], count)
    }

    /// Far beyond what any store holds, but the pages that a damaged journal speaks of may come to more.
    private static let sumMax = 1 << 61

    private static func sum(_ a: Int, _ b: Int) -> Int { min(min(a, sumMax) + min(b, sumMax), sumMax) }

    mutating func release(paged count: Int, in stretch: Stretch) {
        guard let known = paged[stretch] else { return }
        paged[stretch] = known > count ? known - count : nil
    }

    /// How many deliveries need Records of `stretch`; those that share a block or overlap count with it.
    ///
    /// - Complexity: O(blocks of the stretch + stretches with pages + blocks far away)
    func count(in stretch: Stretch) -> Int {
        var count = 0
        for (other, paged) in paged where other.first <= stretch.last && stretch.first <= other.last {
            count = Self.sum(count, paged)
        }
        let blocks = stretch.first.number >> blockBits...max(stretch.first, stretch.last).number >> blockBits
        for (block, owed) in far where blocks.contains(block) { count += Int(owed) }
        guard !row.isEmpty, blocks.upperBound >= rowFirst else { return count }
        let first = max(blocks.lowerBound, rowFirst) - rowFirst
        let last = min(blocks.upperBound - rowFirst, UInt64(row.count) - 1)
        guard first <= last else { return count }
        return row[Int(first)...Int(last)].reduce(count) { $0 + Int($1) }
    }

    /// - Complexity: O(blocks from `low` through `high` + stretches with pages)
    func isOwed(from low: Position, through high: Position) -> Bool {
        guard low <= high else { return false }
        if paged.keys.contains(where: { $0.first <= high && low <= $0.last }) { return true }
        let blocks = low.number >> blockBits...high.number >> blockBits
        if far.keys.contains(where: { blocks.contains($0) }) { return true }
        guard !row.isEmpty, blocks.upperBound >= rowFirst else { return false }
        let first = max(blocks.lowerBound, rowFirst) - rowFirst
        let last = min(blocks.upperBound - rowFirst, UInt64(row.count) - 1)
        return first <= last && row[Int(first)...Int(last)].contains { $0 != 0 }
    }
}
