import DequeModule
import MQTT

/// Consecutive deliveries of a queue without entries in memory.
struct Hole {
    var first: Delivery
    /// How many.
    var span: UInt64
    /// The stretch whose index has them all, none of them settled: a page. nil when all are settled: a gap.
    var stretch: Stretch?
    /// Of the messages of a page.
    var bytes: Int

    var end: Delivery { Delivery(first.number + span) }
}

// The middle of a long queue is on flash alone. When a stretch of the log is complete, entries far from being sent
// become a page: their numbers, and the stretch whose index finds them again. What is taken out of the middle of a
// page splits it, so that each delivery of a page is owed and counts stay exact without reading any index.
extension MessageQueue {
    /// Fewer entries than this take less memory than a page.
    private static let pageSpanMin = 4

    // MARK: Finding

    /// The place of a delivery's entry; nil when it has none.
    ///
    /// - Complexity: O(1) before the first hole and behind the last, else O(holes)
    func index(of delivery: Delivery) -> Int? {
        guard delivery >= floor, delivery < end else { return nil }
        guard let first = holes.first, let last = holes.last, delivery >= first.first else {
            return Int(delivery.number - floor.number)
        }
        if delivery >= last.end { return entries.count - Int(end.number - delivery.number) }
        var index = delivery.number - floor.number
        for hole in holes {
            if delivery < hole.first { break }
            if delivery < hole.end { return nil }
            index -= hole.span
        }
        return Int(index)
    }

    /// The delivery of an entry.
    ///
    /// - Complexity: O(holes before it)
    func delivery(at index: Int) -> Delivery {
        var number = floor.number + UInt64(index)
        for hole in holes {
            if number < hole.first.number { break }
            number += hole.span
        }
        return Delivery(number)
    }

    /// How many entries come before the first page.
    ///
    /// - Complexity: O(gaps before it)
    var headCount: Int {
        guard pagedCount > 0 else { return entries.count }
        var skipped: UInt64 = 0
        for hole in holes {
            if hole.stretch != nil { return Int(hole.first.number - floor.number - skipped) }
            skipped += hole.span
        }
        return entries.count
    }

    /// Where the gap that `delivery` is in ends; nil when it is in none.
    func gap(at delivery: Delivery) -> Delivery? {
        guard let i = holeIndex(of: delivery), holes[i].stretch == nil else { return nil }
        return holes[i].end
    }

    /// Of its message; of one in a page about.
    func bytes(of delivery: Delivery) -> Int {
        if let i = index(of: delivery) { return Int(entries[i].bytes) }
        return holeIndex(of: delivery).map { holes[$0].share(of: 1) } ?? 0
    }

    /// Where the hole that `delivery` is in ends.
    func pageEnd(at delivery: Delivery) -> Delivery {
        holeIndex(of: delivery).map { holes[$0].end } ?? Delivery(delivery.number + 1)
    }

    func isPaged(_ delivery: Delivery) -> Bool {
        holeIndex(of: delivery).map { holes[$0].stretch != nil } ?? false
    }

    /// The stretch whose index has a delivery; nil when it is in no page.
    func stretch(of delivery: Delivery) -> Stretch? { holeIndex(of: delivery).flatMap { holes[$0].stretch } }

    /// Whether the message of a delivery is needed yet.
    func needs(_ delivery: Delivery) -> Bool {
        if let i = index(of: delivery) { return entries[i].position != .zero }
        return isPaged(delivery)
    }

    /// Whether the messages of all these deliveries are needed yet; no where that is not seen at a glance.
    ///
    /// - Complexity: O(log holes) within a page, else O(deliveries)
    func needsAll(_ deliveries: ClosedRange<Delivery>) -> Bool {
        let (first, last) = (deliveries.lowerBound, deliveries.upperBound)
        if let page = holeIndex(of: first) { return holes[page].stretch != nil && last < holes[page].end }
        guard let low = index(of: first), let high = index(of: last) else { return false }
        return UInt64(high - low) == last.number - first.number
            && entries[low...high].allSatisfy { $0.position != .zero }
    }

