import GatewayCore
import Testing

@testable import Journal

extension Rig {
    /// Goes on as a host does, `count` times an operation of the disk at most.
    mutating func liveOn(_ count: Int, milliseconds: UInt64 = 100) throws {
        for _ in 0..<count {
            now = now.advanced(byMilliseconds: milliseconds)
            journal.tick(at: now)
            if journal.wantsCheckpoint { journal.beginCheckpoint(of: ledger, at: now) }
            if journal.wantsCompaction { journal.compact(by: ledger, at: now) }
            _ = try work()
        }
    }

    /// A message for the reader who never comes, or one for somebody who has it at once.
    mutating func appendMessage(isPinned: Bool, _ payload: [UInt8]) {
        var record = Samples.plain("c/\(history.count)", delivery: nextDelivery, payload: payload)
        if !isPinned, case .message(var message) = record {
            message.targets[0].session = SessionID(2 + UInt64(history.count % 40))
            message.targets[0].delivery = Delivery(UInt64(history.count))
            record = .message(message)
        }
        append(record, .message)
    }

    mutating func acknowledge(_ count: Int, _ urgency: Urgency = .lazy) {
        append(
            .acknowledged(
                AcknowledgedRecord(
                    session: SessionID(1), floor: Delivery(ledger.floor + UInt64(count)), settledAbove: [])),
            urgency)
    }

    /// Of the log, in bytes.
    var logBytes: Int {
        disk.fileNames().filter { $0.hasPrefix("seg-") || $0.hasPrefix("old-") }
            .reduce(0) { $0 + disk.content($1).count }
    }

    var mergedNames: [String] { disk.fileNames().filter { $0.hasPrefix("old-") && $0.hasSuffix(".log") } }
}

@Suite("Compaction")
struct CompactionTests {
    static func plan() -> JournalPlan {
        var plan = Rig.smallPlan()
        plan.compactionSlackBytes = 96 << 10
        return plan
    }

