import GatewayCore
import Testing

@testable import Journal

/// What the journal keeps so that time off can be proven, and where the clock goes on.
@Suite("Time off: what is kept for its proof")
struct TimeOffTests {
    private static let here = MachineBoot(text: "6c7f1e3a-0001-4a5b-8c9d-0123456789ab".utf8)
    private static let other = MachineBoot(text: "6c7f1e3a-0002-4a5b-8c9d-0123456789ab\n".utf8)

    /// Processes one after the other on one disk.
    private struct Lives {
        var rig: Rig
        var resumed: Resumption

        init(on boot: MachineBoot?, uptime: UInt64) throws {
            rig = try Rig(try #require(testStore))
            resumed = rig.recovered.resume(on: boot, uptimeMilliseconds: uptime)
            begin()
        }

        /// A new process `milliseconds` of this machine's uptime later.
        mutating func restart(on boot: MachineBoot?, uptime: UInt64) throws {
            try rig.restart()
            resumed = rig.recovered.resume(on: boot, uptimeMilliseconds: uptime)
            begin()
        }

        private mutating func begin() {
            rig.now = resumed.clock
            rig.journal = Journal(plan: rig.plan, recovered: rig.recovered, resumed: resumed)
        }

        mutating func passes(_ milliseconds: UInt64) {
            rig.now = rig.now.advanced(byMilliseconds: milliseconds)
        }

        mutating func writes() throws {
            rig.append(Samples.plain("t"))
            try rig.settle()
        }

        mutating func believes(_ wallMilliseconds: Int64) {
            rig.journal.note(WallReading(milliseconds: wallMilliseconds, isTrusted: true), at: rig.now)
        }
    }

    @Test(
        "boot_id is read as Linux writes it, and nothing else is",
        arguments: [
            ("00000000-0000-0000-0000-00000000000a\n", true), ("", false), ("0000", false),
            ("00000000-0000-0000-0000-000000000000", false), ("00000000-0000-0000-0000-0000000000xa", false),
            ("00000000-0000-0000-0000-00000000000a0", false),
        ])
    func bootID(text: String, isOne: Bool) {
        #expect((MachineBoot(text: text.utf8) != nil) == isOne)
    }

    @Test(
        "In the same boot of the machine the clock goes on by what the uptime has counted since the last batch",
        arguments: [false, true])
    func sameBoot(byCheckpoint: Bool) throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        lives.passes(10_000)
        try lives.writes()
        lives.passes(20_000)
        try lives.writes()
        if byCheckpoint {
            try lives.rig.checkpoint()
            for file in lives.rig.disk.fileNames() where file.hasPrefix("seg-") {
                lives.rig.disk.remove(file)
            }
        }
        let last = lives.rig.now
        // It wrote last at an uptime of 530 s, and nothing in the time it still lived then.
        try lives.restart(on: Self.here, uptime: 600_000)
        #expect(lives.resumed.offMilliseconds == 70_000)
        #expect(lives.resumed.clock == last.advanced(byMilliseconds: 70_001))
        #expect(lives.resumed.unproven == nil)
        // A life in which nothing is written changes nothing.
        try lives.restart(on: Self.here, uptime: 700_000)
        #expect(lives.resumed.clock == last.advanced(byMilliseconds: 170_001))
        try lives.writes()
        try lives.restart(on: Self.here, uptime: 700_000)
        #expect(lives.resumed.clock == last.advanced(byMilliseconds: 170_002))
    }