    /// Calls `body` with the position of each Record needed that is known here, and with the stretch and the count
    /// of each page.
    ///
    /// - Complexity: O(entries in memory + pages)
    func forEachNeeded(_ body: (Position) -> Void, paged: (Stretch, Int) -> Void) {
        for entry in entries where entry.position != .zero { body(entry.position) }
        for hole in holes { if let stretch = hole.stretch { paged(stretch, Int(hole.span)) } }
    }

    /// Positions in `stretch` of entries that its index does not name.
    ///
    /// - Complexity: O(entries in memory) in a queue that has any, else O(1)
    func addStrayPositions(in stretch: Stretch, to positions: inout Set<Position>) {
        guard strayCount > 0 else { return }
        for entry in entries where entry.isStray && stretch.contains(entry.position) {
            positions.insert(entry.position)
        }
    }

    /// - Complexity: O(log holes)
    private func holeIndex(of delivery: Delivery) -> Int? {
        let i = holeCount(upTo: delivery) - 1
        return i >= 0 && delivery < holes[i].end ? i : nil
    }

    /// How many holes begin at or before `delivery`.
    private func holeCount(upTo delivery: Delivery) -> Int {
        holes.partitioningIndex { $0.first > delivery }
    }

    // MARK: Out of memory

    /// Makes pages of what is waiting in `stretch` far behind `next`.
    ///
    /// - Parameters:
    ///   - next: what is sent next.
    ///   - count: how many entries stay in memory from there on.
    ///   - moved: is called with each position that only the index knows from now on.
    /// - Complexity: O(entries in memory), and O(1) for a short queue
    mutating func pageOut(
        _ stretch: Stretch, behind next: Delivery, keeping count: Int, moved: (Position) -> Void
    ) {
        guard entries.count > count else { return }
        let start = firstToPageOut(behind: next, keeping: count)
        guard start < entries.count else { return }
        while resident.count > start, let last = resident.popLast() {
            residentBytes -= last?.message.bytes.count ?? 0
        }
        let candidates = Array(entries[start...])
        var delivery = self.delivery(at: start)
        let known = holeCount(upTo: delivery)
        var behind = Array(holes[known...])[...]
        entries.removeLast(candidates.count)
        holes.removeLast(holes.count - known)
        var run: (first: Delivery, range: Range<Int>) = (delivery, 0..<0)
        for (i, entry) in candidates.enumerated() {
            while let hole = behind.first, hole.first == delivery {
                closeRun(&run, of: candidates, in: stretch, moved)
                holes.append(behind.removeFirst())
                delivery = hole.end
            }
            if entry.phase == .waiting, !entry.isStray, delivery >= next, stretch.contains(entry.position) {
                if run.range.isEmpty { run = (delivery, i..<i) }
                run.range = run.range.lowerBound..<i + 1
            } else {
                closeRun(&run, of: candidates, in: stretch, moved)
                entries.append(entry)
            }
            delivery = Delivery(delivery.number + 1)
        }
        closeRun(&run, of: candidates, in: stretch, moved)
        holes.append(contentsOf: behind)
    }

    /// Behind the last page all may go, and in a queue without pages what is too much.
    private func firstToPageOut(behind next: Delivery, keeping count: Int) -> Int {
        guard pagedCount > 0, let last = holes.last(where: { $0.stretch != nil }) else {
            let first = index(of: max(next, floor)) ?? (next < end ? 0 : entries.count)
            return first + count
        }
        return entries.count - tailCount(from: last.end)
    }

    /// How many entries there are at or after `delivery`.
    private func tailCount(from delivery: Delivery) -> Int {
        var count = end.number - delivery.number
        for hole in holes where hole.first >= delivery { count -= hole.span }
        return Int(count)
    }

    private mutating func closeRun(
        _ run: inout (first: Delivery, range: Range<Int>), of candidates: [Entry], in stretch: Stretch,
        _ moved: (Position) -> Void
    ) {
        let entries = candidates[run.range]
        run.range = 0..<0
        guard entries.count >= Self.pageSpanMin else {
            self.entries.append(contentsOf: entries)
            return
        }
        var bytes = 0
        for entry in entries {
            bytes += Int(entry.bytes)
            moved(entry.position)
        }
        pagedCount += entries.count
        holes.append(Hole(first: run.first, span: UInt64(entries.count), stretch: stretch, bytes: bytes))
    }

