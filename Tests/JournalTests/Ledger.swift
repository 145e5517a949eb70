import GatewayCore
import Testing

@testable import Journal

/// A state small enough to be surely right: a digest of every Record in order, and the messages that one
/// Session is owed.
struct Ledger: CheckpointSource, Equatable {
    var digest: UInt64 = 0
    var floor: UInt64 = 0
    var owed: [Position] = []

    mutating func apply(_ record: Record, at position: Position) {
        if case .lost = record { return }
        if position == .zero {
            switch record {
            case .counters(let value): digest = value
            case .queue(let queue):
                floor = queue.floor.number
                owed = queue.entries.compactMap(\.position)
            default: Issue.record("unexpected Record in a checkpoint")
            }
            return
        }
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        let sum = UInt64(Checksum.of(bytes, 0..<bytes.count, seed: 0))
        // It travels in checkpoints as a number of Sessions, which has a limit.
        digest = (digest ^ sum ^ position.number << 32) &* 0x100_0000_01B3 % countableLimit
        switch record {
        case .message(let message):
            if message.targets.isEmpty || message.targets.contains(where: { $0.session == SessionID(1) }) {
                owed.append(position)
            }
        case .acknowledged(let settled) where settled.session == SessionID(1):
            let count = Int(settled.floor.number - floor)
            owed.removeFirst(min(count, owed.count))
            floor = settled.floor.number
        default: break
        }
    }

    func snapshot(_ body: (Record) -> Void) {
        body(.counters(nextSession: digest))
        body(
            .queue(
                QueueRecord(
                    session: SessionID(1), floor: Delivery(floor),
                    entries: owed.map { .init(position: $0, qos: .atLeastOnce, isReceived: false) })))
    }

    func owes(from first: Position, through last: Position) -> Bool {
        owed.contains { $0 >= first && $0 <= last }
    }

    func owedCount(in stretch: Stretch) -> Int { owed.count { stretch.contains($0) } }

    func needs(_ session: SessionID, _ delivery: Delivery) -> Bool {
        session == SessionID(1) && delivery.number >= floor && delivery.number < floor + UInt64(owed.count)
    }

    func strayPositions(in stretch: Stretch) -> Set<Position> { [] }
}

/// A journal on a fault disk, with everything that was ever appended.
struct Rig {
    var disk: FaultDisk
    var journal: Journal
    var ledger = Ledger()
    /// By position; index 0 stands before the first Record.
    var history: [(record: Record, isElided: Bool, ledger: Ledger)]
    /// What was promised: the last `.durable`.
    var promised = Position.zero
    /// The stretches that were ever called complete.
    var told: Set<Stretch> = []
    var events: [StorageEvent] = []
    var now = Instant(milliseconds: 1000)
    var recovered: RecoveredLog
    let plan: JournalPlan
    /// The file system is one on which files are used again.
    let recycles: Bool

    static func smallPlan() -> JournalPlan {
        var plan = JournalPlan()
        plan.segmentBytes = 32 << 10
        plan.batchBytesMax = 12 << 10
        plan.growthBytes = 32 << 10
        plan.checkpointGrowthBytes = 64 << 10
        plan.checkpointGrowthFactor = 1
        // Nobody waits for company here: what that is like has tests of its own.
        plan.commits.windowMilliseconds = 0
        return plan
    }

    init(_ store: StoreID, plan: JournalPlan = smallPlan(), recycles: Bool = false) throws {
        disk = FaultDisk(formatted: store)
        self.plan = plan
        recovered = try Recovery.recover(&disk) { _, _ in }
        recovered.recycles = recycles
        self.recycles = recycles
        journal = Journal(plan: plan, recovered: recovered)
        history = [(.counters(nextSession: 0), false, ledger)]
    }

    mutating func append(_ record: Record, _ urgency: Urgency = .control) {
        let position = journal.append(record, urgency, at: now)
        ledger.apply(record, at: position)
        history.append((record, false, ledger))
        #expect(position.number == UInt64(history.count - 1))
    }

