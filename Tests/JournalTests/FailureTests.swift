import GatewayCore
import Testing

@testable import Journal

/// What the journal makes of errors of the disk, without a restart.
@Suite("Disk errors")
struct FailureTests {
    enum Told: Equatable { case durable(UInt64), pressure(Bool), failed, recovered }

    static func told(_ events: [StorageEvent]) -> [Told] {
        events.compactMap { event in
            switch event {
            case .durable(let position): .durable(position.number)
            case .pressure(let presses): .pressure(presses)
            case .failed: .failed
            case .recovered: .recovered
            case .elided, .sealed, .indexed, .loaded, .stuck: nil
            }
        }
    }

    static func segments(_ rig: Rig) -> [String] { rig.disk.fileNames().filter { $0.hasPrefix("seg-") } }

    @Test(
        "one failed write or sync: the Records go to a new segment at once, nobody is told, nothing is promised twice",
        arguments: [Fault.Kind.write, .sync], [Fault.broken, Fault.noSpace])
    func onceInTheBatch(kind: Fault.Kind, errorNumber: Int32) throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.append(Samples.plain("2"))
        rig.append(Samples.plain("3"))
        rig.disk.fault = Fault(after: 0, errorNumber: errorNumber, kind: kind)
        try rig.settle()
        let expected: [Told] =
            errorNumber == Fault.noSpace
            ? [.durable(1), .pressure(true), .pressure(false), .durable(3)] : [.durable(1), .durable(3)]
        #expect(
            Self.told(rig.events).filter { $0 != .pressure(true) }
                == expected.filter { $0 != .pressure(true) })
        #expect(Self.segments(rig).count == 2 && rig.disk.abused.isEmpty)
        try rig.loadAllOwed()
        try rig.restart()
        #expect(rig.recovered.last == Position(3))
        try rig.loadAllOwed()
    }

    @Test(
        "a disk that stays broken has failed: told once, tried ever less often, and told when it works again")
    func failedAndRecovered() throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.disk.failWrites = Fault.broken
        rig.append(Samples.plain("2"))
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .failed] && rig.journal.hasFailed)
        var pauses: [UInt64] = []
        for n in 0..<9 {
            let next = try #require(rig.journal.nextDeadline)
            pauses.append(next.milliseconds(since: rig.now))
            rig.now = next
            rig.append(Samples.plain("more \(n)"))
            try rig.settle()
        }
        #expect(pauses == [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000])
        #expect(Self.told(rig.events) == [.durable(1), .failed])
        // What was durable is read meanwhile.
        rig.journal.load(SessionID(1), [Position(1)])
        rig.collect()
        while try rig.work() {}
        guard case .loaded(_, let answers)? = rig.events.last else {
            Issue.record("no answer")
            return
        }
        #expect(answers.first?.1 != nil)
        rig.disk.failWrites = nil
        rig.now = try #require(rig.journal.nextDeadline)
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .failed, .recovered, .durable(11)])
        #expect(!rig.journal.hasFailed && rig.journal.nextDeadline == nil)
        try rig.restart()
        #expect(rig.recovered.last == Position(11))
    }

    @Test("a file system that became read-only has failed at once")
    func readOnly() throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.readOnly, times: .max)
        rig.append(Samples.plain("2"))
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .failed] && rig.disk.strikes == 1)
        rig.disk.fault = nil
        rig.now = try #require(rig.journal.nextDeadline)
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .failed, .recovered, .durable(2)])
    }

    /// One Record is durable, and there is a reserve.
    private static func rigWithReserve(_ space: FileSystemSpace) throws -> Rig {
        var rig = try JournalTests.rig { $0.reserveBytes = 16 << 10 }
        rig.disk.space = space
        rig.append(Samples.plain("1"))
        try rig.settle()
        #expect(rig.disk.content("reserve").count == 16 << 10)
        return rig
    }

    @Test("P4: a full disk costs the reserve, is pressure until there is a reserve again, and no failure")
    func full() throws {
        var rig = try Self.rigWithReserve(FileSystemSpace(free: 1 << 30, total: 2 << 30))
        // The reserve's bytes are room again once it is deleted.
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.noSpace, kind: .write)
        rig.disk.space = FileSystemSpace(free: 0, total: 2 << 30)
        rig.append(Samples.plain("2"))
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .pressure(true), .durable(2)])
        #expect(!rig.disk.fileNames().contains("reserve"))
        // What frees space is still written.
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(1), settledAbove: [])))
        try rig.settle()
        #expect(Self.told(rig.events).last == .durable(3))
        rig.disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        for _ in 0..<3 {
            rig.now = rig.now.advanced(byMilliseconds: 5000)
            try rig.settle()
        }
        #expect(
            Self.told(rig.events) == [
                .durable(1), .pressure(true), .durable(2), .durable(3), .pressure(false),
            ])
        #expect(rig.disk.content("reserve").count == 16 << 10)
        #expect(rig.journal.nextDeadline == nil)
        try rig.restart()
        #expect(rig.recovered.hasReserve)
    }

    @Test("P4: a restart is no reserve: where there is none, and no room for one, there is pressure")
    func noReserveAfterRestart() throws {
        var rig = try Self.rigWithReserve(FileSystemSpace(free: 1 << 20, total: 1 << 20))
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.noSpace, kind: .write)
        // Pressure would be over, but there is no room for a reserve.
        rig.disk.space = FileSystemSpace(free: UInt64(rig.plan.segmentBytes) * 34 / 10, total: 1 << 20)
        rig.append(Samples.plain("2"))
        try rig.settle()
        #expect(!rig.disk.fileNames().contains("reserve"))
        try rig.restart()
        rig.append(Samples.plain("3"))
        try rig.settle()
        #expect(Self.told(rig.events) == [.pressure(true), .durable(3)])
        rig.disk.space = FileSystemSpace(free: 1 << 20, total: 1 << 20)
        for _ in 0..<2 {
            rig.now = rig.now.advanced(byMilliseconds: 5000)
            try rig.settle()
        }
        #expect(Self.told(rig.events) == [.pressure(true), .durable(3), .pressure(false)])
        #expect(rig.disk.content("reserve").count == 16 << 10)
    }

    /// A ledger with as much beside it as many retained messages would have.
    private struct LargeState: CheckpointSource {
        let ledger: Ledger
        let bytes: Int

        func snapshot(_ body: (Record) -> Void) {
            ledger.snapshot(body)
            for n in 0..<bytes / 1024 {
                body(.profiled(SessionID(UInt64(n)), String(repeating: "x", count: 1010)))
            }
        }
        func owes(from first: Position, through last: Position) -> Bool {
            ledger.owes(from: first, through: last)
        }
        func owedCount(in stretch: Stretch) -> Int { ledger.owedCount(in: stretch) }
        func needs(_ session: SessionID, _ delivery: Delivery) -> Bool { ledger.needs(session, delivery) }
        func strayPositions(in stretch: Stretch) -> Set<Position> { ledger.strayPositions(in: stretch) }
    }

    @Test(
        "P4: what must stay free has room for a checkpoint, however large it is, and for what comes between two"
    )
    func roomForCheckpoint() throws {
        var rig = try JournalTests.rig { $0.checkpointGrowthBytes = 1 << 30 }
        let least = UInt64(3 * rig.plan.segmentBytes)
        // Far from pressure, as long as a checkpoint is small.
        rig.disk.space = FileSystemSpace(free: 2 * least - least / 5, total: 1 << 20)
        rig.append(Samples.plain("1"))
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1)])
        rig.journal.beginCheckpoint(of: LargeState(ledger: rig.ledger, bytes: Int(least)), at: rig.now)
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .pressure(true)])
        // Half a segment would be less than the last checkpoint had, and that is more than the room that is kept bears.
        var bytes = 0
        while !rig.journal.wantsCheckpoint {
            bytes += pageBytes
            rig.append(Samples.plain("m", payload: Array(repeating: 1, count: 3000)))
            try rig.settle()
            try #require(bytes < 1 << 20)
        }
        #expect(bytes <= Int(least) / 4 + pageBytes)
        // One that fails covers nothing.
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.broken, times: 1)
        try rig.checkpoint()
        rig.now = rig.now.advanced(byMilliseconds: 2000)
        try rig.settle()
        let isStillWanted = rig.journal.wantsCheckpoint
        try rig.checkpoint()
        let isWantedAgain = rig.journal.wantsCheckpoint
        #expect(isStillWanted && !isWantedAgain)
    }

    @Test("P4: a reserve that a quota has no room for is owed, and free files are given up for it")
    func quota() throws {
        var rig = try JournalTests.rig { $0.reserveBytes = 16 << 10 }
        rig.disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        rig.append(Samples.plain("1"))
        rig.journal.tick(at: rig.now)
        // The segment, and then the reserve.
        _ = try rig.work()
        rig.disk.fault = Fault(after: 0, errorNumber: 122, kind: .write, times: 1)
        try rig.settle()
        #expect(Self.told(rig.events).contains(.pressure(true)), "\(rig.events)")
        for _ in 0..<4 {
            rig.now = rig.now.advanced(byMilliseconds: 5000)
            try rig.settle()
        }
        #expect(Self.told(rig.events).last == .pressure(false))
        #expect(rig.disk.content("reserve").count == 16 << 10)
    }

    @Test("P4: a disk that stays full, with nothing to give up, is waited for")
    func staysFull() throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.noSpace, times: .max)
        rig.append(Samples.plain("2"))
        for _ in 0..<20 {
            try rig.settle()
            rig.now = rig.now.advanced(byMilliseconds: 5000)
        }
        #expect(Self.told(rig.events) == [.durable(1), .pressure(true)] && !rig.journal.hasFailed)
        // Attempts leave nothing behind but what they could not help.
        #expect(Self.segments(rig).count <= 2)
        rig.disk.fault = nil
        rig.now = rig.now.advanced(byMilliseconds: 60_000)
        try rig.settle()
        #expect(Self.told(rig.events) == [.durable(1), .pressure(true), .pressure(false), .durable(2)])
        #expect(Self.stuck(rig) == [true, false])
        try rig.restart()
    }

    @Test("P4: nobody is told that nothing can be written while the reserve or another file still has room")
    func notStuck() throws {
        for times in 1...2 {
            var rig = try Self.rigWithReserve(FileSystemSpace(free: 1 << 30, total: 2 << 30))
            rig.disk.fault = Fault(after: 0, errorNumber: Fault.noSpace, kind: .write, times: times)
            rig.append(Samples.plain("2"))
            try rig.settle()
            #expect(Self.stuck(rig) == (times == 1 ? [] : [true]))
            rig.now = rig.now.advanced(byMilliseconds: 5000)
            try rig.settle()
            #expect(Self.stuck(rig) == (times == 1 ? [] : [true, false]))
        }
    }

    private static func stuck(_ rig: Rig) -> [Bool] {
        rig.events.compactMap { if case .stuck(let isStuck) = $0 { isStuck } else { nil } }
    }

    @Test("a void batch that is intact on the disk is never replayed beside what was written instead of it")
    func voidBatchStays() throws {
        for loss in 0..<60 as Range<UInt64> {
            var dice = Dice(loss)
            var rig = try JournalTests.rig()
            rig.append(Samples.plain("1"))
            try rig.settle()
            rig.append(Samples.plain("2"))
            rig.append(Samples.plain("3"))
            // Not only may the sync that failed have written everything: here it has.
            rig.journal.tick(at: rig.now)
            var operations: [DiskOperation] = []
            rig.journal.takeOperations(into: &operations)
            for operation in operations {
                _ = try rig.disk.perform(operation)
                let answer = DiskCompletion(
                    token: operation.token, outcome: .failed(errorNumber: Fault.broken))
                rig.journal.completed(answer, at: rig.now)
            }
            // What follows in the new segment has the same positions and more in one batch.
            rig.append(Samples.plain("4"))
            rig.disk.stepsLeft = dice.below(10)
            do { while try rig.work() {} } catch is PowerCut { rig.collect() }
            rig.disk.losePower(&dice)
            rig.disk.stepsLeft = .max
            try rig.restart()
            // Before the new header is durable the void batch may count, which contradicts nothing.
            #expect(rig.recovered.last >= Position(1) && rig.recovered.last <= Position(4))
            rig.append(Samples.plain("5"))
            try rig.settle()
            try rig.restart()
            try rig.loadAllOwed()
        }
    }

    @Test(
        "a successor that was created although its directory's sync failed, and is gone later, brings nothing back"
    )
    func lostSuccessor() throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        let before = rig.disk.content(StoreFile.segment(1).name)
        rig.append(Samples.plain("void"))
        try rig.settle()
        let void = Array(rig.disk.content(StoreFile.segment(1).name)[before.count...])
        // Another life, in which that batch failed and segment 2 took its place, was itself followed by segment 3,
        // and was then lost with its name.
        var other = try JournalTests.rig()
        other.append(Samples.plain("1"))
        try other.settle()
        try other.restart()
        other.append(Samples.plain("instead"))
        try other.settle()
        #expect(Self.segments(other).count == 2)
        var successor = other.disk.content(StoreFile.segment(2).name)
        let header = SegmentHeader(
            store: try #require(testStore), segment: 2,
            predecessor: SegmentEnd(segment: 0, offset: UInt64(pageBytes), last: Position(1)),
            clock: other.now, boot: 2)
        successor.replaceSubrange(0..<pageBytes, with: header.encoded)
        other.disk.put(StoreFile.segment(1).name, before + void)
        other.disk.put(StoreFile.segment(2).name, successor)
        var topics: [String] = []
        let log = try Recovery.recover(&other.disk) { record, _ in
            guard case .message(let message) = record else { return }
            topics.append(String(decoding: message.message.topic, as: UTF8.self))
        }
        #expect(topics == ["1", "instead"] && log.last == Position(2) && !log.report.isDamaged)
    }

    @Test("a segment that is in the cache alone, its header too, is none: two starts find the same")
    func headerInCacheAlone() throws {
        for round in 0..<24 {
            var rig = try JournalTests.rig()
            rig.append(Samples.plain("1"))
            try rig.settle()
            rig.append(Samples.plain("2", payload: Array(repeating: 1, count: 1 + 200 * round)))
            // Of the batch, and of the segments that come after it: nothing is ever written to those.
            rig.disk.fault = Fault(after: 0, errorNumber: Fault.broken, kind: .sync, times: 2 + round % 3)
            rig.journal.tick(at: rig.now)
            while rig.disk.strikes < 2 + round % 2 { guard try rig.work() else { break } }
            rig.disk.fault = nil
            // The process is killed; the machine, and with it the cache, goes on.
            try rig.restart()
            rig.append(Samples.plain("3"))
            try rig.settle()
            try rig.restart()
            try rig.loadAllOwed()
        }
    }

    @Test("a checkpoint that cannot be written is tried again later, and the log goes on meanwhile")
    func checkpointFails() throws {
        var rig = try JournalTests.rig()
        for n in 0..<60 {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        #expect(rig.journal.wantsCheckpoint)
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.broken, kind: .rename)
        try rig.checkpoint()
        #expect(rig.journal.coveredPosition == .zero && !rig.journal.wantsCheckpoint)
        rig.append(Samples.plain("on"))
        try rig.settle()
        #expect(Self.told(rig.events).last == .durable(61))
        rig.now = rig.now.advanced(byMilliseconds: 1000)
        try rig.settle()
        #expect(rig.journal.wantsCheckpoint)
        try rig.checkpoint()
        #expect(rig.journal.coveredPosition == Position(61))
        try rig.restart()
    }

    @Test("what cannot be deleted is deleted later")
    func deletionFails() throws {
        var rig = try JournalTests.rig()
        for n in 0..<60 {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        rig.append(
            .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(60), settledAbove: [])))
        try rig.checkpoint()
        rig.append(.inboundVoided(SessionID(3)))
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.broken, kind: .unlink)
        try rig.checkpoint()
        #expect(rig.disk.strikes == 1)
        let left = Self.segments(rig).count
        rig.now = try #require(rig.journal.nextDeadline)
        try rig.settle()
        #expect(Self.segments(rig).count < left && Self.segments(rig).count <= 2)
        #expect(Self.told(rig.events).allSatisfy { $0 != .failed })
        try rig.restart()
    }

    @Test("the end of a log on a broken disk is told instead of waited for")
    func closing() throws {
        var rig = try JournalTests.rig()
        rig.append(Samples.plain("1"))
        try rig.settle()
        rig.disk.fault = Fault(after: 0, errorNumber: Fault.noSpace, times: .max)
        rig.append(Samples.plain("2"), .lazy)
        rig.journal.close(at: rig.now)
        try rig.settle()
        #expect(Self.told(rig.events).last == .failed && !rig.journal.isClosed)
    }

    // MARK: Every call in turn

    struct Trial: CustomStringConvertible {
        var errorNumber: Int32
        var times: Int
        var recycles: Bool
        var description: String { "errno \(errorNumber), \(times) times, recycling \(recycles)" }
    }

    static let trials = [Fault.noSpace, Fault.broken, Fault.readOnly].flatMap { number in
        [1, 40].flatMap { times in
            [false, true].map { Trial(errorNumber: number, times: times, recycles: $0) }
        }
    }

    /// A gateway's work with checkpoints and deletions, in which the `call`-th call of the disk fails.
    ///
    /// - Returns: whether there were so many calls.
    static func work(_ trial: Trial, failing call: Int, thenCut: Bool) throws -> Bool {
        var dice = Dice(UInt64(call))
        var plan = Rig.smallPlan()
        plan.reserveBytes = 16 << 10
        var rig = try Rig(try #require(testStore), plan: plan, recycles: trial.recycles)
        rig.disk.fault = Fault(after: call, errorNumber: trial.errorNumber, times: trial.times)
        var script = Dice(7)
        for _ in 0..<30 {
            for _ in 0..<4 { rig.appendSomething(&script) }
            rig.now = rig.now.advanced(byMilliseconds: 1500)
            try rig.settle()
            if rig.journal.wantsCheckpoint { try rig.checkpoint() }
        }
        let struck = rig.disk.strikes > 0
        rig.disk.fault = nil
        // The fault is over: at the latest after the longest pause everything is durable and no state is left.
        for _ in 0..<4 {
            rig.now = rig.now.advanced(byMilliseconds: 60_000)
            try rig.settle()
        }
        #expect(rig.promised == rig.journal.last && !rig.journal.hasFailed)
        let told = Self.told(rig.events)
        #expect(told.count { $0 == .failed } == told.count { $0 == .recovered })
        #expect(told.count { $0 == .pressure(true) } == told.count { $0 == .pressure(false) })
        #expect(rig.disk.abused.isEmpty)
        try rig.loadAllOwed()
        if thenCut {
            for _ in 0..<4 { rig.appendSomething(&script) }
            rig.journal.tick(at: rig.now)
            rig.disk.stepsLeft = dice.below(6)
            do { while try rig.work() {} } catch is PowerCut { rig.collect() }
            rig.disk.losePower(&dice)
            rig.disk.stepsLeft = .max
        }
        try rig.restart()
        try rig.loadAllOwed()
        return struck
    }

    @Test(
        "each call in turn fails: nothing acknowledged is lost, and the state ends with the fault",
        arguments: trials)
    func everyCall(trial: Trial) throws {
        var call = 0
        while try Self.work(trial, failing: call, thenCut: call % 2 == 1) { call += 1 }
        #expect(call > 100)
    }

    @Test("power cuts on a disk that also fails now and then", arguments: 0..<200)
    func faultsAndPowerCuts(seed: Int) throws {
        var dice = Dice(UInt64(seed) + 900)
        var plan = Rig.smallPlan()
        plan.reserveBytes = seed % 3 == 0 ? 16 << 10 : 0
        var rig = try Rig(try #require(testStore), plan: plan, recycles: seed % 2 == 1)
        for _ in 0..<5 {
            rig.disk.stepsLeft = dice.below(250)
            do {
                for _ in 0..<60 {
                    if rig.disk.fault == nil, dice.below(4) == 0 {
                        let numbers = [Fault.noSpace, Fault.broken, Fault.readOnly]
                        rig.disk.fault = Fault(
                            after: dice.below(20), errorNumber: numbers[dice.below(3)],
                            times: 1 + dice.below(8))
                    }
                    for _ in 0..<dice.below(6) { rig.appendSomething(&dice) }
                    rig.now = rig.now.advanced(byMilliseconds: UInt64(dice.below(4000)))
                    rig.journal.tick(at: rig.now)
                    if rig.journal.wantsCheckpoint || dice.below(30) == 0 {
                        rig.journal.beginCheckpoint(of: rig.ledger, at: rig.now)
                    }
                    for _ in 0..<dice.below(4) { _ = try rig.work() }
                }
            } catch is PowerCut {
                rig.collect()
            }
            rig.disk.losePower(&dice)
            rig.disk.stepsLeft = .max
            rig.disk.fault = nil
            try rig.restart()
            try rig.loadAllOwed()
        }
    }
}