    // MARK: Back into memory

    /// The stretch whose index is needed so that `count` entries at or after `next` are in memory; nil while one is
    /// on its way or none is needed.
    mutating func stretchToIndex(from next: Delivery, keeping count: Int) -> Stretch? {
        guard pagedCount > 0, !isIndexing, let page = holes.first(where: { $0.stretch != nil }) else {
            return nil
        }
        let passed = index(of: max(next, floor)) ?? (next < page.first ? 0 : headCount)
        guard next >= page.first || headCount - passed < count else { return nil }
        isIndexing = true
        return page.stretch
    }

    /// Those of the next `count` deliveries in pages of `stretch` that its index does not have.
    ///
    /// - Complexity: O(count · log postings)
    func missing(in postings: [Posting], of stretch: Stretch, atMost count: Int) -> [Delivery] {
        var missing: [Delivery] = []
        var left = UInt64(count)
        for hole in holes where hole.stretch != nil {
            guard hole.stretch == stretch, left > 0 else { break }
            let span = min(left, hole.span)
            left -= span
            for number in hole.first.number..<hole.first.number + span
            where Self.posting(of: Delivery(number), in: postings) == nil {
                missing.append(Delivery(number))
            }
        }
        return missing
    }

    /// Makes entries of the next `count` deliveries in pages of `stretch`; what its index does not have stays in the
    /// page.
    ///
    /// - Parameter moved: is called with each position that is known here from now on.
    /// - Complexity: O(count + postings of these pages)
    mutating func pageIn(
        _ postings: [Posting], of stretch: Stretch, atMost count: Int, moved: (Position) -> Void
    ) {
        var left = count
        while left > 0, let h = holes.firstIndex(where: { $0.stretch != nil }), holes[h].stretch == stretch {
            let place = headCount
            let first = holes[h].first
            var next = Self.firstPosting(from: first, in: postings)
            var new: [Entry] = []
            while new.count < min(left, Int(clamping: holes[h].span)) {
                let delivery = Delivery(first.number + UInt64(new.count))
                guard let posting = Self.posting(of: delivery, in: postings, from: &next) else { break }
                moved(posting.position)
                new.append(
                    Entry(
                        position: posting.position, bytes: posting.bytes, qos: posting.qos, phase: .waiting,
                        isStray: false))
            }
            guard !new.isEmpty else { return }
            left -= new.count
            pagedCount -= new.count
            waitingBytes -= holes[h].bytes
            for entry in new { waitingBytes += Int(entry.bytes) }
            if new.count == Int(clamping: holes[h].span) {
                holes.remove(at: h)
            } else {
                holes[h].first = Delivery(first.number + UInt64(new.count))
                holes[h].span -= UInt64(new.count)
                holes[h].bytes = Self.bytes(from: holes[h].first, to: holes[h].end, in: postings[next...])
                waitingBytes += holes[h].bytes
            }
            entries.insert(contentsOf: new, at: place)
        }
    }

    private static func firstPosting(from delivery: Delivery, in postings: [Posting]) -> Int {
        postings.partitioningIndex { $0.delivery >= delivery }
    }

    private static func posting(of delivery: Delivery, in postings: [Posting]) -> Posting? {
        var next = firstPosting(from: delivery, in: postings)
        return posting(of: delivery, in: postings, from: &next)
    }

    private static func posting(
        of delivery: Delivery, in postings: [Posting], from next: inout Int
    ) -> Posting? {
        while next < postings.count, postings[next].delivery < delivery { next += 1 }
        guard next < postings.count, postings[next].delivery == delivery else { return nil }
        return postings[next]
    }

    private static func bytes(from first: Delivery, to end: Delivery, in postings: ArraySlice<Posting>) -> Int
    {
        var bytes = 0
        var last: Delivery?
        for posting in postings where posting.delivery >= first && posting.delivery != last {
            guard posting.delivery < end else { break }
            bytes += Int(posting.bytes)
            last = posting.delivery
        }
        return bytes
    }