    @Test("In another boot the uptime proves nothing, nor where the kernel does not say which boot this is")
    func otherBoot() throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        try lives.writes()
        let last = lives.rig.now
        for boot in [Self.other, nil] {
            try lives.restart(on: boot, uptime: 900_000)
            #expect(lives.resumed.offMilliseconds == nil)
            #expect(lives.resumed.clock == last.advanced(byMilliseconds: 1))
            #expect(lives.resumed.unproven == UnprovenStart(after: Position(1), since: last))
        }
    }

    @Test("An uptime that went backwards in the same boot counts for nothing")
    func uptimeBackwards() throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        try lives.writes()
        let last = lives.rig.now
        try lives.restart(on: Self.here, uptime: 400_000)
        #expect(lives.resumed.clock == last.advanced(byMilliseconds: 1))
    }

    @Test(
        "Time off belongs to the first start behind the anchor, until there is a new anchor",
        arguments: [false, true])
    func firstUnprovenStart(byCheckpoint: Bool) throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        lives.believes(1_800_000_000_000)
        try lives.writes()
        let last = lives.rig.now
        // Two boots without a wall clock, and a restart within the second.
        for (boot, uptime) in [(Self.other, UInt64(100)), (Self.here, 200), (Self.here, 5000)] {
            try lives.restart(on: boot, uptime: uptime)
            lives.passes(1000)
            try lives.writes()
            if byCheckpoint { try lives.rig.checkpoint() }
        }
        try lives.restart(on: Self.other, uptime: 100)
        #expect(lives.resumed.unproven == UnprovenStart(after: Position(1), since: last))
        #expect(lives.rig.recovered.anchor == WallAnchor(clock: last, wallMilliseconds: 1_800_000_000_000))

        lives.believes(1_800_009_000_000)
        try lives.writes()
        let believedAt = lives.rig.now
        if byCheckpoint { try lives.rig.checkpoint() }
        try lives.restart(on: Self.other, uptime: 10_000)
        #expect(lives.resumed.unproven == nil)
        #expect(lives.rig.recovered.anchor?.clock == believedAt)
        try lives.restart(on: Self.here, uptime: 10_000)
        #expect(lives.resumed.unproven == UnprovenStart(after: Position(5), since: believedAt))
    }

    @Test("An older anchor in a segment that is still needed does not take the place of the checkpoint's")
    func olderAnchor() throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        lives.believes(1_800_000_000_000)
        try lives.writes()
        try lives.restart(on: Self.other, uptime: 100)
        lives.believes(1_800_000_900_000)
        try lives.writes()
        let newest = lives.rig.now
        try lives.rig.checkpoint()
        let young = try #require(lives.rig.disk.fileNames().filter { $0.hasPrefix("seg-") }.max())
        lives.rig.disk.remove(young)
        let log = try Recovery.recover(&lives.rig.disk) { _, _ in }
        #expect(log.anchor == WallAnchor(clock: newest, wallMilliseconds: 1_800_000_900_000))
        #expect(log.unproven == nil && log.uptime?.boot == Self.other)
    }

    @Test("The wall clock in a batch is that of the batch, however long ago it was read")
    func wallOfBatch() throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        lives.believes(1_800_000_000_000)
        // The machine was suspended: nobody has read the wall clock since.
        lives.passes(3_600_000)
        try lives.writes()
        let now = lives.rig.now
        try lives.restart(on: Self.other, uptime: 0)
        #expect(lives.rig.recovered.anchor == WallAnchor(clock: now, wallMilliseconds: 1_800_003_600_000))
    }

    @Test("There is no new anchor before what the wall clock proved is durable, not even in the same batch")
    func proofBeforeAnchor() throws {
        var lives = try Lives(on: Self.here, uptime: 500_000)
        lives.believes(1_800_000_000_000)
        try lives.writes()
        let first = WallAnchor(clock: lives.rig.now, wallMilliseconds: 1_800_000_000_000)
        try lives.restart(on: Self.other, uptime: 100)
        lives.passes(61_000)
        let start = try #require(lives.resumed.unproven)
        lives.rig.append(
            .wasOff(OffTime(after: start.after, since: start.since, milliseconds: 3_600_000)))
        let proof = lives.rig.journal.last
        lives.rig.journal.note(
            WallReading(milliseconds: 1_800_003_661_001, isTrusted: true), at: lives.rig.now, provenAt: proof)
        try lives.rig.settle()
        try lives.restart(on: Self.here, uptime: 100)
        #expect(lives.rig.recovered.last == proof)
        #expect(lives.rig.recovered.anchor == first && lives.resumed.unproven == start)

        lives.rig.journal.note(
            WallReading(milliseconds: 1_800_003_700_000, isTrusted: true), at: lives.rig.now, provenAt: proof)
        #expect(lives.rig.journal.hasEvidence)
        try lives.writes()
        try lives.restart(on: Self.here, uptime: 100)
        #expect(lives.rig.recovered.anchor?.wallMilliseconds == 1_800_003_700_000)
    }

    @Test("A store of an earlier version, which says nothing of uptimes, opens and goes on")
    func earlierVersion() throws {
        var lives = try Lives(on: nil, uptime: 0)
        lives.believes(1_800_000_000_000)
        try lives.writes()
        let last = lives.rig.now
        try lives.restart(on: nil, uptime: 0)
        try lives.writes()
        try lives.restart(on: Self.here, uptime: 100)
        #expect(lives.resumed.offMilliseconds == nil)
        #expect(lives.resumed.unproven == UnprovenStart(after: Position(1), since: last))
    }
}

