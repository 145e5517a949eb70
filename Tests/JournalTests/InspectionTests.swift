import GatewayCore
import MQTT
import Testing

@testable import Journal

/// What `tidegate journal` and `tidegate audit` say of stores that were written by the journal and the core's state,
/// whole and damaged.
@Suite("Inspection of a store")
struct InspectionTests {
    @Test("a whole store: every batch is read, every byte is counted, and the books come to the same")
    func whole() throws {
        var gate = try Keeper(seed: 1)
        try gate.work(rounds: 60)
        let inspection = try Inspection.inspect(&gate.rig.disk)
        #expect(inspection.isWhole)
        #expect(inspection.damaged.isEmpty)
        let sizes = gate.rig.disk.fileNames().map { gate.rig.disk.content($0).count }
        #expect(inspection.bytes.total == sizes.reduce(0, +))
        #expect(inspection.records.messages > 0 && inspection.commits > 0)
        let result = try gate.audit()
        #expect(result.isEven, "\(result)")
        #expect(result.total == gate.state.balance)
    }

    @Test("the books come to the same after any number of starts, from checkpoints and from the log")
    func audit() throws {
        for seed in 1...20 as ClosedRange<UInt64> {
            var gate = try Keeper(seed: seed)
            for _ in 0..<3 {
                try gate.work(rounds: 40)
                try gate.restart()
                let result = try gate.audit()
                #expect(result.isEven && result.total == gate.state.balance, "seed \(seed): \(result)")
            }
        }
    }

    @Test("a flipped bit anywhere below the end of the log is found, also where a checkpoint stands for it")
    func damage() throws {
        var gate = try Keeper(seed: 2)
        try gate.work(rounds: 60)
        try gate.rig.checkpoint(of: gate.state)
        let inspection = try Inspection.inspect(&gate.rig.disk)
        #expect(inspection.isWhole)
        for segment in inspection.log.segments {
            let name = StoreFile.segment(segment.id).name
            let whole = gate.rig.disk.content(name)
            for page in stride(from: 0, to: min(segment.end, whole.count), by: pageBytes) {
                // The first bytes of a page are never padding.
                var bytes = whole
                bytes[page + 20] ^= 4
                var disk = gate.rig.disk
                disk.put(name, bytes)
                let found = try Inspection.inspect(&disk)
                let isSeen =
                    found.damaged.contains { $0.file == name && $0.bytes.contains(page) }
                    || !found.log.report.tornTails.isEmpty
                #expect(isSeen, "\(name) at \(page)")
            }
        }
    }

    @Test("a queued message whose Record cannot be read any more is missing in the audit")
    func missing() throws {
        var gate = try Keeper(seed: 3)
        gate.publish(to: [0], text: "kept")
        try gate.rig.settle()
        gate.publish(to: [0], text: "gone")
        try gate.rig.settle()
        try gate.rig.checkpoint(of: gate.state)
        gate.publish(to: [0], text: "kept")
        try gate.rig.settle()
        #expect(try gate.audit().isEven)
        let segment = try #require(try Inspection.inspect(&gate.rig.disk).log.segments.first)
        let name = StoreFile.segment(segment.id).name
        var bytes = gate.rig.disk.content(name)
        let place = try #require(bytes.firstRange(of: Array("gone".utf8)))
        bytes[place.lowerBound] ^= 1
        gate.rig.disk.put(name, bytes)
        let result = try gate.audit()
        #expect(!result.isEven)
        #expect(result.lines.map(\.missing).reduce(0, +) == 1)
        #expect(!(try Inspection.inspect(&gate.rig.disk).isWhole))
    }

    @Test("a segment that is gone as a whole is missing exactly when somebody waits for what was in it")
    func goneSegments() throws {
        var gone = (needed: 0, needless: 0)
        for seed in 1...6 as ClosedRange<UInt64> {
            var gate = try Keeper(seed: seed)
            for _ in 0..<4 {
                try gate.work(rounds: 15)
                try gate.restart()
            }
            try gate.rig.checkpoint(of: gate.state)
            #expect(try gate.missing() == [])
            let (disk, rows) = (gate.rig.disk, try Inspection.inspect(&gate.rig.disk).log.segments)
            // The newest is not in the checkpoint's list of those that are complete.
            for segment in rows.dropLast() {
                gate.rig.disk = disk
                gate.rig.disk.remove(segment.file.name)
                let missing = try gate.missing()
                let isWaitedFor = try gate.audit().lines.contains { $0.missing > 0 }
                #expect(missing.isEmpty != isWaitedFor, "seed \(seed), \(segment.id)")
                #expect(missing.allSatisfy { segment.first <= $0.first && $0.last <= segment.last })
                if isWaitedFor { gone.needed += 1 } else { gone.needless += 1 }
            }
        }
        #expect(gone.needed > 0 && gone.needless > 0, "\(gone)")
    }

