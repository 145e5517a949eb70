import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Messages that a cloud refused, on a disk.
@Suite("Dead letters on disk")
struct DeadLetterTests {
    private static func plan(_ change: (inout UplinkRoutes) -> Void = { _ in }) throws -> GatewayPlan {
        var plan = GatewayPlan()
        let filter = try #require(TopicFilter("t"))
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud",
                out: [
                    .init(
                        filter: filter, rename: TopicRename(dropping: 0, prepending: Array("site/".utf8)),
                        maximumQoS: .exactlyOnce)
                ], in: [])
        ]
        change(&plan.uplinks[0])
        return plan
    }

    private static func waiting(_ house: borrowing House, _ owner: SessionOwner) -> Int {
        let id = house.gateway.state.session(of: owner)
        return id.flatMap { house.gateway.state[$0]?.queue.waitingCount } ?? 0
    }

    private static let letters = SessionOwner.deadLetters(uplink: "cloud")
    private static let outbox = SessionOwner.uplink(name: "cloud")

    /// Offline, as `tidegate deadletters list` and `show` look.
    private static func texts(_ disk: FaultDisk) throws -> [String] {
        var disk = disk
        var texts: [String] = []
        for letter in try DeadLetter.list(&disk, uplink: "cloud") {
            #expect(letter.reason == .quotaExceeded && letter.topic == Array("t".utf8))
            let found = try #require(try DeadLetter.find(letter.number, uplink: "cloud", &disk))
            #expect(found.letter == letter && found.message.bytes.count == letter.bytes)
            texts.append(String(decoding: found.message.payload.prefix { $0 != 32 }, as: UTF8.self))
        }
        return texts
    }

    private static func audit(_ disk: FaultDisk) throws -> Audit.Result {
        var disk = disk
        var audit = Audit()
        var state = DurableState()
        _ = try Inspection.inspect(
            &disk,
            recovered: { record, position in
                state.apply(record, at: position)
                audit.recovered(record)
            }, found: { audit.inLog($0.record) })
        return audit.result(state)
    }

    private static func work(_ house: inout House) throws {
        try house.connects("p", expiry: 0)
        try house.cloudConnects(sessionPresent: false)
        for n in 0..<8 {
            let text = n % 4 == 3 ? "yes-\(n)" : "no-\(n)"
            try house.publishes(
                "p", text, n % 2 == 0 ? .atLeastOnce : .exactlyOnce, padding: 2500, to: ["cloud"])
            if n == 4 { try house.checkpoints() }
        }
        try house.passes(milliseconds: 6000)
    }

    @Test(
        "after a power cut at any step of the disk a refused message is in exactly one of queue and dead letters",
        arguments: 0..<4)
    func powerCuts(_ part: Int) throws {
        let owed = try Self.steps(stoppingAt: .max).owed
        #expect(owed.count == 8)
        var cut = part
        while try Self.cut(at: cut) { cut += 4 }
        #expect(cut > 20)
    }

    private static func steps(stoppingAt step: Int) throws -> (house: Estate, owed: Set<String>, isCut: Bool)
    {
        let store = try #require(testStore)
        var house = try House.starting(on: FaultDisk(formatted: store), gateway: try plan())
        house.change { $0.stepsLeft = step }
        var isCut = false
        do { try work(&house) } catch is PowerCut { isCut = true }
        house.change { $0.stepsLeft = .max }
        return (house.estate, house.ledger.owed["cloud"] ?? [], isCut)
    }

    /// - Returns: whether there were so many steps.
    private static func cut(at step: Int) throws -> Bool {
        var dice = Dice(UInt64(step))
        var (estate, owed, isCut) = try steps(stoppingAt: step)
        guard isCut else { return false }
        estate.disk.losePower(&dice)
        var house = try House.starting(on: estate.disk, ledger: estate.ledger, gateway: try plan())
        #expect(try audit(house.disk).isEven, "step \(step)")
        let had = estate.ledger.cloudHad
        // Those that the cloud took may wait yet, with their acknowledgements lost.
        let there = waiting(house, letters) + waiting(house, outbox)
        #expect(there >= owed.filter { had[$0] == nil }.count, "step \(step)")
        try house.cloudConnects(sessionPresent: true)
        try house.passes(milliseconds: 6000)
        #expect(waiting(house, outbox) == 0, "step \(step)")
        let found = try texts(house.disk)
        #expect(Set(found).count == found.count, "step \(step): \(found)")
        #expect(Set(found).isSuperset(of: owed.filter { $0.hasPrefix("no") }), "step \(step): \(found)")
        #expect(try audit(house.disk).isEven, "step \(step)")
        // A replay in which the power fails, too.
        house.cloudRefuses = { _ in false }
        house.change { $0.stepsLeft = step % 9 }
        do {
            #expect(try house.replaysDeadLetters() == found.count)
            try house.passes(milliseconds: 6000)
        } catch is PowerCut {
            var disk = house.disk
            disk.losePower(&dice)
            disk.stepsLeft = .max
            house = try House.starting(on: disk, ledger: house.ledger, gateway: try plan())
            house.cloudRefuses = { _ in false }
            try house.cloudConnects(sessionPresent: true)
            _ = try house.replaysDeadLetters()
            try house.passes(milliseconds: 6000)
        }
        house.change { $0.stepsLeft = .max }
        try house.passes(milliseconds: 6000)
        #expect(waiting(house, letters) == 0 && waiting(house, outbox) == 0, "step \(step)")
        for text in owed {
            let count = house.ledger.cloudHad[text] ?? 0
            // Odd ones are published at QoS 2.
            let isOdd = (text.utf8.last ?? 0) & 1 == 1
            #expect(count == 1 || count > 1 && !isOdd, "step \(step): \(text) \(count) times")
        }
        #expect(try audit(house.disk).isEven, "step \(step)")
        return true
    }

    @Test("hundreds of them survive checkpoints, compaction and starts, and come back from their pages")
    func lasting() throws {
        let store = try #require(testStore)
        var journalPlan = House.plan()
        journalPlan.compactionSlackBytes = 32 << 10
        // In smaller ones there is too little to be gained.
        journalPlan.segmentBytes = 64 << 10
        var gateway = try Self.plan()
        gateway.limits.queueEntriesMax = 16
        gateway.limits.residentBytesOfAbsentMax = 0
        var house = try House.starting(
            on: FaultDisk(formatted: store), plan: journalPlan, gateway: gateway)
        try house.connects("p", expiry: 0)
        try house.cloudConnects(sessionPresent: false)
        var expected: [String] = []
        for n in 0..<360 {
            let isRefused = n % 3 == 0
            let text = isRefused ? "no-\(n)" : "yes-\(n)"
            if isRefused { expected.append(text) }
            // At first one by one, so that there are some in many segments; later as the answers to a backlog.
            if n >= 180, n % 60 == 0 { house.cloudVanishes() }
            try house.publishes("p", text, .exactlyOnce, padding: 100, to: ["cloud"])
            guard n % 60 == 59 else { continue }
            if n >= 180 { try house.cloudConnects(sessionPresent: true) }
            try house.passes(milliseconds: 6000)
            try house.checkpoints()
            #expect(try Self.texts(house.disk) == expected)
            if n == 239 {
                house = try house.restarted()
                try house.connects("p", expiry: 0)
                try house.cloudConnects(sessionPresent: true)
            }
        }
        for _ in 0..<300 { try house.passes(milliseconds: 1000) }
        #expect(house.disk.fileNames().contains { $0.hasPrefix("old-") }, "nothing was compacted")
        house = try house.restarted()
        #expect(try Self.texts(house.disk) == expected)
        let id = try #require(house.gateway.state.session(of: Self.letters))
        #expect((house.gateway.state[id]?.queue.pageCount ?? 0) > 0)
        #expect(try Self.audit(house.disk).isEven)
        house.cloudRefuses = { _ in false }
        try house.cloudConnects(sessionPresent: true)
        #expect(try house.replaysDeadLetters() == expected.count)
        try house.passes(milliseconds: 6000)
        #expect(expected.allSatisfy { house.ledger.cloudHad[$0] == 1 })
        #expect(try Self.texts(house.disk).isEmpty)
        #expect(try Self.audit(house.disk).isEven)
    }

    @Test("when one was refused is told by the evidence of the wall clock, and not where there is none")
    func when() throws {
        let letter = DeadLetter(
            uplink: "cloud", number: 0, topic: [], cloudTopic: [], qos: .atLeastOnce, bytes: 0,
            reason: .quotaExceeded, clock: Instant(milliseconds: 50_000), wallMilliseconds: nil)
        let anchor = WallAnchor(clock: Instant(milliseconds: 60_000), wallMilliseconds: 1_767_225_600_000)
        var offTimes = DurableState()
        #expect(letter.dated(by: anchor, unproven: nil, offTimes) == 1_767_225_590_000)
        #expect(letter.dated(by: nil, unproven: nil, offTimes) == nil)
        offTimes.apply(
            .wasOff(OffTime(after: Position(3), since: Instant(milliseconds: 55_000), milliseconds: 3000)),
            at: Position(4))
        #expect(letter.dated(by: anchor, unproven: nil, offTimes) == 1_767_225_587_000)
        // Behind the anchor: as long as no start lies between that nobody explains.
        let early = WallAnchor(clock: Instant(milliseconds: 40_000), wallMilliseconds: 1_767_225_600_000)
        let before = UnprovenStart(after: Position(1), since: Instant(milliseconds: 45_000))
        let behind = UnprovenStart(after: Position(9), since: Instant(milliseconds: 70_000))
        #expect(letter.dated(by: early, unproven: behind, DurableState()) == 1_767_225_610_000)
        #expect(letter.dated(by: early, unproven: before, DurableState()) == nil)
    }
}