/// What the wall clock proves. The clock begins at 1000 s; it was last believed 100 s before.
@Suite("Time off: the wall clock as a witness")
struct WallWitnessTests {
    private static let epoch: Int64 = 1_800_000_000_000
    private static let start: UInt64 = 1_000_000
    private static let day: Int64 = 86_400_000
    private static let mark = UnprovenStart(after: Position(7), since: Instant(milliseconds: 950_000))

    /// The witness, asked once a second; `wall` and `seconds` go on until something is said.
    private struct Court {
        var witness: WallWitness
        var now = Instant(milliseconds: WallWitnessTests.start)
        var wall: Int64
        var isTrusted = true
        var counted: UInt64 = 0
        var said: [WallWitness.Finding] = []

        /// - Parameter off: what the wall clock says beyond the 100 s that were counted.
        init(off: Int64, hasAnchor: Bool = true, unproven: UnprovenStart? = WallWitnessTests.mark) {
            wall = WallWitnessTests.epoch + 100_000 + off
            witness = WallWitness(
                anchor: hasAnchor
                    ? WallAnchor(
                        clock: Instant(milliseconds: WallWitnessTests.start - 100_000),
                        wallMilliseconds: WallWitnessTests.epoch) : nil,
                unproven: unproven)
        }

        mutating func hears(seconds: Int) {
            for _ in 0..<seconds {
                let reading = WallReading(milliseconds: wall, isTrusted: isTrusted)
                if let finding = witness.hear(reading, at: now, counted: counted) { said.append(finding) }
                now = now.advanced(byMilliseconds: 1000)
                wall += 1000
            }
        }
    }

    private static func off(_ milliseconds: Int64) -> WallWitness.Finding {
        .wasOff(OffTime(after: mark.after, since: mark.since, milliseconds: UInt64(milliseconds)))
    }

    @Test("A minute of a synchronised and steady clock proves the time off, once")
    func proves() {
        var court = Court(off: 3_600_000)
        court.hears(seconds: 60)
        #expect(court.said == [] && !court.witness.isBelieved)
        court.hears(seconds: 1)
        #expect(court.said == [Self.off(3_600_000)] && court.witness.isBelieved)
        court.hears(seconds: 10_000)
        #expect(court.said.count == 1)
    }

    @Test("Boot in 1970, NTP 90 s later: nothing is believed before, and the true time after")
    func bootIn1970() {
        var court = Court(off: 0)
        court.wall = 0
        court.isTrusted = false
        court.hears(seconds: 90)
        #expect(court.said == [.unsynchronised] && !court.witness.isBelieved)
        court.wall = Self.epoch + 100_000 + 90_000 + 7_200_000
        court.isTrusted = true
        court.hears(seconds: 61)
        #expect(court.said == [.unsynchronised, Self.off(7_200_000)])
    }

    @Test("A kernel that calls 1970 synchronised is not believed")
    func trusted1970() {
        var court = Court(off: 0)
        court.wall = 0
        court.hears(seconds: 600)
        #expect(court.said == [.impossible] && !court.witness.isBelieved)
    }