    @Test("books that do not add up are noticed, and so are books that are not those of the Records")
    func wrongBooks() throws {
        var gate = try Keeper(seed: 4)
        gate.publish(to: [0], text: "a")
        gate.state.apply(.books(gate.sessions[0], Books(received: 2)), at: .zero)
        try gate.rig.settle()
        try gate.rig.checkpoint(of: gate.state)
        #expect(!(try gate.audit().isEven))
    }

    @Test("what is written is counted over the life of the store, through starts and checkpoints")
    func wear() throws {
        var gate = try Keeper(seed: 5)
        try gate.work(rounds: 30)
        let before = gate.rig.journal.wear
        #expect(before.commits > 0 && before.messages > 0)
        try gate.rig.checkpoint(of: gate.state)
        let written = gate.rig.journal.wear
        #expect(written.checkpointBytes > before.checkpointBytes)
        try gate.restart()
        #expect(gate.rig.journal.wear.commits >= written.commits)
        #expect(gate.rig.journal.wear.messages >= written.messages)
        #expect(try Wear(decoding: written.encoded) == written)
    }

    @Test("every Record has a line of its own, whatever a client put into its names")
    func lines() {
        var dice = Dice(9)
        for which in 0..<Samples.caseCount {
            for _ in 0..<50 {
                let line = Samples.record(which, &dice).line(payload: dice.coin())
                #expect(!line.isEmpty)
                #expect(!line.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F })
            }
        }
    }
}

@Suite("The flash budget")
struct FlashBudgetTests {
    @Test(
        "windows widen from half of the day's bytes on, in proportion, up to a bound",
        arguments: [(0, 1), (500, 1), (501, 1), (650, 3), (750, 4), (900, 6), (999, 7), (1000, 8), (9999, 8)]
            as [(UInt64, Int)])
    func widening(spent: UInt64, expected: Int) {
        #expect(FlashBudget(bytesPerDay: 1000).widening(spent: spent) == expected)
    }

    @Test(
        "what is written counts towards the day it is written in, and the next day begins with nothing spent")
    func days() throws {
        let store = try #require(testStore)
        var plan = Rig.smallPlan()
        plan.flashBudget = FlashBudget(bytesPerDay: 20_000)
        var rig = try Rig(store, plan: plan)
        #expect(!rig.journal.isOverFlashBudget)
        for i in 0..<6 {
            rig.append(Samples.plain("t/\(i)", payload: Array(repeating: 1, count: 3000)))
            try rig.settle()
        }
        #expect(rig.journal.isOverFlashBudget)
        // Nothing is held back by it.
        #expect(rig.journal.durable == rig.journal.last)
        try rig.checkpoint()
        try rig.restart()
        #expect(rig.journal.isOverFlashBudget)
        rig.now = rig.now.advanced(byMilliseconds: Wear.dayMilliseconds)
        try rig.settle()
        #expect(!rig.journal.isOverFlashBudget)
    }

    @Test(
        "P3: a message that its receiver has but for PUBCOMP is not missing where compaction has left it out")
    func auditOfReceived() {
        let session = SessionID(1)
        let target = MessageRecord.Target(session: session, delivery: Delivery(0), qos: .exactlyOnce)
        let records: [Record] = [
            .sessionOpened(
                SessionOpened(
                    session: session, owner: .client(identifier: "c"), version: .v5_0, expirySeconds: .max,
                    isPersistent: true, will: nil)),
            .message(
                MessageRecord(
                    qos: .exactlyOnce, message: ApplicationMessage(topic: Array("t".utf8), payload: [1]),
                    targets: [target])),
            .outboundReceived(session, Delivery(0)),
        ]
        var (audit, state) = (Audit(), DurableState())
        var missing: [UInt64] = []
        for (i, record) in records.enumerated() {
            state.apply(record, at: Position(UInt64(i + 1)))
            audit.recovered(record)
            missing += audit.result(state).lines.map(\.missing)
        }
        #expect(missing == [0, 1, 0] && audit.result(state).isEven)
    }

