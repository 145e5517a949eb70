import GatewayCore
import Testing

@testable import Journal

/// A disk may write a page to the wrong place, or lead two places to one page. What stands there is intact and was
/// written by us, into this very file; only the place is another's.
///
/// Every pair of pages of one file is tried. What a whole gateway makes of some of them is in
/// `ServingDamagedStoresTests`.
@Suite("Pages in the place of others")
struct MisplacedPagesTests {
    /// What a store is like after one page of a file took the place of another, or two changed places.
    private struct Mixed {
        var disk: FaultDisk
        var name: String
        /// The bytes that are not what was written there.
        var ranges: [Range<Int>]
        /// The Records of batches that have bytes there.
        var touched: Set<UInt64>
        var what: String
    }

    /// Tries each page of each segment and merged file in the place of each other, and each exchange of two, but not of
    /// a merged file's header and footer: where it belongs is in these alone, and it is put aside without both.
    private static func forEachMix(_ disk: FaultDisk, _ body: (Mixed) throws -> Void) throws -> Int {
        let map = BatchMap(disk, try #require(testStore))
        var count = 0
        for name in Set(map.batches.map(\.file)).sorted() {
            let bytes = disk.content(name)
            let pages = stride(from: 0, to: bytes.count, by: pageBytes).map { $0..<$0 + pageBytes }
            for from in pages {
                for to in pages where bytes[from] != bytes[to] {
                    let isHeaderWithFooter =
                        name.hasPrefix("old-") && from.lowerBound == 0
                        && !map.batches.contains { $0.file == name && $0.pages.upperBound > to.lowerBound }
                    for isSwap in [false, true]
                    where !isSwap || from.lowerBound < to.lowerBound && !isHeaderWithFooter {
                        var changed = bytes
                        changed.replaceSubrange(to, with: bytes[from])
                        if isSwap { changed.replaceSubrange(from, with: bytes[to]) }
                        let ranges = isSwap ? [from, to] : [to]
                        var mixed = Mixed(
                            disk: disk, name: name, ranges: ranges,
                            touched: Set(ranges.flatMap { map.positions(in: $0, of: name) }),
                            what:
                                "\(name), \(from.lowerBound) \(isSwap ? "and" : "in place of") \(to.lowerBound)"
                        )
                        mixed.disk.put(name, changed)
                        try body(mixed)
                        count += 1
                    }
                }
            }
        }
        return count
    }

    // MARK: Stores

    enum Kind: CaseIterable { case fresh, recycled, merged }

    private static func sample(_ kind: Kind) throws -> Rig {
        switch kind {
        case .fresh: try lived(Rig(try #require(testStore), plan: plan()))
        case .recycled: try lived(RecyclingTests.drained(20) { $0 = plan() })
        case .merged: try merged()
        }
    }

    private static func plan() -> JournalPlan {
        var plan = Rig.smallPlan()
        plan.segmentBytes = 28 << 10
        return plan
    }

    /// Complete segments with footers, one that a start cut short, and one that is written to, with batches of one page
    /// and of several. In those of files that are used again what was there before is behind them.
    private static func lived(_ rig: consuming Rig) throws -> Rig {
        var rig = rig
        for life in 0..<2 {
            for size in [10, 6000, 300, 9000, 20] {
                let payload = Samples.payload(10 * life + size, bytes: size)
                let delivery = rig.nextDelivery
                rig.append(Samples.plain("m/\(size)", delivery: delivery, payload: payload), .message)
                try rig.settle()
            }
            if life == 0 { try rig.restart() }
        }
        return rig
    }

    /// Merged files of several batches, each of several pages.
    private static func merged() throws -> Rig {
        var plan = CompactionTests.plan()
        plan.segmentBytes = 96 << 10
        var rig = try CompactionTests.pinned(24, every: 4, bytes: 9_000, plan: plan)
        try rig.liveOn(100)
        return rig
    }

    @Test("the samples have what they are for")
    func samples() throws {
        let store = try #require(testStore)
        for kind in Kind.allCases {
            let rig = try Self.sample(kind)
            let batches = BatchMap(rig.disk, store).batches
            let files = Dictionary(grouping: batches.filter { $0.pages.count > pageBytes }, by: \.file)
            switch kind {
            case .fresh: #expect(files.count >= 2 && batches.count >= 10)
            case .recycled:
                let stale = try files.keys.contains { name in
                    guard case .segment(let id) = StoreFile(name: name) else { return false }
                    let bytes = rig.disk.content(name)
                    let header = try SegmentHeader(decoding: bytes, segment: id)
                    let isOlder = { try (1..<id).contains { try Self.hasBatch(of: $0, bytes, store) } }
                    return try header.isRecycled && isOlder()
                }
                #expect(stale)
            case .merged: #expect(files.contains { $0.key.hasPrefix("old-") && $0.value.count > 1 })
            }
        }
    }

    private static func hasBatch(of segment: UInt64, _ bytes: [UInt8], _ store: StoreID) throws -> Bool {
        stride(from: pageBytes, to: bytes.count, by: pageBytes).contains { offset in
            (try? BatchHeader(decoding: bytes, at: offset, offset: offset, store: store, segment: segment))
                != nil
        }
    }

    // MARK: What is found

    private struct Found {
        var inspection: Inspection
        /// In the files, and behind the checkpoint.
        var records: [UInt64: Record]
        var replayed: [UInt64: Record]

        init(_ disk: FaultDisk) throws {
            var disk = disk
            var records: [UInt64: Record] = [:]
            var replayed: [UInt64: Record] = [:]
            inspection = try Inspection.inspect(&disk) { record, position in
                if position > .zero { replayed[position.number] = record }
            } found: {
                records[$0.position.number] = $0.record
            }
            self.records = records
            self.replayed = replayed
        }
    }

    @Test(
        "recovery and inspection find every Record of the batches that stand where they were written, no other, and say what is damaged",
        arguments: Kind.allCases)
    func recovery(kind: Kind) throws {
        let rig = try Self.sample(kind)
        let whole = try Found(rig.disk)
        #expect(whole.inspection.isWhole && whole.records.count >= 5)
        let last = whole.inspection.log.last.number
        let count = try Self.forEachMix(rig.disk) { mixed in
            let found = try Found(mixed.disk)
            let left = { (records: [UInt64: Record]) in records.filter { !mixed.touched.contains($0.key) } }
            #expect(found.records == left(whole.records), "\(mixed.what)")
            #expect(found.replayed == left(whole.replayed), "\(mixed.what)")
            let lost = found.inspection.log.report.lost
            for position in mixed.touched.intersection(whole.replayed.keys) {
                // What is lost at the end of the log looks like what was never written.
                let isTail = position > found.inspection.log.last.number && mixed.touched.contains(last)
                #expect(isTail || lost.contains { $0.contains(position) }, "\(position), \(mixed.what)")
            }
            let isNoticed = found.inspection.damaged.contains { damage in
                damage.file == mixed.name && mixed.ranges.contains { damage.bytes.overlaps($0) }
            }
            #expect(isNoticed || mixed.touched.isEmpty || mixed.touched.contains(last), "\(mixed.what)")
        }
        #expect(count > 100)
    }

    @Test("the scan of a segment without a footer finds the same batches", arguments: Kind.allCases)
    func scan(kind: Kind) throws {
        let rig = try Self.sample(kind)
        let log = try Found(rig.disk).inspection.log
        let map = BatchMap(rig.disk, log.store)
        var count = 0
        for segment in log.segments.dropLast() {
            var bare = rig.disk
            bare.put(segment.file.name, Array(rig.disk.content(segment.file.name).prefix(segment.end)))
            let whole = Self.index(of: segment, bare, log.store)
            #expect(!whole.isPartial)
            count += try Self.forEachMix(bare) { mixed in
                guard mixed.name == segment.file.name else { return }
                let index = Self.index(of: segment, mixed.disk, log.store)
                let left = map.batches.filter {
                    $0.file == mixed.name && mixed.touched.isDisjoint(with: $0.positions)
                }
                #expect(
                    index.batches.map { Int($0.page) * pageBytes } == left.map(\.bytes.lowerBound),
                    "\(mixed.what)")
                for place in whole.batches where !mixed.touched.contains(place.first.number) {
                    #expect(index.place(of: place.first)?.lowerBound == Int(place.page) * pageBytes)
                }
            }
        }
        #expect(count > 50)
    }

    private static func index(of segment: Segment, _ disk: FaultDisk, _ store: StoreID) -> SegmentIndex {
        let bytes = disk.content(segment.file.name)
        var fetch = IndexFetch(segment, store: store)
        var range = fetch.firstRead
        while true {
            let read = Array(bytes[range.clamped(to: 0..<bytes.count)])
            switch fetch.answered(.read(read), isWritable: true, at: Instant(milliseconds: 0)) {
            case .read(let next), .later(let next, _): range = next
            case .found(let index): return index
            }
        }
    }

    @Test("a message that is read back is the one that was written, or none", arguments: Kind.allCases)
    func readingBack(kind: Kind) throws {
        let rig = try Self.sample(kind)
        let count = try Self.forEachMix(rig.disk) { mixed in
            var reading = rig
            reading.disk = mixed.disk
            reading.events = []
            reading.journal.load(SessionID(1), rig.ledger.owed)
            reading.collect()
            while try reading.work() {}
            let answers = reading.events.flatMap { event -> [(Position, StoredMessage?)] in
                guard case .loaded(_, let answers) = event else { return [] }
                return answers
            }
            #expect(answers.map(\.0) == rig.ledger.owed)
            for (position, message) in answers {
                guard case .message(let record) = rig.history[Int(position.number)].record else { continue }
                let isIntact = !mixed.touched.contains(position.number)
                let written = StoredMessage(record, for: SessionID(1))
                #expect(message == (isIntact ? written : nil), "\(position), \(mixed.what)")
            }
        }
        #expect(count > 100)
    }
}