    /// Asks for Records not to be written; those that are not are as if they had never been.
    mutating func elide(_ numbers: UInt64...) { elide(numbers) }

    mutating func elide(_ numbers: some Sequence<UInt64>) {
        let told = elidedPositions.count
        for number in numbers { journal.elide(Position(number), at: now) }
        collect()
        let elided = elidedPositions.dropFirst(told)
        guard let first = elided.min() else { return }
        for position in elided { history[Int(position.number)].isElided = true }
        ledger = history[Int(first.number) - 1].ledger
        for index in Int(first.number)..<history.count {
            if !history[index].isElided {
                ledger.apply(history[index].record, at: Position(UInt64(index)))
            }
            history[index].ledger = ledger
        }
    }

    private var elidedPositions: [Position] {
        events.compactMap { if case .elided(let position) = $0 { position } else { nil } }
    }

    /// Second by second.
    mutating func passes(seconds: Int) throws {
        for _ in 0..<seconds {
            now = now.advanced(bySeconds: 1)
            try settle()
        }
    }

    /// Lets the disk work until nothing is to be done.
    mutating func settle() throws {
        journal.tick(at: now)
        while try work() {}
    }

    /// One operation of the disk, and what follows from it.
    mutating func work() throws -> Bool {
        var operations: [DiskOperation] = []
        journal.takeOperations(into: &operations)
        for operation in operations {
            let completion = try disk.perform(operation)
            journal.completed(completion, at: now)
        }
        collect()
        return !operations.isEmpty
    }

    mutating func collect() {
        var fresh: [StorageEvent] = []
        journal.takeEvents(into: &fresh)
        for event in fresh {
            if case .durable(let position) = event {
                #expect(position > promised)
                promised = position
            }
            if case .sealed(let stretch, _) = event { told.insert(stretch) }
        }
        events += fresh
    }

    /// What the host does under pressure, as long as nobody sends anything; returns how many Records and
    /// checkpoints it took.
    mutating func passQuietly(halfMinutes: Int) throws -> (records: Int, checkpoints: Int) {
        var taken = (records: 0, checkpoints: 0)
        for _ in 0..<halfMinutes {
            now = now.advanced(byMilliseconds: 30_000)
            try settle()
            if journal.wantsRecord {
                append(.counters(nextSession: 1), .lazy)
                taken.records += 1
                #expect(journal.wantsCheckpoint && !journal.wantsRecord)
            }
            journal.beginWantedCheckpoint(of: ledger, at: now)
            if journal.checkpointing != .none { taken.checkpoints += 1 }
            try settle()
        }
        return taken
    }

    mutating func checkpoint() throws {
        journal.beginCheckpoint(of: ledger, at: now)
        try settle()
    }

    /// A new process finds the disk as it is; checks that it finds all that was promised, and nothing that
    /// never was, and that finding it a second time makes no difference.
    mutating func restart() throws {
        var found = Ledger()
        recovered = try Recovery.recover(&disk) { found.apply($0, at: $1) }
        var again = Ledger()
        let second: RecoveredLog = try Recovery.recover(&disk) { again.apply($0, at: $1) }
        #expect(second == recovered)
        #expect(again == found)
        let promised = history.indices.prefix(through: Int(promised.number)).last { !history[$0].isElided }
        #expect(recovered.last.number >= UInt64(promised ?? 0))
        let last = Int(recovered.last.number)
        try #require(last < history.count)
        #expect(found == history[last].ledger)
        // A segment that could not be deleted, whose last write had failed, looks damaged; nobody is owed any of it.
        let report = recovered.report
        #expect(report.lost.isEmpty && report.setAside.isEmpty && !report.formatIsDamaged)
        #expect(report.damaged.isEmpty || disk.strikes > 0, "\(report)")
        // A stretch is the same in every life, as long as its file is there.
        let plain = recovered.segments.filter { !$0.isMerged }.compactMap(\.stretch)
        for stretch in told {
            #expect(plain.allSatisfy { $0 == stretch || !$0.contains(stretch.first) })
        }
        // As the host does.
        for name in recovered.report.unfinished { disk.remove(name) }
        told.formUnion(recovered.stretches)
        history.removeSubrange((last + 1)...)
        ledger = found
        self.promised = recovered.last
        now = max(now, recovered.clock)
        recovered.recycles = recycles
        recovered.space = disk.space
        journal = Journal(plan: plan, recovered: recovered)
        events = []
    }

