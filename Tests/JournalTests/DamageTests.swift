import GatewayCore
import Testing

@testable import Journal

/// Not tested: damage to the last committed batch with nothing behind it. It cannot be told from a torn write
/// (Format.md, "What cannot be told").
@Suite("Damage at rest")
struct DamageTests {
    /// A store with three lives behind it, some segments, and two checkpoints.
    static func sample() throws -> Rig {
        var rig = try Rig(try #require(testStore))
        var dice = Dice(99)
        for life in 0..<3 {
            for _ in 0..<25 {
                rig.appendSomething(&dice)
                try rig.settle()
            }
            if life < 2 { try rig.checkpoint() }
            try rig.restart()
        }
        rig.append(Samples.plain("the last but one"))
        try rig.settle()
        rig.journal.close(at: rig.now)
        try rig.settle()
        return rig
    }

    struct Found {
        var log: RecoveredLog
        var records: [UInt64: Record] = [:]
        var ledger = Ledger()
    }

    /// Recovers, twice, and checks that every Record it gives is the one that was written there.
    static func recover(_ disk: FaultDisk, _ rig: Rig) throws -> Found {
        var disk = disk
        var records: [UInt64: Record] = [:]
        var ledger = Ledger()
        let log = try Recovery.recover(&disk) { record, position in
            if position > .zero { records[position.number] = record }
            ledger.apply(record, at: position)
        }
        let again = try Recovery.recover(&disk) { _, _ in }
        #expect(again == log)
        for (position, record) in records {
            try #require(position < UInt64(rig.history.count))
            #expect(record == rig.history[Int(position)].record)
        }
        return Found(log: log, records: records, ledger: ledger)
    }

    @Test("any file cut short at any page or odd place: nothing traps, no ghost, the rest is served")
    func truncation() throws {
        let rig = try Self.sample()
        let whole = try Self.recover(rig.disk, rig)
        #expect(!whole.log.report.isDamaged)
        for name in rig.disk.fileNames() {
            let bytes = rig.disk.content(name)
            // Every byte where fields are, samples elsewhere.
            let places = Array(0..<min(bytes.count, 200)) + Array(stride(from: 200, to: bytes.count, by: 509))
            for count in places {
                var disk = rig.disk
                disk.put(name, Array(bytes.prefix(count)))
                let found = try Self.recover(disk, rig)
                // What is missing is either at the end of the log or reported.
                let missing = whole.records.keys.filter {
                    found.records[$0] == nil && $0 <= found.log.last.number
                }
                if found.log.checkpoints == whole.log.checkpoints {
                    for position in missing {
                        #expect(
                            found.log.report.lost.contains { $0.contains(position) }, "\(name) at \(count)")
                    }
                }
            }
        }
    }

    @Test("a flipped bit anywhere costs at most the batch it is in, and is reported unless nothing needs it")
    func flips() throws {
        let rig = try Self.sample()
        let whole = try Self.recover(rig.disk, rig)
        var dice = Dice(17)
        for name in rig.disk.fileNames() {
            let bytes = rig.disk.content(name)
            for _ in 0..<60 {
                let place = dice.below(bytes.count)
                var damaged = bytes
                damaged[place] ^= UInt8(1 << dice.below(8))
                var disk = rig.disk
                disk.put(name, damaged)
                let found = try Self.recover(disk, rig)
                // The mark of the clean stop is the one batch with nothing behind it; no Record is in it.
                let isMark =
                    name == whole.log.tail.fileName && place >= Int(whole.log.tail.offset) - pageBytes
                #expect(found.log.report.tornTails.isEmpty || isMark, "\(name) at \(place)")
                guard found.log.checkpoints == whole.log.checkpoints else {
                    // The checkpoint before it, and the log from there, lead to the same state.
                    #expect(found.log.report.setAside == [name])
                    #expect(found.ledger == rig.history[Int(found.log.last.number)].ledger)
                    continue
                }
                let missing = whole.records.keys.filter { found.records[$0] == nil }.sorted()
                for position in missing {
                    #expect(found.log.report.lost.contains { $0.contains(position) }, "\(name) at \(place)")
                }
                // A batch holds at most a few Records here.
                if let first = missing.first, let last = missing.last {
                    #expect(last - first < 8, "\(name) at \(place)")
                    #expect(found.log.report.damaged.contains { $0.file == name && $0.bytes.contains(place) })
                }
            }
        }
    }