    // MARK: Gaps

    /// Everything before `delivery` that has not come is settled.
    mutating func openGap(to delivery: Delivery) {
        guard delivery > end else { return }
        let span = delivery.number - end.number
        if let last = holes.last, last.stretch == nil, last.end == end {
            holes[holes.count - 1].span += span
        } else {
            holes.append(Hole(first: end, span: span, stretch: nil, bytes: 0))
        }
        end = delivery
        passGapAtFloor()
    }

    /// The floor never stands before a gap.
    mutating func passGapAtFloor() {
        guard let gap = holes.first, gap.first == floor, gap.stretch == nil else { return }
        floor = gap.end
        holes.removeFirst()
    }

    // MARK: Records about what is in a page

    /// A delivery in a page is settled by Record; does nothing about any other.
    mutating func settlePaged(_ delivery: Delivery, into released: inout Released) {
        guard let h = cutPage(at: delivery, into: &released) else { return }
        // With a gap on either side it is one gap.
        var gap = Hole(first: delivery, span: 1, stretch: nil, bytes: 0)
        var range = h..<h
        if h > 0, holes[h - 1].stretch == nil, holes[h - 1].end == delivery {
            gap = Hole(first: holes[h - 1].first, span: holes[h - 1].span + 1, stretch: nil, bytes: 0)
            range = h - 1..<h
        }
        if h < holes.count, holes[h].stretch == nil, holes[h].first == gap.end {
            gap.span += holes[h].span
            range = range.lowerBound..<h + 1
        }
        holes.replaceSubrange(range, with: CollectionOfOne(gap))
        passGapAtFloor()
    }

    /// PUBREC came for a delivery in a page, and a Record says so: of the message nothing is needed any more.
    mutating func markPagedReceived(_ delivery: Delivery, into released: inout Released) {
        guard let h = cutPage(at: delivery, into: &released) else { return }
        var place = delivery.number - floor.number
        for hole in holes.prefix(h) { place -= hole.span }
        waitingCount += 1
        entries.insert(
            Entry(position: .zero, bytes: 0, qos: .exactlyOnce, phase: .received, isStray: true),
            at: Int(place))
        strayCount += 1
    }

    /// Takes one delivery out of its page.
    ///
    /// - Returns: where a hole for it alone belongs; nil when it is in no page.
    private mutating func cutPage(at delivery: Delivery, into released: inout Released) -> Int? {
        guard let h = holeIndex(of: delivery), let stretch = holes[h].stretch else { return nil }
        let page = holes[h]
        var before = page
        before.span = delivery.number - page.first.number
        before.bytes = page.share(of: before.span)
        var after = page
        after.first = Delivery(delivery.number + 1)
        after.span = page.span - before.span - 1
        after.bytes = min(page.bytes - before.bytes, page.share(of: after.span))
        pagedCount -= 1
        waitingCount -= 1
        waitingBytes -= page.bytes - before.bytes - after.bytes
        released.paged.append((stretch, 1))
        let parts = [before, after].filter { $0.span > 0 }
        holes.replaceSubrange(h...h, with: parts)
        return before.span > 0 ? h + 1 : h
    }

    /// The floor rises through the page it stands before.
    mutating func passPage(upTo newFloor: Delivery, into released: inout Released) {
        guard let page = holes.first, let stretch = page.stretch else { return }
        let span = newFloor.number - page.first.number
        var rest = page
        rest.first = newFloor
        rest.span = page.span - span
        rest.bytes = page.share(of: rest.span)
        pagedCount -= Int(span)
        waitingCount -= Int(span)
        waitingBytes -= page.bytes - rest.bytes
        released.paged.append((stretch, Int(span)))
        if rest.span == 0 { holes.removeFirst() } else { holes[0] = rest }
        floor = newFloor
    }
}

extension Hole {
    /// About the bytes of so many of a page's messages.
    fileprivate func share(of span: UInt64) -> Int {
        // Rounded up it could be more than all.
        span == self.span ? bytes : min(bytes, Int(Double(bytes) * Double(span) / Double(self.span)))
    }
}