    /// Loads everything that is owed and compares.
    mutating func loadAllOwed() throws {
        events = []
        journal.load(SessionID(1), ledger.owed)
        collect()
        while try work() {}
        let loaded = events.compactMap { event -> [(Position, StoredMessage?)]? in
            guard case .loaded(_, let messages) = event else { return nil }
            return messages
        }
        try #require(loaded.count == 1)
        #expect(loaded[0].map(\.0) == ledger.owed)
        for (position, message) in loaded[0] {
            guard case .message(let record) = history[Int(position.number)].record else {
                Issue.record("no message at \(position)")
                continue
            }
            #expect(message == StoredMessage(record, for: SessionID(1)))
        }
    }

    /// Asks the index of each complete stretch, with those of `more`, for everything that was ever owed to a
    /// Session, and compares.
    mutating func checkIndexes(of number: UInt64 = 1, _ more: [Stretch] = []) throws {
        for stretch in recovered.stretches + more {
            events = []
            journal.index(SessionID(number), stretch)
            collect()
            while try work() {}
            guard case .indexed(SessionID(number), stretch, let found?)? = events.last, events.count == 1
            else {
                // Nothing was owed to anybody.
                #expect(expectedPostings(of: number, in: stretch).isEmpty || isDeleted(stretch))
                continue
            }
            let expected = expectedPostings(of: number, in: stretch)
            if recovered.segments.contains(where: { $0.isMerged && $0.stretch == stretch }) {
                let owed = expected.filter { ledger.needs(SessionID(number), $0.delivery) }
                #expect(Set(found).isSubset(of: expected) && Set(found).isSuperset(of: owed))
            } else {
                #expect(found == expected)
            }
        }
    }

    private func isDeleted(_ stretch: Stretch) -> Bool {
        !ledger.owes(from: stretch.first, through: stretch.last)
    }

    func expectedPostings(of number: UInt64, in stretch: Stretch) -> [Posting] {
        (stretch.first.number...stretch.last.number).flatMap { position -> [Posting] in
            guard case .message(let message) = history[Int(position)].record,
                !history[Int(position)].isElided
            else { return [] }
            return message.targets.compactMap { target in
                guard target.session == SessionID(number), let delivery = target.delivery else { return nil }
                return Posting(
                    delivery: delivery, position: Position(position), qos: target.qos,
                    bytes: UInt32(message.message.bytes.count))
            }
        }
    }

    /// The stretches that were completed since the events were looked at last.
    var sealed: [(stretch: Stretch, queues: [SessionID])] {
        events.compactMap { if case .sealed(let stretch, let queues) = $0 { (stretch, queues) } else { nil } }
    }

    /// What the next message for the one Session of the ledger has.
    var nextDelivery: UInt64 { ledger.floor + UInt64(ledger.owed.count) }

    /// A few Records as a gateway has them: messages, acknowledgements of some, anything.
    mutating func appendSomething(_ dice: inout Dice) {
        let urgency: Urgency = dice.coin() ? .message : .lazy
        switch dice.below(10) {
        case 0...5:
            let size = dice.below(20) == 0 ? 40_000 : 3000
            let payload = Array(repeating: UInt8(truncatingIfNeeded: dice.next()), count: dice.below(size))
            append(
                Samples.plain("t/\(history.count)", delivery: nextDelivery, payload: payload), urgency)
        case 6...8:
            let count = dice.below(min(ledger.owed.count, 8) + 1)
            append(
                .acknowledged(
                    AcknowledgedRecord(
                        session: SessionID(1), floor: Delivery(ledger.floor + UInt64(count)), settledAbove: []
                    )),
                urgency)
        default:
            append(.inboundReleased(SessionID(dice.number()), 7), urgency)
        }
    }
}