    @Test("torn and corrupt are told apart: the same damage with and without something behind it")
    func tornOrCorrupt() throws {
        var rig = try Rig(try #require(testStore))
        for n in 1...3 {
            rig.append(Samples.plain("m\(n)"))
            try rig.settle()
        }
        let name = StoreFile.segment(1).name
        let bytes = rig.disk.content(name)
        func spoiled(batch: Int) throws -> Found {
            var damaged = bytes
            damaged[pageBytes * batch + 70] ^= 1
            var disk = rig.disk
            disk.put(name, damaged)
            return try Self.recover(disk, rig)
        }
        let last = try spoiled(batch: 3)
        #expect(last.log.report.tornTails == [.init(file: name, bytes: 3 * pageBytes..<4 * pageBytes)])
        #expect(last.log.last == Position(2) && !last.log.report.isDamaged)
        #expect(last.log.tail == SegmentEnd(segment: 1, offset: UInt64(3 * pageBytes), last: Position(2)))
        let middle = try spoiled(batch: 2)
        #expect(middle.log.report.tornTails.isEmpty)
        #expect(middle.log.report.damaged == [.init(file: name, bytes: 2 * pageBytes..<3 * pageBytes)])
        #expect(middle.log.report.lost == [2...2])
        #expect(middle.records.keys.sorted() == [1, 3] && middle.log.last == Position(3))

        // With a successor that names its end, the last batch is known to have been durable.
        try rig.restart()
        rig.append(Samples.plain("m4"))
        try rig.settle()
        let followed = try spoiled(batch: 3)
        #expect(followed.log.report.tornTails.isEmpty && followed.log.report.lost == [3...3])
        #expect(followed.records.keys.sorted() == [1, 2, 4])
    }

    @Test("without any checkpoint the whole log is read; with a damaged one, from the one before")
    func lostCheckpoints() throws {
        var rig = try Rig(try #require(testStore))
        for n in 1...5 {
            rig.append(Samples.plain("m\(n)"))
            try rig.settle()
            if n == 2 || n == 4 { try rig.checkpoint() }
        }
        let checkpoints = rig.disk.fileNames().filter { $0.hasPrefix("ckpt-") }
        #expect(checkpoints.count == 2)
        var found = try Self.recover(rig.disk, rig)
        #expect(found.records.keys.sorted() == [5])
        var disk = rig.disk
        disk.put(checkpoints[1], Array(disk.content(checkpoints[1]).dropLast()))
        found = try Self.recover(disk, rig)
        #expect(found.records.keys.sorted() == [3, 4, 5] && found.ledger == rig.ledger)
        #expect(found.log.report.setAside == [checkpoints[1]])
        for name in checkpoints { disk.remove(name) }
        found = try Self.recover(disk, rig)
        #expect(found.records.keys.sorted() == [1, 2, 3, 4, 5] && found.ledger == rig.ledger)
    }

    @Test("a missing segment is a reported loss, and positions are never given out twice")
    func missingSegment() throws {
        var rig = try Rig(try #require(testStore))
        for n in 1...3 {
            rig.append(Samples.plain("m\(n)"))
            try rig.settle()
            try rig.restart()
        }
        rig.disk.remove(StoreFile.segment(2).name)
        let found = try Self.recover(rig.disk, rig)
        #expect(found.log.report.lost == [2...2] && found.records.keys.sorted() == [1, 3])
        rig.disk.remove(StoreFile.segment(3).name)
        rig.disk.remove(StoreFile.segment(1).name)
        #expect(try Self.recover(rig.disk, rig).log.last == .zero)
    }

    @Test("a segment of another store is put aside and not read")
    func foreignSegment() throws {
        let rig = try Self.sample()
        var other = try Rig(try #require(otherStore))
        other.append(Samples.plain("foreign"))
        try other.settle()
        var disk = rig.disk
        disk.put(StoreFile.segment(0x99).name, other.disk.content(StoreFile.segment(1).name))
        let name = StoreFile.segment(0x99).name
        #expect(try Self.recover(disk, rig).log.report.setAside == [name])
    }

    @Test("Records of an unknown type: ignorable ones are passed over, others stop the start, named")
    func unknownTypes() throws {
        let store = try #require(testStore)
        for type in [UInt8(0x80 | 50), 50] {
            var disk = FaultDisk(formatted: store)
            let header = SegmentHeader(
                store: store, segment: 1, predecessor: SegmentEnd(segment: 0, offset: 0, last: .zero),
                clock: Instant(milliseconds: 0), boot: 1)
            // A .inboundVoided whose type byte is changed, sealed anew as a newer version would.
            var payload: [UInt8] = [2, 9, 1]
            payload[1] = type
            let batch = BatchTests.raw(payload, count: 1, store: store, segment: 1)
            disk.put(StoreFile.segment(1).name, header.encoded + batch)
            if type & 0x80 != 0 {
                let log = try Recovery.recover(&disk) { record, _ in
                    if case .lost = record { return }
                    Issue.record("nothing can be delivered")
                }
                #expect(log.last == Position(1))
            } else {
                let error = RecoveryError.unknownRecordType(file: StoreFile.segment(1).name, type: 50)
                #expect(throws: error) { try Recovery.recover(&disk) { _, _ in } }
            }
        }
    }

    @Test("a checkpoint that names Records behind its own position is put aside, whole as it looks")
    func checkpointFromTheFuture() throws {
        let store = try #require(testStore)
        let numbers = [(UInt64(5), false), (6, true), (countableLimit - 1, true)]
        for ((named, isSetAside), place) in numbers.flatMap({ number in (0..<4).map { (number, $0) } }) {
            let entry = QueueRecord.Entry(position: Position(named), qos: .atLeastOnce, isReceived: false)
            let page = QueuePage(
                stretch: Stretch(first: Position(1), last: Position(named)), first: Delivery(5), span: 1,
                waitingCount: 1, waitingBytes: 1)
            var disk = FaultDisk(formatted: store)
            var builder = CheckpointBuilder(
                CheckpointHeader(
                    position: Position(5), clock: Instant(milliseconds: 0), boot: 1, nextSegment: 1,
                    anchor: nil, segments: []),
                store: store)
            builder.add(
                .queue(
                    QueueRecord(
                        session: SessionID(1), floor: Delivery(0), entries: place == 0 ? [entry] : [],
                        pages: place == 1 ? [page] : [], tail: place == 2 ? [entry] : [],
                        strays: place == 3 ? [.init(delivery: Delivery(1), entry: entry)] : [])))
            let name = StoreFile.checkpoint(5).name
            disk.put(name, builder.sealed())
            var count = 0
            let log = try Recovery.recover(&disk) { record, _ in
                if case .lost = record { return }
                count += 1
            }
            #expect(log.report.setAside == (isSetAside ? [name] : []))
            #expect(count == (isSetAside ? 0 : 1))
        }
    }

    @Test(
        "a segment's end far behind its file, as a checkpoint may name it, takes no space and traps nothing")
    func endBehindTheFile() throws {
        let store = try #require(testStore)
        var disk = FaultDisk(formatted: store)
        let rows = (1...2 as ClosedRange<UInt64>).map {
            SegmentRow(
                segment: $0, first: Position(1), last: .zero, end: UInt64(Int.max), capacity: UInt64.max)
        }
        for end in rows {
            let header = SegmentHeader(
                store: store, segment: end.segment,
                predecessor: SegmentEnd(segment: 0, offset: 0, last: .zero),
                clock: Instant(milliseconds: 0), boot: 1)
            disk.put(StoreFile.segment(end.segment).name, header.encoded)
        }
        var builder = CheckpointBuilder(
            CheckpointHeader(
                position: .zero, clock: Instant(milliseconds: 0), boot: 1, nextSegment: 3, anchor: nil,
                segments: rows),
            store: store)
        builder.add(.counters(nextSession: 1))
        disk.put(StoreFile.checkpoint(0).name, builder.sealed())
        let log = try Recovery.recover(&disk) { _, _ in }
        #expect(log.segments.map(\.end) == [pageBytes, pageBytes])
        _ = Journal(plan: JournalPlan(), recovered: log)
    }

    @Test("files of random bytes under the journal's names never trap")
    func noise() throws {
        let rig = try Self.sample()
        var dice = Dice(5)
        for _ in 0..<60 {
            var disk = rig.disk
            for name in disk.fileNames() where dice.coin() && name != "FORMAT" {
                disk.put(name, dice.bytes(upTo: 9000))
            }
            _ = try Self.recover(disk, rig)
        }
    }
}

extension SegmentEnd {
    fileprivate var fileName: String { StoreFile.segment(segment).name }
}
