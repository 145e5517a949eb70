import GatewayCore
import Testing

@testable import Journal

@Suite("The journal")
struct JournalTests {
    static func rig(_ change: (inout JournalPlan) -> Void = { _ in }) throws -> Rig {
        var plan = Rig.smallPlan()
        change(&plan)
        return try Rig(try #require(testStore), plan: plan)
    }

    static func durables(_ events: [StorageEvent]) -> [UInt64] {
        events.compactMap { if case .durable(let position) = $0 { position.number } else { nil } }
    }

    static func pressures(_ events: [StorageEvent]) -> [Bool] {
        events.compactMap { if case .pressure(let presses) = $0 { presses } else { nil } }
    }

    @Test("A1-A7: durable is told only after the sync that covers the Record, one batch at a time")
    func durableAfterSync() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("1"))
        rig.journal.tick(at: rig.now)
        var operations: [DiskOperation] = []
        rig.journal.takeOperations(into: &operations)
        guard case .createSegment? = operations.first?.action, operations.count == 1 else {
            Issue.record("the first operation creates the segment")
            return
        }
        rig.journal.completed(try rig.disk.perform(operations[0]), at: rig.now)
        rig.collect()
        #expect(Self.durables(rig.events) == [])
        operations = []
        rig.journal.takeOperations(into: &operations)
        guard case .write? = operations.first?.action, operations.count == 1 else {
            Issue.record("then the batch is written")
            return
        }
        // These come while it is in flight and share the next batch.
        rig.append(Samples.plain("2"))
        rig.append(Samples.plain("3"))
        rig.journal.tick(at: rig.now)
        var more: [DiskOperation] = []
        rig.journal.takeOperations(into: &more)
        #expect(more.isEmpty)
        rig.journal.completed(try rig.disk.perform(operations[0]), at: rig.now)
        rig.collect()
        #expect(Self.durables(rig.events) == [1])
        try rig.settle()
        #expect(Self.durables(rig.events) == [1, 3])
    }

    @Test("A8: lazy Records ride along with prompt ones, or go alone after their delay")
    func lazy() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("lazy"), .lazy)
        try rig.settle()
        #expect(Self.durables(rig.events) == [])
        #expect(rig.journal.nextDeadline == rig.now.advanced(byMilliseconds: 5000))
        rig.append(Samples.plain("prompt"))
        try rig.settle()
        #expect(Self.durables(rig.events) == [2])
        #expect(rig.journal.nextDeadline == nil)
        rig.append(Samples.plain("alone"), .lazy)
        rig.now = rig.now.advanced(byMilliseconds: 4999)
        try rig.settle()
        #expect(Self.durables(rig.events) == [2])
        rig.now = rig.now.advanced(byMilliseconds: 1)
        try rig.settle()
        #expect(Self.durables(rig.events) == [2, 3])
    }

    @Test("loads answer from disk, from the batch in flight and from what is not written yet, in one event")
    func loads() throws {
        var rig = try Self.rig()
        for n in 1...3 { rig.append(Samples.plain("disk \(n)")) }
        try rig.settle()
        rig.append(Samples.plain("flight"))
        rig.journal.tick(at: rig.now)
        rig.append(Samples.plain("buffer"))
        try rig.loadAllOwed()
        #expect(rig.ledger.owed.count == 5)
        rig.events = []
        rig.journal.load(SessionID(2), [Position(1), Position(99)])
        rig.collect()
        while try rig.work() {}
        guard case .loaded(let session, let answers)? = rig.events.last else {
            Issue.record("no answer")
            return
        }
        #expect(session == SessionID(2) && answers.map(\.0) == [Position(1), Position(99)])
        #expect(answers.allSatisfy { $0.1 == nil })
    }

    @Test("positions in one batch are read once")
    func groupedLoads() throws {
        var rig = try Self.rig()
        for n in 1...20 { rig.append(Samples.plain("m\(n)")) }
        try rig.settle()
        rig.journal.load(SessionID(1), (1...20).map { Position($0) })
        var operations: [DiskOperation] = []
        rig.journal.takeOperations(into: &operations)
        #expect(operations.count == 1)
    }

    @Test("checkpoints free segments in which nothing is owed, and keep those in which something is")
    func deletion() throws {
        var rig = try Self.rig()
        var dice = Dice(3)
        for n in 0..<100 {
            rig.append(Samples.plain("m\(n)", payload: (0..<2000).map { _ in UInt8(dice.below(256)) }))
            try rig.settle()
        }
        let full = rig.disk.fileNames().filter { $0.hasPrefix("seg-") }.count
        #expect(full > 5)
        // All but the last ten are settled; the first checkpoint is not yet a fallback, the second is.
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(90), settledAbove: [])))
        try rig.checkpoint()
        #expect(rig.disk.fileNames().filter { $0.hasPrefix("seg-") }.count == full)
        rig.append(.inboundVoided(SessionID(3)))
        try rig.checkpoint()
        let left = rig.disk.fileNames().filter { $0.hasPrefix("seg-") }.count
        #expect(left < full / 2)
        #expect(rig.ledger.owed.count == 10)
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
        // Two checkpoints stay, however many are made.
        for _ in 0..<3 {
            rig.append(.inboundVoided(SessionID(3)))
            try rig.checkpoint()
        }
        #expect(rig.disk.fileNames().filter { $0.hasPrefix("ckpt-") }.count == 2)
        try rig.restart()
        try rig.loadAllOwed()
    }

    @Test("a checkpoint that replaces one at the same position is not its own fallback")
    func checkpointTwiceInOnePlace() throws {
        var rig = try Self.rig()
        for n in 0..<60 {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        try rig.checkpoint()
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(60), settledAbove: [])))
        for n in 0..<60 {
            rig.append(Samples.plain("n\(n)", to: 2, payload: Array(repeating: 1, count: 2000)))
        }
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(120), settledAbove: [])))
        // The second at one place is that of a clean stop right after the first.
        try rig.checkpoint()
        try rig.checkpoint()
        let newest = try #require(rig.disk.fileNames().last { $0.hasPrefix("ckpt-") })
        rig.disk.remove(newest)
        try rig.restart()
    }

    @Test("a checkpoint waits until the log is durable up to it, and deletes only once it is durable itself")
    func checkpointOrder() throws {
        var rig = try Self.rig()
        for n in 0..<60 {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(60), settledAbove: [])))
        try rig.checkpoint()
        rig.append(.inboundVoided(SessionID(3)), .lazy)
        rig.journal.beginCheckpoint(of: rig.ledger, at: rig.now)
        var seen: [String] = []
        while true {
            var operations: [DiskOperation] = []
            rig.journal.takeOperations(into: &operations)
            guard let operation = operations.first else { break }
            #expect(operations.count == 1)
            switch operation.action {
            case .write: seen.append("write")
            case .writeCheckpoint: seen.append("checkpoint")
            case .delete: seen.append("delete")
            case .createSegment, .reuseSegment, .writeFooter, .retire, .makeReserve, .read, .measureSpace,
                .writePart,
                .publish:
                seen.append("other")
            }
            rig.journal.completed(try rig.disk.perform(operation), at: rig.now)
        }
        #expect(seen == ["write", "checkpoint", "delete"])
    }

    @Test("P4: pressure is told at the limit and taken back below nine tenths of it")
    func pressure() throws {
        var rig = try Self.rig { $0.sizeLimitBytes = 256 << 10 }
        var count: UInt64 = 0
        while !rig.events.contains(where: { if case .pressure(true) = $0 { true } else { false } }) {
            rig.append(Samples.plain("m", payload: Array(repeating: 1, count: 3000)))
            count += 1
            try rig.settle()
            try #require(count < 200)
        }
        #expect(count > 40)
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(count), settledAbove: []))
        )
        try rig.settle()
        #expect(!rig.journal.wantsCheckpoint || rig.journal.coveredPosition == .zero)
        for _ in 0..<2 {
            rig.now = rig.now.advanced(byMilliseconds: 31_000)
            try rig.settle()
            #expect(rig.journal.wantsCheckpoint)
            try rig.checkpoint()
            rig.append(.inboundVoided(SessionID(3)))
        }
        guard
            case .pressure(false)? = rig.events.last(where: { if case .pressure = $0 { true } else { false } }
            )
        else {
            Issue.record("pressure stays")
            return
        }
    }

    /// A journal under pressure, and how many messages it holds.
    static func fullRig(_ change: (inout JournalPlan) -> Void = { _ in }) throws -> (rig: Rig, count: UInt64)
    {
        var rig = try Self.rig {
            $0.sizeLimitBytes = 256 << 10
            change(&$0)
        }
        while Self.pressures(rig.events) != [true] {
            rig.append(Samples.plain("m", payload: Array(repeating: 1, count: 3000)))
            try rig.settle()
            try #require(rig.history.count < 200 * rig.plan.sizeLimitBytes / (256 << 10))
        }
        return (rig, UInt64(rig.history.count - 1))
    }

    @Test("P4: pressure ends once nothing is owed, although every publisher is refused and nothing comes")
    func pressureEndsInSilence() throws {
        var (rig, count) = try Self.fullRig()
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(count), settledAbove: []))
        )
        let taken = try rig.passQuietly(halfMinutes: 10)
        #expect(taken.records == 1 && taken.checkpoints == 2)
        #expect(Self.pressures(rig.events) == [true, false])
        // Should the newest checkpoint be lost, the one before still leads to the same state.
        let newest = try #require(rig.disk.fileNames().last { $0.hasPrefix("ckpt-") })
        rig.disk.remove(newest)
        try rig.restart()
    }

    @Test("P4: also when a restart has forgotten what the checkpoint before it left")
    func pressureEndsAfterRestart() throws {
        var (rig, count) = try Self.fullRig()
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(count), settledAbove: []))
        )
        try rig.checkpoint()
        rig.journal.close(at: rig.now)
        try rig.settle()
        try rig.restart()
        rig.collect()
        #expect(Self.pressures(rig.events) == [true] && !rig.journal.wantsRecord)
        let taken = try rig.passQuietly(halfMinutes: 10)
        #expect(taken.records == 1 && taken.checkpoints == 1)
        #expect(Self.pressures(rig.events) == [true, false])
    }

    @Test("P4: while everything is owed, pressure costs one checkpoint and then no more writes")
    func pressureThatLasts() throws {
        var (rig, _) = try Self.fullRig()
        let taken = try rig.passQuietly(halfMinutes: 10)
        #expect(taken.records == 0 && taken.checkpoints == 1)
        #expect(Self.pressures(rig.events) == [true])
        try rig.loadAllOwed()
    }

    @Test("P4, P7: while everything is owed, what is recorded now and then costs ever fewer checkpoints")
    func pressureThatLastsWithRecords() throws {
        var (rig, count) = try Self.fullRig {
            $0.segmentBytes = 256 << 10
            $0.sizeLimitBytes = 8 * $0.segmentBytes
            $0.checkpointGrowthBytes = 1 << 30
        }
        _ = try rig.passQuietly(halfMinutes: 3)
        var taken = 0
        // Less than a quarter of what the log may grow by.
        for _ in 0..<7 {
            rig.append(.counters(nextSession: 1))
            taken += try rig.passQuietly(halfMinutes: 1).checkpoints
        }
        #expect(taken == 3 && Self.pressures(rig.events) == [true])
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(count), settledAbove: []))
        )
        let freeing = try rig.passQuietly(halfMinutes: 10).checkpoints
        #expect(freeing > 0 && freeing <= 2)
        #expect(Self.pressures(rig.events) == [true, false])
        try rig.restart()
    }

    @Test("P4: what acknowledges a backlog under pressure makes room as it goes, however fast it comes")
    func acknowledgingUnderPressure() throws {
        var (rig, count) = try Self.fullRig { $0.checkpointGrowthBytes = 1 << 30 }
        var most = 0
        for number in 1...count {
            rig.append(
                .acknowledged(
                    AcknowledgedRecord(session: SessionID(1), floor: Delivery(number), settledAbove: [])))
            try rig.settle()
            if rig.journal.wantsCheckpoint { try rig.checkpoint() }
            most = max(most, rig.disk.fileNames().reduce(0) { $0 + rig.disk.content($1).count })
        }
        #expect(most <= rig.plan.sizeLimitBytes + 3 * rig.plan.segmentBytes)
        #expect(Self.pressures(rig.events).last == false)
        try rig.restart()
    }

    @Test("P4: a file system that others fill is pressure too, and is measured until it is over")
    func fileSystemPressure() throws {
        var rig = try Self.rig()
        rig.disk.space = FileSystemSpace(free: 40 << 20, total: 1 << 30)
        rig.append(Samples.plain("1"))
        try rig.settle()
        #expect(Self.pressures(rig.events) == [true])
        // Compaction, which also has deadlines while there is pressure, may come first.
        func waits() throws {
            for _ in 0..<100 where Self.pressures(rig.events) == [true] {
                rig.now = try #require(rig.journal.nextDeadline)
                try rig.settle()
            }
        }
        rig.disk.space = FileSystemSpace(free: 54 << 20, total: 1 << 30)
        try waits()
        #expect(Self.pressures(rig.events) == [true])
        rig.disk.space = FileSystemSpace(free: 100 << 20, total: 1 << 30)
        try waits()
        #expect(Self.pressures(rig.events) == [true, false])
        #expect(rig.journal.nextDeadline == nil)
    }

    @Test("P4: a file system that is nearly full at the start is pressure before the first write fails")
    func pressureFromTheStart() throws {
        var rig = try Self.rig()
        rig.recovered.space = FileSystemSpace(free: 1 << 20, total: 1 << 30)
        rig.journal = Journal(plan: rig.plan, recovered: rig.recovered)
        rig.collect()
        #expect(Self.pressures(rig.events) == [true])
        rig.disk.space = FileSystemSpace(free: 100 << 20, total: 1 << 30)
        rig.now = max(rig.now, try #require(rig.journal.nextDeadline))
        try rig.settle()
        #expect(Self.pressures(rig.events) == [true, false])
    }

    @Test(
        "P4: while a sync stalls, what gathers behind it is pressure at a limit and until half of it is written"
    )
    func backlog() throws {
        var rig = try Self.rig { $0.bufferBytesMax = 64 << 10 }
        func pressures() -> [Bool] { Self.pressures(rig.events) }
        rig.append(Samples.plain("first"))
        try rig.settle()
        for n in 0..<24 {
            // 20 Records of about 3200 bytes are below the limit, 21 above.
            #expect(pressures() == (n > 20 ? [true] : []))
            rig.append(Samples.plain("m", payload: Array(repeating: 1, count: 3072)))
            rig.journal.tick(at: rig.now)
            rig.collect()
        }
        // Each sync takes a batch of three.
        for _ in 0..<3 { _ = try rig.work() }
        #expect(pressures() == [true])
        try rig.settle()
        #expect(pressures() == [true, false])
    }

    @Test("P4: pressure of the disk and of memory are told as one, and end with the later")
    func onePressure() throws {
        var rig = try Self.rig { $0.bufferBytesMax = 64 << 10 }
        rig.disk.space = FileSystemSpace(free: 40 << 20, total: 1 << 30)
        rig.append(Samples.plain("1"))
        try rig.settle()
        #expect(Self.pressures(rig.events) == [true])
        for _ in 0..<30 { rig.append(Samples.plain("m", payload: Array(repeating: 1, count: 3072))) }
        rig.journal.tick(at: rig.now)
        rig.now = try #require(rig.journal.nextDeadline)
        rig.journal.tick(at: rig.now)
        var operations: [DiskOperation] = []
        rig.journal.takeOperations(into: &operations)
        // The batch in flight is not answered, the measurement is.
        rig.disk.space = FileSystemSpace(free: 100 << 20, total: 1 << 30)
        guard operations.count == 2, case .measureSpace = operations[1].action else {
            Issue.record("space is measured while it is short")
            return
        }
        rig.journal.completed(try rig.disk.perform(operations[1]), at: rig.now)
        rig.collect()
        #expect(Self.pressures(rig.events) == [true])
        rig.journal.completed(try rig.disk.perform(operations[0]), at: rig.now)
        try rig.settle()
        #expect(Self.pressures(rig.events) == [true, false])
    }

    @Test("a Record larger than a segment gets a segment of its own")
    func jumbo() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("small"))
        rig.append(Samples.plain("huge", payload: Array(repeating: 7, count: 200_000)))
        rig.append(Samples.plain("small again"))
        try rig.settle()
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
        #expect(rig.recovered.segments.count == 3)
    }

    @Test("a clean stop flushes the lazy Records and says so; an unclean one does not")
    func cleanStop() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("1"), .lazy)
        rig.journal.close(at: rig.now)
        try rig.settle()
        #expect(rig.journal.isClosed)
        try rig.restart()
        #expect(rig.recovered.wasCleanShutdown && rig.recovered.last == Position(1))
        #expect(rig.recovered.boot == 1)
        rig.append(Samples.plain("2"))
        try rig.settle()
        try rig.restart()
        #expect(!rig.recovered.wasCleanShutdown && rig.recovered.boot == 2)
        // Nothing written, nothing to flush, but the log must still say that it ended well.
        rig.journal.close(at: rig.now)
        try rig.settle()
        #expect(rig.journal.isClosed)
        try rig.restart()
        #expect(rig.recovered.wasCleanShutdown)
    }

    @Test("clock and trusted wall clock come back from the newest batch, also by way of a checkpoint")
    func clock() throws {
        var rig = try Self.rig()
        rig.now = Instant(milliseconds: 777_000)
        rig.journal.note(WallReading(milliseconds: 1_700_000_000_000, isTrusted: true), at: rig.now)
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.now = Instant(milliseconds: 800_000)
        rig.journal.note(WallReading(milliseconds: 5, isTrusted: false), at: rig.now)
        rig.append(Samples.plain("2"))
        try rig.settle()
        let anchor = WallAnchor(clock: Instant(milliseconds: 777_000), wallMilliseconds: 1_700_000_000_000)
        try rig.restart()
        #expect(rig.recovered.clock == Instant(milliseconds: 800_000))
        #expect(rig.recovered.anchor == anchor)
        try rig.checkpoint()
        for file in rig.disk.fileNames() where file.hasPrefix("seg-") { rig.disk.remove(file) }
        let log = try Recovery.recover(&rig.disk) { _, _ in }
        #expect(log.clock == Instant(milliseconds: 800_000) && log.anchor == anchor)
        #expect(log.last == Position(2))
    }
}