    @Test("A step within the minute begins it anew", arguments: [Int64(3000), -3000, 5 * 365 * day])
    func stepWithinWindow(step: Int64) {
        var court = Court(off: 3_600_000)
        court.hears(seconds: 50)
        court.wall += step
        court.hears(seconds: 60)
        #expect(court.said == [.stepped(milliseconds: step)] && !court.witness.isBelieved)
        court.wall -= step
        court.hears(seconds: 61)
        #expect(
            court.said == [
                .stepped(milliseconds: step), .stepped(milliseconds: -step), Self.off(3_600_000),
            ])
    }

    @Test("Losing synchronisation within the minute begins it anew")
    func unsynchronisedWithinWindow() {
        var court = Court(off: 3_600_000)
        court.hears(seconds: 50)
        court.isTrusted = false
        court.hears(seconds: 1)
        court.isTrusted = true
        court.hears(seconds: 60)
        #expect(court.said == [.unsynchronised] && !court.witness.isBelieved)
        court.hears(seconds: 1)
        #expect(court.said.last == Self.off(3_600_000))
    }

    @Test("Slewing is no step")
    func slewing() {
        var court = Court(off: 3_600_000)
        for _ in 0..<61 {
            court.hears(seconds: 1)
            court.wall += 1
        }
        #expect(court.said == [Self.off(3_600_060)])
    }

    @Test("A step of years while running moves nothing, and is no evidence for the next start")
    func stepOfYears() {
        var court = Court(off: 3_600_000)
        court.hears(seconds: 61)
        court.wall += 2 * 365 * Self.day
        court.hears(seconds: 3600)
        #expect(
            court.said.dropFirst() == [
                .stepped(milliseconds: 2 * 365 * Self.day), .ahead(milliseconds: 2 * 365 * Self.day),
            ])
        #expect(!court.witness.isBelieved)
        court.wall -= 2 * 365 * Self.day
        court.hears(seconds: 61)
        #expect(court.said.last == .believed && court.witness.isBelieved)
    }

    @Test(
        "More than 400 days are not believed; what contradicts is taken up after a day, and counts for nothing"
    )
    func cap() {
        var most = Court(off: 400 * Self.day)
        most.hears(seconds: 61)
        #expect(most.said == [Self.off(400 * Self.day)])
        var court = Court(off: 400 * Self.day + 1)
        court.hears(seconds: 86_400)
        #expect(court.said == [.offForTooLong(milliseconds: 400 * Self.day + 1)])
        #expect(!court.witness.isBelieved)
        court.hears(seconds: 1)
        #expect(court.said.last == .believed && court.witness.isBelieved)
    }

    @Test("A clock that went backwards is ignored, and coming back it does not count twice")
    func backwards() {
        var court = Court(off: -30 * Self.day)
        court.hears(seconds: 600)
        #expect(court.said == [.behind(milliseconds: 30 * Self.day)] && !court.witness.isBelieved)
        court.wall += 30 * Self.day
        court.hears(seconds: 61)
        #expect(court.said.last == .believed && court.witness.isBelieved)
    }

    @Test("Without an anchor nothing is proven, and the clock is one for the next start")
    func noAnchor() {
        var court = Court(off: 3_600_000, hasAnchor: false)
        court.hears(seconds: 61)
        #expect(court.said == [.believed] && court.witness.isBelieved)
    }

    @Test(
        "Where the clock has counted everything the wall clock proves nothing",
        arguments: [Int64(1000), 61_000])
    func nothingUnproven(ahead: Int64) {
        var court = Court(off: ahead, unproven: nil)
        court.isTrusted = false
        court.hears(seconds: 5)
        court.isTrusted = true
        court.hears(seconds: 61)
        #expect(court.said == [ahead == 1000 ? .believed : .ahead(milliseconds: 61_000)])
    }

    @Test("What was proven before, and has found no new anchor, is not proven again")
    func counted() {
        var court = Court(off: 3_600_000)
        court.counted = 3_600_000
        court.hears(seconds: 61)
        #expect(court.said == [.believed])
        court = Court(off: 5_000_000)
        court.counted = 3_600_000
        court.hears(seconds: 61)
        #expect(court.said == [Self.off(1_400_000)])
    }

    @Test("Whatever the disk says of the anchor, nothing overflows", arguments: [Int64.min, .max])
    func wildAnchor(wall: Int64) {
        var witness = WallWitness(
            anchor: WallAnchor(clock: Instant(milliseconds: .max), wallMilliseconds: wall),
            unproven: UnprovenStart(after: Position(1), since: Instant(milliseconds: .max)))
        for second in 0..<100 {
            _ = witness.hear(
                WallReading(milliseconds: Self.epoch + Int64(second) * 1000, isTrusted: true),
                at: Instant(milliseconds: UInt64(second) * 1000), counted: .max)
        }
        #expect(!witness.isBelieved)
    }
}
