import GatewayCore
import Testing

@testable import Journal

/// Power cuts during recycling, and errors, are in `PowerCutTests` and `FailureTests`, which recycle in half of
/// their runs.
@Suite("Segments used again")
struct RecyclingTests {
    static func names(_ rig: Rig, _ prefix: String) -> [String] {
        rig.disk.fileNames().filter { $0.hasPrefix(prefix) }
    }

    /// A journal that has written `count` messages of some 2 KiB, settled all, and made two checkpoints.
    static func drained(
        _ count: Int, recycles: Bool = true, _ change: (inout JournalPlan) -> Void = { _ in }
    ) throws -> Rig {
        var plan = Rig.smallPlan()
        change(&plan)
        var rig = try Rig(try #require(testStore), plan: plan, recycles: recycles)
        for n in 0..<count {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
        }
        rig.append(
            .acknowledged(
                AcknowledgedRecord(
                    session: SessionID(1), floor: Delivery(UInt64(count)), settledAbove: [])))
        for _ in 0..<2 {
            try rig.checkpoint()
            rig.append(.inboundVoided(SessionID(3)))
        }
        try rig.settle()
        return rig
    }

    @Test("segments in which nothing is owed become free files, and the next segments are made of these")
    func reuse() throws {
        var rig = try Self.drained(40)
        let free = Self.names(rig, "free-")
        #expect(free.count >= 3 && Self.names(rig, "seg-").count <= 2)
        let sizes = Set(free.map { rig.disk.content($0).count })
        #expect(sizes == [32 << 10])
        for n in 0..<20 {
            rig.append(Samples.plain("again \(n)", payload: Array(repeating: 2, count: 2000)))
            try rig.settle()
        }
        #expect(Self.names(rig, "free-").count < free.count)
        let full = Self.names(rig, "seg-").filter { rig.disk.content($0).count == 32 << 10 }
        #expect(full.count >= 2)
        try rig.loadAllOwed()
        try rig.restart()
        #expect(rig.recovered.report.tornTails.isEmpty && rig.recovered.segments.count >= 3)
        try rig.loadAllOwed()
    }

    @Test("what a recycled file held is never read as Records, wherever its new batches end")
    func staleBatches() throws {
        for length in 0..<7 {
            var rig = try Self.drained(20)
            try rig.restart()
            #expect(!rig.recovered.free.isEmpty)
            for n in 0..<length {
                rig.append(Samples.plain("new \(n)"))
                try rig.settle()
            }
            try rig.restart()
            #expect(rig.recovered.report.tornTails.isEmpty && !rig.recovered.report.isDamaged)
            try rig.loadAllOwed()
        }
    }

    @Test("a torn batch in a recycled file is noticed by its header, and only by it")
    func tornBatch() throws {
        var rig = try Self.drained(20)
        try rig.restart()
        for n in 0..<2 {
            rig.append(Samples.plain("new \(n)", payload: Array(repeating: 3, count: 6000)))
            try rig.settle()
        }
        let name = try #require(Self.names(rig, "seg-").last)
        let bytes = rig.disk.content(name)
        #expect(bytes.count == 32 << 10)
        for (place, isNoticed) in [(3 * pageBytes + 5000, true), (3 * pageBytes + 3, false)] {
            var disk = rig.disk
            var torn = bytes
            torn[place] ^= 1
            disk.put(name, torn)
            let log = try Recovery.recover(&disk) { _, _ in }
            #expect(log.last == Position(rig.journal.last.number - 1))
            #expect(log.report.tornTails.count == (isNoticed ? 1 : 0) && !log.report.isDamaged)
        }
    }

    @Test("elsewhere than on ext4 and xfs they are deleted, and so are free files that were kept before")
    func noRecycling() throws {
        let plain = try Self.drained(40, recycles: false)
        #expect(Self.names(plain, "free-").isEmpty && Self.names(plain, "seg-").count <= 2)
        var moved = try Rig(try #require(testStore))
        moved.disk = try Self.drained(40).disk
        moved.recovered = try Recovery.recover(&moved.disk) { _, _ in }
        #expect(moved.recovered.free.count >= 3)
        moved.journal = Journal(plan: moved.plan, recovered: moved.recovered)
        try moved.settle()
        #expect(Self.names(moved, "free-").isEmpty)
    }

    @Test("not more of them are kept than there may be, and none whose size does not fit")
    func bounded() throws {
        let rig = try Self.drained(120)
        #expect(Self.names(rig, "free-").count == rig.plan.freeSegmentsMax)
        // Each boot's segment is small, here.
        var plan = Rig.smallPlan()
        plan.growthBytes = 0
        var small = try Rig(try #require(testStore), plan: plan, recycles: true)
        for _ in 0..<6 {
            small.append(.inboundVoided(SessionID(3)))
            try small.settle()
            try small.restart()
        }
        for _ in 0..<2 {
            small.append(.inboundVoided(SessionID(3)))
            try small.checkpoint()
        }
        #expect(Self.names(small, "free-").isEmpty && Self.names(small, "seg-").count <= 2)
        try small.restart()
    }

    @Test("a new file grows by many small batches at a time, and the zeros are no torn end")
    func growth() throws {
        var plan = Rig.smallPlan()
        plan.segmentBytes = 128 << 10
        var rig = try Rig(try #require(testStore), plan: plan, recycles: true)
        var sizes: [Int] = []
        for n in 0..<20 {
            rig.append(Samples.plain("m\(n)", payload: Array(repeating: 1, count: 2000)))
            try rig.settle()
            sizes.append(rig.disk.content(try #require(Self.names(rig, "seg-").last)).count >> 10)
        }
        // Behind the header's page there is a batch in each.
        #expect(
            sizes == Array(repeating: 32, count: 7) + Array(repeating: 64, count: 8)
                + Array(repeating: 96, count: 5))
        try rig.loadAllOwed()
        try rig.restart()
        #expect(rig.recovered.report.tornTails.isEmpty)
        try rig.loadAllOwed()
    }

    @Test(
        "a new file grows no further than what is written in it: elsewhere, for large batches, and under pressure"
    )
    func plainGrowth() throws {
        for (recycles, payload, limit) in [(false, 2000, 4 << 30), (true, 6000, 4 << 30), (true, 2000, 0)] {
            var plan = Rig.smallPlan()
            plan.sizeLimitBytes = limit
            var rig = try Rig(try #require(testStore), plan: plan, recycles: recycles)
            rig.append(Samples.plain("m", payload: Array(repeating: 1, count: payload)))
            try rig.settle()
            let file = rig.disk.content(try #require(Self.names(rig, "seg-").last))
            #expect(file.count == 2 * pageBytes + (payload > pageBytes ? pageBytes : 0))
        }
    }

    @Test("a new file ends with its segment, however far it would grow")
    func growthEnds() throws {
        var plan = Rig.smallPlan()
        plan.growthBytes = 48 << 10
        let rig = try Self.drained(20) { $0 = plan }
        #expect(Set(Self.names(rig, "free-").map { rig.disk.content($0).count }) == [32 << 10])
    }

    @Test("P4: under pressure nothing is kept for later")
    func pressure() throws {
        let rig = try Self.drained(60) { $0.sizeLimitBytes = 128 << 10 }
        #expect(Self.names(rig, "free-").count < 3)
    }

    @Test("a Record too large for a free file gets a segment of its own")
    func jumbo() throws {
        var rig = try Self.drained(40)
        rig.append(Samples.plain("huge", payload: Array(repeating: 7, count: 200_000)))
        try rig.settle()
        try rig.loadAllOwed()
        try rig.restart()
        try rig.loadAllOwed()
    }

    @Test("numbers that only a free file remembers are not used again")
    func numbers() throws {
        var rig = try Self.drained(40)
        let free = Self.names(rig, "free-")
        for name in rig.disk.fileNames() where name.hasPrefix("seg-") || name.hasPrefix("ckpt-") {
            rig.disk.remove(name)
        }
        let log = try Recovery.recover(&rig.disk) { _, _ in }
        let numbers = free.compactMap { name -> UInt64? in
            guard case .free(let id)? = StoreFile(name: name) else { return nil }
            return id
        }
        let largest = try #require(numbers.max())
        #expect(log.nextSegment == largest + 1)
    }
}
