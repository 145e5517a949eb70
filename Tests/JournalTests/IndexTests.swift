import GatewayCore
import Testing

@testable import Journal

@Suite("Complete segments and their indexes")
struct IndexTests {
    /// A journal with some complete segments, whose messages go to three Sessions in turn.
    static func rig(messages: Int = 90, payload: Int = 2000) throws -> Rig {
        var rig = try Rig(try #require(testStore))
        for n in 0..<UInt64(messages) {
            rig.append(
                Samples.plain(
                    "m\(n)", to: n % 3 + 1, delivery: n / 3 + 5, payload: Array(repeating: 3, count: payload))
            )
            try rig.settle()
        }
        return rig
    }

    static func segmentNames(_ rig: Rig) -> [String] { rig.disk.fileNames().filter { $0.hasPrefix("seg-") } }

    /// What the index says of all Sessions.
    static func check(_ rig: inout Rig, _ more: [Stretch] = []) throws {
        for session in 1...4 as ClosedRange<UInt64> { try rig.checkIndexes(of: session, more) }
    }

    @Test(
        "a stretch is told complete once, behind its last durable Record, with the Sessions it has messages for"
    )
    func sealed() throws {
        let rig = try Self.rig()
        var expected = Position(1)
        var durable = Position.zero
        var count = 0
        for event in rig.events {
            switch event {
            case .durable(let position): durable = position
            case .sealed(let stretch, let queues):
                #expect(stretch.first == expected && stretch.last == durable)
                #expect(queues == [SessionID(1), SessionID(2), SessionID(3)])
                expected = stretch.last.next
                count += 1
            default: continue
            }
        }
        #expect(count == Self.segmentNames(rig).count - 1 && count > 5)
    }

    @Test(
        "the index answers from memory, from footers and from the segment being written; restarts change nothing"
    )
    func answers() throws {
        var rig = try Self.rig(messages: 300)
        var stretches = rig.sealed.map(\.stretch)
        let active = Stretch(first: try #require(stretches.last?.last.next), last: rig.journal.durable)
        try Self.check(&rig, stretches + [active])
        try rig.restart()
        stretches.append(active)
        #expect(rig.recovered.stretches == stretches)
        try Self.check(&rig)
        // A stretch within a larger file, as compaction makes them.
        let part = Stretch(first: stretches[2].first.next, last: Position(stretches[2].last.number - 2))
        try Self.check(&rig, [part])
        rig.events = []
        rig.journal.index(SessionID(1), Stretch(first: Position(9000), last: Position(9001)))
        rig.collect()
        guard case .indexed(_, _, nil)? = rig.events.last else {
            Issue.record("nothing is known of what never was")
            return
        }
    }

    @Test("footers that are missing, torn or damaged make no difference but a scan of that one segment")
    func damagedFooters() throws {
        let rig = try Self.rig()
        var dice = Dice(12)
        var scans = 0
        for round in 0..<30 {
            var spoiled = rig
            for (name, stretch) in zip(Self.segmentNames(rig), rig.sealed) {
                let bytes = rig.disk.content(name)
                let end = Int(try #require(try Self.end(of: name, rig)))
                switch dice.below(4) {
                case 0: spoiled.disk.put(name, Array(bytes.prefix(end)))
                case 1: spoiled.disk.put(name, Array(bytes.prefix(end + dice.below(bytes.count - end))))
                case 2:
                    var damaged = bytes
                    damaged[end + dice.below(200)] ^= UInt8(1 << dice.below(8))
                    spoiled.disk.put(name, damaged)
                default:
                    // That of another segment.
                    let other = Array(repeating: UInt8(round), count: end - pageBytes)
                    spoiled.disk.put(name, Array(bytes.prefix(pageBytes)) + bytes[pageBytes..<end] + other)
                }
                #expect(stretch.stretch.first <= stretch.stretch.last)
            }
            try spoiled.restart()
            try Self.check(&spoiled)
            // The footer in vain and one scan, for all three queues.
            spoiled.disk.reads = 0
            for session in 1...3 as ClosedRange<UInt64> {
                spoiled.journal.index(SessionID(session), spoiled.recovered.stretches[0])
                while try spoiled.work() {}
            }
            #expect(spoiled.disk.reads <= 2)
            scans += spoiled.disk.reads - 1
        }
        #expect(scans > 10)
    }

    static func end(of name: String, _ rig: Rig) throws -> UInt64? {
        for other in segmentNames(rig) {
            guard case .segment(let id)? = StoreFile(name: other) else { continue }
            let header = try SegmentHeader(decoding: rig.disk.content(other), segment: id)
            if StoreFile.segment(header.predecessor.segment).name == name { return header.predecessor.offset }
        }
        return nil
    }

    @Test("a damaged batch in a segment without a footer costs what is in it and nothing else")
    func damagedBatch() throws {
        var rig = try Self.rig(messages: 30)
        let name = Self.segmentNames(rig)[0]
        let stretch = try #require(rig.sealed.first?.stretch)
        let end = Int(try #require(try Self.end(of: name, rig)))
        var bytes = Array(rig.disk.content(name).prefix(end))
        bytes[2 * pageBytes + 100] ^= 1
        rig.disk.put(name, bytes)
        rig.recovered = try Recovery.recover(&rig.disk) { _, _ in }
        rig.journal = Journal(plan: rig.plan, recovered: rig.recovered)
        var found: [Position] = []
        for session in 1...3 as ClosedRange<UInt64> {
            rig.events = []
            rig.journal.index(SessionID(session), stretch)
            while try rig.work() {}
            guard case .indexed(_, _, let postings?)? = rig.events.last else { continue }
            found += postings.map(\.position)
        }
        let all = (stretch.first.number...stretch.last.number).filter { $0 != 2 }
        #expect(found.map(\.number).sorted() == all)
    }

    @Test("the start reads the same however many segments the checkpoint covers")
    func startIsIndependentOfTheBacklog() throws {
        var counts: [Int] = []
        for messages in [60, 600, 1800] {
            var rig = try Self.rig(messages: messages)
            try rig.checkpoint()
            rig.append(Samples.plain("last", delivery: 1))
            try rig.settle()
            rig.disk.reads = 0
            try rig.restart()
            counts.append(rig.disk.reads)
            #expect(rig.recovered.segments.count >= messages / 7)
            #expect(rig.recovered.stretches.count == rig.recovered.segments.count)
            try rig.loadAllOwed()
        }
        // The checkpoint itself grows with what is owed.
        #expect(counts[0] == counts[1] && counts[1] == counts[2], "\(counts)")
    }

    @Test("covered segments that are missing or cut short trap nothing, and the latter is reported")
    func coveredSegments() throws {
        var rig = try Self.rig()
        try rig.checkpoint()
        try rig.restart()
        let names = Self.segmentNames(rig)
        rig.disk.remove(names[1])
        rig.disk.put(names[2], Array(rig.disk.content(names[2]).prefix(9000)))
        let log = try Recovery.recover(&rig.disk) { _, _ in }
        #expect(log.report.damaged.map(\.file) == [names[2]] && log.report.lost.isEmpty)
        #expect(log.segments.count == names.count - 1 && log.last == rig.recovered.last)
        rig.journal = Journal(plan: rig.plan, recovered: log)
        rig.events = []
        rig.journal.load(SessionID(1), (1...90).map { Position($0) })
        while try rig.work() {}
        guard case .loaded(_, let answers)? = rig.events.last else {
            Issue.record("no answer")
            return
        }
        let found = answers.filter { $0.1 != nil }.count
        #expect(answers.count == 90 && found < 30 && found > 20)
    }

    @Test("recovery tells of each stretch that the checkpoint did not know, behind its last Record")
    func recoveryTells() throws {
        for checkpointAt in [nil, 40] {
            var rig = try Self.rig(messages: 40)
            if checkpointAt != nil { try rig.checkpoint() }
            let before = rig.sealed.map(\.stretch)
            for n in 0..<40 as Range<UInt64> {
                rig.append(
                    Samples.plain("n\(n)", to: 9, delivery: n, payload: Array(repeating: 1, count: 2000)))
                try rig.settle()
            }
            var told: [Stretch] = []
            var last = Position.zero
            let log = try Recovery.recover(&rig.disk) { _, position in
                last = max(last, position)
            } sealed: { stretch, queues in
                #expect(stretch.last == last)
                #expect(queues.contains(SessionID(9)) == (stretch.last > Position(40)))
                told.append(stretch)
            }
            let fresh = checkpointAt == nil ? log.stretches : Array(log.stretches.dropFirst(before.count))
            #expect(told == fresh && !told.isEmpty)
        }
    }

    @Test("a footer proves that what is before it was durable, although no successor names its end")
    func footerIsProof() throws {
        var rig = try Self.rig(messages: 30)
        // The successor's creation never reached the disk.
        let names = Self.segmentNames(rig)
        let name = names[names.count - 2]
        let end = Int(try #require(try Self.end(of: name, rig)))
        rig.disk.remove(names[names.count - 1])
        let whole = try Recovery.recover(&rig.disk) { _, _ in }
        #expect(whole.report == RecoveryReport() && whole.tail.offset == UInt64(end))
        var bytes = rig.disk.content(name)
        bytes[end - pageBytes + 70] ^= 1
        rig.disk.put(name, bytes)
        let log = try Recovery.recover(&rig.disk) { _, _ in }
        #expect(log.report.tornTails.isEmpty && log.report.damaged.count == 1 && log.report.lost.count == 1)
        #expect(log.last == whole.last && log.tail == whole.tail)
    }

    @Test("a clean stop is remembered also when a checkpoint covers the segment that says so")
    func cleanStop() throws {
        var rig = try Self.rig(messages: 10)
        rig.journal.close(at: rig.now)
        try rig.settle()
        try rig.restart()
        try rig.checkpoint()
        rig.journal.close(at: rig.now)
        try rig.settle()
        #expect(rig.journal.isClosed)
        try rig.restart()
        #expect(rig.recovered.wasCleanShutdown)
    }

    @Test("a queue of small batches is read 64 KiB at a time, not batch by batch")
    func readAhead() throws {
        var plan = JournalPlan()
        plan.segmentBytes = 4 << 20
        plan.commits.windowMilliseconds = 0
        var rig = try Rig(try #require(testStore), plan: plan)
        for n in 0..<160 as Range<UInt64> {
            rig.append(Samples.plain("m\(n)", delivery: n))
            try rig.settle()
        }
        rig.disk.reads = 0
        try rig.loadAllOwed()
        #expect(rig.disk.reads == 10)
        // After a restart the index is read once; this segment has none, so its 160 batches are scanned.
        try rig.restart()
        rig.disk.reads = 0
        try rig.loadAllOwed()
        #expect(rig.disk.reads <= 10 + 1 + 3)
        rig.disk.reads = 0
        try rig.loadAllOwed()
        #expect(rig.disk.reads == 10)
    }

    @Test("loads that wait for an index, of many segments at once and in several requests, are all answered")
    func loadsWaitForIndexes() throws {
        var rig = try Self.rig(messages: 200)
        try rig.restart()
        let mine = rig.ledger.owed.filter { $0.number % 3 == 1 }
        rig.events = []
        for start in 0..<5 { rig.journal.load(SessionID(1), Array(mine[(start * 10)...])) }
        rig.journal.index(SessionID(2), rig.recovered.stretches[3])
        while try rig.work() {}
        var sizes: [Int] = []
        var indexed = 0
        for event in rig.events {
            switch event {
            case .loaded(_, let answers):
                sizes.append(answers.count)
                #expect(answers.allSatisfy { $0.1 != nil })
            case .indexed(_, _, let postings?): indexed += postings.isEmpty ? 0 : 1
            default: continue
            }
        }
        #expect(sizes.sorted(by: >) == (0..<5).map { mine.count - $0 * 10 } && indexed == 1)
    }

    @Test("a footer that cannot be written costs a scan, not the journal")
    func footerFails() throws {
        var rig = try Self.rig(messages: 5)
        rig.disk.failFooters = 28
        for n in 0..<60 as Range<UInt64> {
            rig.append(Samples.plain("n\(n)", to: 9, delivery: n, payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        #expect(!rig.journal.hasFailed)
        try rig.restart()
        try rig.checkIndexes(of: 9)
        try rig.loadAllOwed()
    }

    @Test(
        "a page that the disk refuses to read costs the batch it is in, whether a footer or a scan leads there"
    )
    func refusedPage() throws {
        for failFooters in [nil, 28] as [Int32?] {
            var rig = try Rig(try #require(testStore))
            rig.disk.failFooters = failFooters
            for n in 0..<60 as Range<UInt64> {
                rig.append(Samples.plain("n\(n)", delivery: n, payload: Array(repeating: 1, count: 2000)))
                try rig.settle()
            }
            try rig.restart()
            let stretch = rig.recovered.stretches[1]
            rig.disk.refusedByte = (Self.segmentNames(rig)[1], 3 * pageBytes)
            let refused = Position(stretch.first.number + 2)
            rig.journal.index(SessionID(1), stretch)
            let all = (stretch.first.number...stretch.last.number).map { Position($0) }
            rig.journal.load(SessionID(1), [refused, all[4]])
            try rig.passes(seconds: 60)
            #expect(!rig.events.contains { if case .loaded = $0 { true } else { false } })
            try rig.passes(seconds: 60)
            var found: [Position] = []
            for event in rig.events {
                switch event {
                case .indexed(_, _, let postings?): found = postings.map(\.position)
                case .loaded(_, let answers):
                    #expect(answers.map { $0.1 == nil } == [true, false])
                default: continue
                }
            }
            #expect(found == all.filter { failFooters == nil || $0 != refused })
        }
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var errorNumber: Int32
        var times: Int
        var seconds: Int
        var failsWrites = false
        var testDescription: String {
            "errno \(errorNumber), \(times) times, \(failsWrites ? "of writes too, " : "")\(seconds) s"
        }
    }

    @Test(
        "what the disk refuses for a while and then gives costs nothing, wherever what leads there is found",
        arguments: [
            // The footer and the whole scan are refused before its first page is.
            Refusal(errorNumber: Fault.broken, times: 8, seconds: 64),
            Refusal(errorNumber: Fault.noDescriptor, times: 200, seconds: 7200),
            Refusal(errorNumber: Fault.broken, times: .max, seconds: 7200, failsWrites: true),
        ], [nil, 28] as [Int32?])
    func refusedForAWhile(refusal: Refusal, failFooters: Int32?) throws {
        var rig = try Rig(try #require(testStore))
        rig.disk.failFooters = failFooters
        for n in 0..<60 as Range<UInt64> {
            rig.append(Samples.plain("n\(n)", delivery: n, payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        try rig.restart()
        let stretch = rig.recovered.stretches[1]
        let all = (stretch.first.number...stretch.last.number).map { Position($0) }
        rig.disk.fault = Fault(
            after: 0, errorNumber: refusal.errorNumber, kind: refusal.failsWrites ? nil : .read,
            times: refusal.times)
        if refusal.failsWrites {
            rig.append(Samples.plain("one more", delivery: 60))
            try rig.passes(seconds: 1)
        }
        rig.journal.load(SessionID(1), all)
        try rig.passes(seconds: refusal.seconds)
        #expect(rig.disk.strikes >= min(refusal.times, 200))
        rig.disk.fault = nil
        try rig.passes(seconds: 64)
        var given: [Position] = []
        for case .loaded(_, let answers) in rig.events { given += answers.filter { $0.1 != nil }.map(\.0) }
        #expect(given == all)
    }

    @Test("a batch larger than what a scan reads at once is scanned too")
    func jumbo() throws {
        var rig = try Rig(try #require(testStore))
        rig.disk.failFooters = 28
        for (n, size) in [10, 700_000, 20, 300_000, 30].enumerated() {
            rig.append(
                Samples.plain("m\(n)", delivery: UInt64(n), payload: Array(repeating: 1, count: size)))
            try rig.settle()
        }
        try rig.restart()
        try rig.checkIndexes()
        try rig.loadAllOwed()
    }

    @Test("positions between two batches that were elided are not lost; damage before them is")
    func elidedPositions() throws {
        let store = try #require(testStore)
        let header = SegmentHeader(
            store: store, segment: 1, predecessor: SegmentEnd(segment: 0, offset: 0, last: .zero),
            clock: Instant(milliseconds: 0), boot: 1)
        var file = header.encoded
        for (first, durable) in [(UInt64(1), UInt64(0)), (5, 2), (6, 5), (90, 6)] {
            var stamp = BatchTests.stamp(store, segment: 1, offset: file.count)
            stamp.first = Position(first)
            stamp.durableBefore = Position(durable)
            let count = first == 1 ? 2 : 1
            file += BatchTests.batch(
                (0..<count).map { Samples.plain("m", delivery: first + UInt64($0)) }, stamp)
        }
        let expected: [(damaged: Int?, lost: [ClosedRange<UInt64>], found: [UInt64])] = [
            (nil, [], [1, 2, 5, 6, 90]), (1, [1...2], [5, 6, 90]), (2, [3...5], [1, 2, 6, 90]),
            (3, [6...6], [1, 2, 5, 90]),
        ]
        for (damaged, lost, found) in expected {
            var bytes = file
            if let damaged { bytes[damaged * pageBytes + 70] ^= 1 }
            var disk = FaultDisk(formatted: store)
            disk.put(StoreFile.segment(1).name, bytes)
            var positions: [UInt64] = []
            let log = try Recovery.recover(&disk) { record, position in
                if case .lost = record { return }
                positions.append(position.number)
            }
            #expect(log.report.lost == lost && positions == found && log.last == Position(90))
            #expect(log.stretches == [Stretch(first: Position(1), last: Position(90))])
            var journal = Journal(plan: Rig.smallPlan(), recovered: log)
            journal.load(SessionID(1), [5, 70, 90].map { Position($0) })
            var operations: [DiskOperation] = []
            var events: [StorageEvent] = []
            repeat {
                operations = []
                journal.takeOperations(into: &operations)
                for operation in operations {
                    journal.completed(try disk.perform(operation), at: Instant(milliseconds: 0))
                }
                journal.takeEvents(into: &events)
            } while !operations.isEmpty
            guard case .loaded(_, let answers)? = events.last else {
                Issue.record("no answer")
                continue
            }
            #expect(answers.map { $0.1 != nil } == [damaged != 2, false, true])
        }
    }
}