    @Test(
        "an assigned delivery behind numbers that were never written, or are lost, has its own number in the audit too"
    )
    func assignedBehindAGap() throws {
        let filter = try #require(TopicFilter("$share/g/t"))
        let (group, member) = (SessionID(1), SessionID(2))
        func opened(_ id: SessionID, _ owner: SessionOwner) -> Record {
            .sessionOpened(
                SessionOpened(
                    session: id, owner: owner, version: .v5_0, expirySeconds: .max, isPersistent: true,
                    will: nil))
        }
        func message(_ delivery: UInt64, _ session: SessionID) -> Record {
            .message(
                MessageRecord(
                    qos: .atLeastOnce, message: ApplicationMessage(topic: Array("t".utf8), payload: [1]),
                    targets: [.init(session: session, delivery: Delivery(delivery), qos: .atLeastOnce)]))
        }
        for losses in [0, 2] as [UInt64] {
            var records = [
                opened(group, .group(filter)), opened(member, .client(identifier: "c")), message(0, group),
                .assigned(
                    AssignedRecord(
                        group: group, delivery: Delivery(0), member: member, qos: .atLeastOnce,
                        number: Delivery(2), source: .init(position: Position(3), qos: .atLeastOnce, bytes: 2)
                    )),
                message(4, member),
            ]
            if losses > 0 { records.insert(.lost(through: Position(5), count: losses), at: 3) }
            var (audit, state) = (Audit(), DurableState())
            for (i, record) in records.enumerated() {
                state.apply(record, at: Position(UInt64(i + 1)))
                audit.recovered(record)
                audit.inLog(record)
            }
            let result = audit.result(state)
            #expect(result.isEven, "\(result)")
            #expect(result.total.books.dropped(.damaged) == losses)
            #expect(result.total.books.received == 5)
        }
    }
}

/// Three queues, and their state and journal side by side: Records as a gateway makes them.
private struct Keeper {
    var rig: Rig
    var state = DurableState()
    var dice: Dice
    let sessions = (1...3 as ClosedRange<UInt64>).map { SessionID($0) }

    init(seed: UInt64) throws {
        guard let store = testStore else { preconditionFailure("the tests' own id") }
        rig = try Rig(store)
        dice = Dice(seed)
        for session in sessions {
            commit(
                .sessionOpened(
                    SessionOpened(
                        session: session, owner: .client(identifier: "c\(session.number)"), version: .v5_0,
                        expirySeconds: .max, isPersistent: true, will: nil)))
        }
        try rig.settle()
    }

    mutating func commit(_ record: Record) {
        let position = rig.journal.append(record, .control, at: rig.now)
        state.apply(record, at: position)
    }

    mutating func publish(to places: [Int], text: String) {
        let targets = places.compactMap { place -> MessageRecord.Target? in
            guard let queue = state[sessions[place]]?.queue else { return nil }
            return MessageRecord.Target(session: sessions[place], delivery: queue.end, qos: .atLeastOnce)
        }
        commit(
            .message(
                MessageRecord(
                    qos: .atLeastOnce,
                    message: ApplicationMessage(topic: Array("t".utf8), payload: Array(text.utf8)),
                    targets: targets)))
    }

    mutating func work(rounds: Int) throws {
        for round in 0..<rounds {
            let session = sessions[dice.below(3)]
            let floor = state[session]?.queue.floor.number ?? 0
            let end = state[session]?.queue.end.number ?? 0
            switch dice.below(8) {
            case 0...4:
                publish(
                    to: (0..<3).filter { _ in dice.coin() },
                    text: String(repeating: "x", count: dice.below(900)))
            case 5:
                commit(
                    .acknowledged(
                        AcknowledgedRecord(
                            session: session, floor: Delivery(min(floor + UInt64(dice.below(4)), end)),
                            settledAbove: [])))
            case 6:
                if floor + 1 < end { commit(.dropped(session, [Delivery(floor + 1)], .messageExpired)) }
            default:
                if round % 20 == 19 { try rig.checkpoint(of: state) }
            }
            if dice.coin() { try rig.settle() }
        }
        try rig.settle()
    }

    /// A new process finds what is on the disk.
    mutating func restart() throws {
        var found = DurableState()
        let log = try Recovery.recover(&rig.disk) { found.apply($0, at: $1) }
        #expect(found.balance == state.balance)
        state = found
        rig.journal = Journal(plan: rig.plan, recovered: log)
        rig.now = max(rig.now, log.clock)
    }

    mutating func missing() throws -> [Stretch] {
        var found = DurableState()
        let inspection = try Inspection.inspect(&rig.disk, recovered: { found.apply($0, at: $1) })
        return inspection.missing(owedBy: found)
    }

    mutating func audit() throws -> Audit.Result {
        var audit = Audit()
        var found = DurableState()
        _ = try Inspection.inspect(
            &rig.disk,
            recovered: { record, position in
                found.apply(record, at: position)
                audit.recovered(record)
            }, found: { audit.inLog($0.record) })
        return audit.result(found)
    }
}

extension Rig {
    fileprivate mutating func checkpoint(of state: DurableState) throws {
        journal.beginCheckpoint(of: state, at: now)
        try settle()
    }
}
