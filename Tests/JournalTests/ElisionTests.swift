import GatewayCore
import Testing

@testable import Journal

@Suite("Records that are never written")
struct ElisionTests {
    /// As the product has it.
    private static func rig(_ change: (inout JournalPlan) -> Void = { _ in }) throws -> Rig {
        try JournalTests.rig {
            $0.commits = .balanced
            change(&$0)
        }
    }

    private static func elided(_ events: [StorageEvent]) -> [UInt64] {
        events.compactMap { if case .elided(let position) = $0 { position.number } else { nil } }
    }

    @Test("E3: what is elided before its window ends is not written, and nothing is written for it")
    func nothingIsWritten() throws {
        var rig = try Self.rig()
        for n in 1...500 {
            rig.append(Samples.plain("m\(n)"), .elidable)
            rig.now = rig.now.advanced(byMilliseconds: 10)
            rig.elide(UInt64(n))
            try rig.settle()
        }
        #expect(Self.elided(rig.events) == Array(1...500))
        #expect(JournalTests.durables(rig.events).last == 500, "nothing is left to wait for")
        #expect(rig.disk.fileNames().filter { $0.hasPrefix("seg-") } == [])
        #expect(rig.journal.nextDeadline == nil)
        try rig.restart()
        #expect(rig.recovered.last == .zero)
    }

    @Test("E4: at the end of the window it is written, and then it is too late to elide it")
    func windowEnds() throws {
        var rig = try Self.rig()
        // The segment is there, so that nothing comes before the batch.
        rig.append(.inboundVoided(SessionID(3)))
        try rig.settle()
        rig.append(Samples.plain("m"), .elidable)
        try rig.settle()
        let deadline = try #require(rig.journal.nextDeadline)
        #expect(deadline == rig.now.advanced(byMilliseconds: 250))
        rig.now = deadline
        rig.journal.tick(at: rig.now)
        rig.journal.elide(Position(2), at: rig.now)
        try rig.settle()
        #expect(Self.elided(rig.events) == [] && JournalTests.durables(rig.events) == [1, 2])
        rig.journal.elide(Position(2), at: rig.now)
        rig.collect()
        #expect(Self.elided(rig.events) == [])
        try rig.restart()
        try rig.loadAllOwed()
    }

    @Test("Who has time is written after a second, and with whatever is committed before")
    func relaxed() throws {
        var rig = try Self.rig()
        rig.append(.inboundVoided(SessionID(3)))
        try rig.settle()
        for (position, isAlone) in [(2, true), (3, false)] as [(UInt64, Bool)] {
            rig.append(Samples.plain("m"), .relaxed)
            try rig.settle()
            #expect(JournalTests.durables(rig.events).last == position - 1)
            let deadline = try #require(rig.journal.nextDeadline)
            #expect(deadline == rig.now.advanced(byMilliseconds: 1000))
            rig.now = rig.now.advanced(byMilliseconds: isAlone ? 1000 : 10)
            if isAlone { rig.journal.tick(at: rig.now) } else { rig.append(.inboundVoided(SessionID(3))) }
            try rig.settle()
            #expect(JournalTests.durables(rig.events).last == (isAlone ? 2 : 4))
            #expect(rig.journal.nextDeadline == nil)
        }
    }