    /// A log of which one message in twelve is owed, ready to be compacted.
    static func pinned(
        _ count: Int = 120, every: Int = 12, bytes: Int = 2000, recycles: Bool = false,
        plan: JournalPlan = plan()
    ) throws -> Rig {
        var quiet = plan
        quiet.compactionSlackBytes = .max
        var rig = try Rig(try #require(testStore), plan: quiet, recycles: recycles)
        for n in 0..<count {
            rig.appendMessage(isPinned: n % every == 0, Samples.payload(n, bytes: bytes))
            try rig.settle()
        }
        for _ in 0..<2 {
            rig.append(.inboundVoided(SessionID(3)))
            try rig.checkpoint()
        }
        try rig.settle()
        var found = try Rig(try #require(testStore), plan: plan, recycles: recycles)
        found.disk = rig.disk
        found.history = rig.history
        found.promised = rig.promised
        found.ledger = rig.ledger
        found.now = rig.now
        try found.restart()
        found.append(.inboundVoided(SessionID(3)))
        try found.settle()
        return found
    }

    @Test(
        "one slow reader pins every segment: space stays within twice what is owed, writes within twice the log"
    )
    func bounds() throws {
        var plan = Self.plan()
        plan.segmentBytes = 256 << 10
        plan.compactionSlackBytes = 512 << 10
        var rig = try Rig(try #require(testStore), plan: plan)
        var appended = 0
        var checkpointBytes = 0
        var largest = Int.min
        for n in 0..<2500 {
            rig.appendMessage(isPinned: n % 20 == 0, Array(repeating: UInt8(n & 255), count: 2000))
            appended += pageBytes
            let files = Set(rig.disk.fileNames())
            try rig.liveOn(3)
            for name in rig.disk.fileNames() where name.hasPrefix("ckpt-") && !files.contains(name) {
                checkpointBytes += rig.disk.content(name).count
            }
            let live = rig.ledger.owed.count * 2200
            // What two checkpoints do not cover yet, and a segment that is being merged or deleted.
            let recent = 2 * plan.checkpointGrowthBytes + 2 * plan.segmentBytes
            largest = max(largest, rig.logBytes - 2 * live - plan.compactionSlackBytes - recent)
        }
        #expect(largest <= 0)
        #expect(!rig.mergedNames.isEmpty)
        #expect(rig.disk.bytesWritten - checkpointBytes <= 2 * appended)
        try rig.loadAllOwed()
        try rig.restart()
        try rig.checkIndexes()
        try rig.loadAllOwed()
        rig.acknowledge(rig.ledger.owed.count)
        for _ in 0..<3 {
            rig.append(.inboundVoided(SessionID(3)))
            try rig.checkpoint()
        }
        #expect(rig.mergedNames.isEmpty)
    }

    @Test("victims go when their merged file is durable, and a start finds the same")
    func merges() throws {
        for recycles in [false, true] {
            var rig = try Self.pinned(recycles: recycles)
            let before = rig.logBytes
            try rig.liveOn(200)
            #expect(!rig.mergedNames.isEmpty && rig.logBytes < before / 2)
            #expect(!rig.disk.fileNames().contains { $0.hasSuffix(".tmp") })
            try rig.loadAllOwed()
            try rig.restart()
            #expect(rig.recovered.segments.contains { $0.isMerged })
            try rig.checkIndexes()
            try rig.loadAllOwed()
        }
    }

    @Test("publishers that wait for room are worth compacting for, far below the limit and with little left")
    func pressure() throws {
        var plan = Self.plan()
        plan.compactionSlackBytes = 1 << 40
        let room = FileSystemSpace(free: UInt64(plan.segmentBytes), total: 8 << 20)
        for space in [nil, room] {
            var rig = try Self.pinned(plan: plan)
            rig.disk.space = space
            let before = rig.logBytes
            rig.append(.inboundVoided(SessionID(3)))
            try rig.settle()
            try rig.liveOn(200)
            #expect(rig.mergedNames.isEmpty == (space == nil))
            #expect((rig.logBytes < before * 2 / 3) == (space != nil))
            try rig.loadAllOwed()
        }
    }

    @Test("a merged file is compacted again with what came after it")
    func again() throws {
        var rig = try Self.pinned()
        try rig.liveOn(200)
        let first = rig.mergedNames
        rig.acknowledge(8)
        for n in 0..<120 {
            rig.appendMessage(isPinned: n % 12 == 0, Array(repeating: 7, count: 2000))
            try rig.liveOn(5)
        }
        try rig.liveOn(300)
        #expect(rig.mergedNames != first)
        try rig.restart()
        try rig.checkIndexes()
        try rig.loadAllOwed()
    }

    @Test("a short segment that is owed whole is not lost between neighbours of which little is")
    func shortSegments() throws {
        var plan = Self.plan()
        plan.segmentBytes = 128 << 10
        var rig = try Self.pinned(90, plan: plan)
        for n in 0..<4 {
            rig.appendMessage(isPinned: true, Samples.payload(n, bytes: 200))
            try rig.settle()
            try rig.restart()
        }
        for n in 0..<90 {
            rig.appendMessage(isPinned: n % 12 == 0, Samples.payload(n, bytes: 2000))
            try rig.settle()
        }
        for _ in 0..<2 {
            rig.append(.inboundVoided(SessionID(3)))
            try rig.checkpoint()
        }
        let short = rig.recovered.segments.count { $0.end < 4 * pageBytes }
        try rig.liveOn(300)
        #expect(short >= 4 && !rig.mergedNames.isEmpty)
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
    }

    @Test("a power cut at any step loses nothing and doubles nothing", arguments: 0..<3)
    func powerCuts(round: Int) throws {
        let start = try Self.pinned(72, recycles: round == 1)
        var cuts = 0
        for step in 0..<400 {
            var rig = start
            var dice = Dice(UInt64(step * 3 + round))
            rig.acknowledge(2)
            rig.disk.stepsLeft = step
            do {
                try rig.liveOn(200)
                rig.disk.stepsLeft = .max
                break
            } catch is PowerCut {
                rig.collect()
                cuts += 1
            }
            rig.disk.losePower(&dice)
            rig.disk.stepsLeft = .max
            try rig.restart()
            try rig.checkIndexes()
            try rig.loadAllOwed()
            rig.append(.inboundVoided(SessionID(3)))
            try rig.liveOn(200)
            #expect(!rig.mergedNames.isEmpty)
            try rig.loadAllOwed()
            try rig.restart()
            try rig.loadAllOwed()
        }
        #expect(cuts > 20)
    }

    @Test(
        "whatever fails on the way, the journal goes on and nothing is lost", arguments: Fault.Kind.allCases)
    func failures(kind: Fault.Kind) throws {
        let start = try Self.pinned(72)
        var strikes = 0
        for step in 0..<40 {
            for error in [Fault.noSpace, Fault.broken] {
                var rig = start
                rig.disk.fault = Fault(after: step, errorNumber: error, kind: kind)
                try rig.liveOn(200, milliseconds: 500)
                strikes += rig.disk.strikes
                rig.disk.fault = nil
                #expect(!rig.journal.hasFailed && rig.disk.abused.isEmpty)
                #expect(!rig.mergedNames.isEmpty || kind == .read)
                rig.append(.inboundVoided(SessionID(3)))
                try rig.settle()
                #expect(rig.promised == rig.journal.last)
                try rig.loadAllOwed()
                try rig.restart()
                try rig.checkIndexes()
                try rig.loadAllOwed()
            }
        }
        #expect(strikes > 0)
    }

    @Test("what is settled but not durable keeps the victims: a power cut brings the debt back")
    func unprovenSettlement() throws {
        for round in 0..<20 as Range<UInt64> {
            var rig = try Self.pinned()
            var dice = Dice(round)
            rig.acknowledge(5)
            try rig.liveOn(30, milliseconds: 50)
            rig.disk.losePower(&dice)
            try rig.restart()
            try rig.loadAllOwed()
        }
    }

    @Test("messages that are being read while their segment is replaced arrive")
    func readers() throws {
        var rig = try Self.pinned()
        var asked = 0
        for _ in 0..<150 {
            rig.now = rig.now.advanced(byMilliseconds: 100)
            rig.journal.tick(at: rig.now)
            if rig.journal.wantsCompaction { rig.journal.compact(by: rig.ledger, at: rig.now) }
            rig.journal.load(SessionID(1), rig.ledger.owed)
            asked += 1
            _ = try rig.work()
        }
        try rig.settle()
        var answered = 0
        for event in rig.events {
            guard case .loaded(_, let messages) = event else { continue }
            answered += 1
            #expect(messages.map(\.0) == rig.ledger.owed && messages.allSatisfy { $0.1 != nil })
        }
        #expect(answered == asked && !rig.mergedNames.isEmpty)
    }

    @Test("it writes no faster than it may, and nothing while a commit is due")
    func rate() throws {
        var plan = Self.plan()
        plan.compactionBytesPerSecond = 64 << 10
        var rig = try Self.pinned(plan: plan)
        let start = rig.now
        var written = 0
        for round in 0..<600 {
            rig.now = rig.now.advanced(byMilliseconds: 20)
            if round % 5 == 0 { rig.append(.inboundVoided(SessionID(3))) }
            let isDue = round % 5 == 0
            rig.journal.tick(at: rig.now)
            if rig.journal.wantsCompaction { rig.journal.compact(by: rig.ledger, at: rig.now) }
            var operations: [DiskOperation] = []
            rig.journal.takeOperations(into: &operations)
            for operation in operations {
                if case .writePart(_, _, let bytes) = operation.action {
                    #expect(!isDue)
                    let allowed =
                        plan.compactionBytesPerSecond * Int(rig.now.milliseconds(since: start)) / 1000
                    #expect(written <= allowed)
                    written += bytes.count
                }
                rig.journal.completed(try rig.disk.perform(operation), at: rig.now)
            }
            rig.collect()
        }
        #expect(written > 0)
    }

    @Test("a merged file with a damaged header is found by its footer, and none of its messages is lost")
    func damagedHeader() throws {
        var rig = try Self.pinned()
        try rig.liveOn(200)
        try rig.restart()
        for name in rig.mergedNames {
            var bytes = rig.disk.content(name)
            bytes[100] ^= 1
            rig.disk.put(name, bytes)
        }
        var found = Ledger()
        rig.recovered = try Recovery.recover(&rig.disk) { found.apply($0, at: $1) }
        #expect(found == rig.ledger && rig.recovered.report.damaged.count == rig.mergedNames.count)
        rig.journal = Journal(plan: rig.plan, recovered: rig.recovered)
        try rig.loadAllOwed()
    }

    @Test("a batch that does not verify leaves its segment as it is")
    func damagedVictim() throws {
        var rig = try Self.pinned()
        let first = StoreFile.segment(1).name
        var bytes = rig.disk.content(first)
        bytes[pageBytes + 100] ^= 1
        rig.disk.put(first, bytes)
        try rig.liveOn(300)
        #expect(rig.disk.fileNames().contains(first))
    }

    @Test("random lives, each ended by a power cut or a kill", arguments: 0..<60)
    func lives(seed: Int) throws {
        var dice = Dice(UInt64(seed) + 77_000)
        var plan = Self.plan()
        plan.compactionSlackBytes = 32 << 10
        var rig = try Rig(try #require(testStore), plan: plan, recycles: seed % 2 == 1)
        for _ in 0..<5 {
            rig.disk.stepsLeft = 100 + dice.below(600)
            let isKilled = dice.below(4) == 0
            do {
                for _ in 0..<150 {
                    for _ in 0..<dice.below(5) {
                        rig.appendMessage(isPinned: dice.below(6) == 0, dice.bytes(upTo: 3000))
                    }
                    if dice.below(6) == 0 { rig.acknowledge(dice.below(min(rig.ledger.owed.count, 6) + 1)) }
                    if dice.below(40) == 0 { rig.journal.beginCheckpoint(of: rig.ledger, at: rig.now) }
                    try rig.liveOn(1 + dice.below(4), milliseconds: UInt64(1 + dice.below(200)))
                }
            } catch is PowerCut {
                rig.collect()
            }
            if !isKilled { rig.disk.losePower(&dice) }
            rig.disk.stepsLeft = .max
            try rig.restart()
            try rig.checkIndexes()
            try rig.loadAllOwed()
        }
    }
}