    @Test("E4: hastened, it is committed like any message, and all before it")
    func hastened() throws {
        var rig = try Self.rig()
        for n in 1...3 { rig.append(Samples.plain("m\(n)"), .elidable) }
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [])
        rig.journal.hasten(Position(2), at: rig.now)
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [3])
    }

    @Test("elided among written: the places are empty, also when read back and after a restart")
    func gaps() throws {
        var rig = try Self.rig()
        for n in 1...6 { rig.append(Samples.plain("m\(n)"), .elidable) }
        rig.elide(1, 3, 6)
        rig.append(Samples.plain("m7"), .control)
        rig.append(Samples.plain("m8"), .elidable)
        rig.elide(8)
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [1, 8])
        #expect(rig.ledger.owed.map(\.number) == [2, 4, 5, 7])
        try rig.loadAllOwed()
        // The place behind the last written one is given out again by the next process.
        try rig.restart()
        #expect(rig.recovered.last == Position(7))
        try rig.loadAllOwed()
        rig.append(Samples.plain("m8 again"))
        try rig.settle()
        rig.append(Samples.plain("m9"), .elidable)
        rig.elide(9)
        rig.append(Samples.plain("m10"))
        try rig.settle()
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
        #expect(rig.recovered.last == Position(10))
    }

    @Test("a long row of elided Records between two that nobody waits for fills no batch")
    func longGap() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("a"), .lazy)
        for _ in 2...4001 { rig.append(Samples.plain("m"), .elidable) }
        rig.elide(2...4001)
        rig.append(Samples.plain("b"), .lazy)
        rig.now = rig.now.advanced(byMilliseconds: 5000)
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [4001, 4002], "in two batches")
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
        #expect(rig.ledger.owed.map(\.number) == [1, 4002])
    }

    @Test("A8: a lazy Record does not take messages along that may still be elided")
    func lazyGoesAlone() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("lazy"), .lazy)
        rig.now = rig.now.advanced(byMilliseconds: 4900)
        rig.append(Samples.plain("m"), .elidable)
        rig.append(Samples.plain("lazy too"), .lazy)
        rig.now = rig.now.advanced(byMilliseconds: 100)
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [1])
        rig.elide(2)
        rig.now = rig.now.advanced(byMilliseconds: 5000)
        try rig.settle()
        #expect(JournalTests.durables(rig.events) == [1, 2, 3])
        try rig.restart()
    }

    @Test("what a checkpoint says is owed is written, not elided")
    func checkpointed() throws {
        var rig = try Self.rig()
        rig.append(Samples.plain("in flight"))
        rig.journal.tick(at: rig.now)
        rig.append(Samples.plain("m"), .elidable)
        rig.journal.beginCheckpoint(of: rig.ledger, at: rig.now)
        rig.journal.elide(Position(2), at: rig.now)
        try rig.settle()
        #expect(Self.elided(rig.events) == [])
        try rig.restart()
        try rig.loadAllOwed()
        #expect(rig.ledger.owed.count == 2)
    }

    @Test("a checkpoint behind elided Records does not make a torn end look like damage")
    func checkpointBehindElided() throws {
        for cut in 1..<8 {
            var dice = Dice(UInt64(cut))
            var rig = try Self.rig()
            rig.append(Samples.plain("a"))
            try rig.settle()
            for n: UInt64 in 2...9 {
                rig.append(Samples.plain("m"), .elidable)
                rig.elide(n)
            }
            try rig.checkpoint()
            rig.append(Samples.plain("b", payload: Array(repeating: 3, count: 9000)))
            rig.journal.tick(at: rig.now)
            rig.disk.stepsLeft = cut
            do { while try rig.work() {} } catch is PowerCut {}
            rig.disk.losePower(&dice)
            rig.disk.stepsLeft = .max
            rig.collect()
            try rig.restart()
            try rig.loadAllOwed()
        }
    }

    @Test("E6: what is never elided costs one commit a window, not one a message")
    func oneCommitAWindow() throws {
        var rig = try Self.rig()
        // So far it has paid to wait.
        for n: UInt64 in 1...200 {
            rig.append(Samples.plain("m"), .elidable)
            rig.journal.elide(Position(n), at: rig.now)
        }
        try rig.settle()
        rig.events = []
        for _ in 0..<100 {
            rig.append(Samples.plain("m"), .elidable)
            for _ in 0..<10 {
                rig.now = rig.now.advanced(byMilliseconds: 1)
                try rig.settle()
            }
        }
        #expect((3...5).contains(JournalTests.durables(rig.events).count))
    }

    @Test("E6: acknowledgements that come after the window stop the lingering")
    func tooFarAway() throws {
        var rig = try Self.rig()
        // Until the rests are as long as they get.
        for _ in 0..<400 {
            rig.append(Samples.plain("m"), .elidable)
            rig.now = rig.now.advanced(byMilliseconds: 250)
            try rig.settle()
        }
        rig.now = rig.now.advanced(byMilliseconds: 20_000)
        rig.events = []
        rig.append(Samples.plain("m"), .elidable)
        try rig.settle()
        #expect(JournalTests.durables(rig.events).count == 1, "at once, for there are tokens")
        rig.now = rig.now.advanced(byMilliseconds: 60_000)
        rig.append(Samples.plain("m"), .elidable)
        try rig.settle()
        #expect(JournalTests.durables(rig.events).count == 1, "tried again")
    }

    @Test("P5: elided Records leave no trace in memory, however long something before them waits")
    func memory() {
        var pending = PendingRecords()
        pending.append(
            Samples.plain("lazy"), .lazy, at: Position(1), bytes: 1, lingers: true,
            at: Instant(milliseconds: 0))
        for n: UInt64 in 2...100_000 {
            pending.append(
                Samples.plain("m"), .elidable, at: Position(n), bytes: 1, lingers: true,
                at: Instant(milliseconds: n))
            if n > 100 { #expect(pending.elide(Position(n - 50)) == true) }
        }
        #expect(pending.bytes < 200 && pending.slotCount < 1000)
        #expect(pending[Position(99_999)] != nil && pending[Position(99_000)] == nil)
        #expect(pending.demand.lingering == Instant(milliseconds: 2))
    }

    @Test("what was promised is there after power cuts, elided or not", arguments: 0..<200)
    func powerCuts(seed: Int) throws {
        try PowerCutTests.live(UInt64(seed + 9000), plan: Self.plan, eliding: true)
    }

    private static var plan: JournalPlan {
        var plan = Rig.smallPlan()
        plan.commits = .balanced
        return plan
    }
}
