import GatewayCore

/// The Records that wait for a commit, in the order of their positions, with holes where one was elided.
///
/// - Complexity: everything O(1) a Record, amortized, but `take`, which is O(Records taken).
struct PendingRecords {
    struct Slot {
        let position: Position
        let arrivedAt: Instant
        /// nil once elided.
        fileprivate(set) var record: Record?
        let bytes: Int
        fileprivate(set) var kind: Kind
        /// Whether it was elided, which is known without a look at the Record.
        fileprivate(set) var isHole = false

        mutating func forget() { record = nil }

        /// Lends the Record; afterwards all is as it was. nil where there is none.
        ///
        /// It is taken out and put back: what is lent where it lies is copied first, and a Record is made of many
        /// references.
        mutating func lend<Result>(_ body: (borrowing Record, Position) -> Result) -> Result? {
            var lent: Record?
            swap(&lent, &record)
            defer { swap(&lent, &record) }
            switch lent {
            case nil: return nil
            case let record?: return body(record, position)
            }
        }
    }

    enum Kind {
        case lazy, lingering, prompt
    }

    private var slots = SlotQueue()
    /// Slots without a Record; neither the first nor the last is one.
    private var holes = 0
    /// Where the first that lingers is; the end when none does.
    private var firstLingering = 0
    private var lingeringBytes = 0
    private var lazyCount = 0
    /// What a commit that was due could not take at once is due still.
    private var overdueThrough = Position.zero

    private var lazySince: Instant?
    private var messageSince: Instant?
    private var relaxedSince: Instant?
    private var handshakeSince: Instant?
    private var controlSince: Instant?

    /// What they hold in memory, about.
    private(set) var bytes = 0

    var isEmpty: Bool { slots.isEmpty }
    /// Of Records and holes.
    var slotCount: Int { slots.count }
    /// The position of the first Record.
    var first: Position? { slots.first?.position }
    /// The position of the last Record.
    var last: Position? { slots.last?.position }
    /// Whether a commit has begun and not taken all it should.
    var isOverdue: Bool { slots.first.map { $0.position <= overdueThrough } ?? false }

    var demand: CommitPolicy.Demand {
        var demand = CommitPolicy.Demand()
        demand.lazy = lazySince
        if firstLingering < slots.count { demand.lingering = slots[firstLingering].arrivedAt }
        demand.message = messageSince
        demand.relaxed = relaxedSince
        demand.handshake = handshakeSince
        demand.control = controlSince
        demand.bytes = bytes - lingeringBytes
        demand.memoryBytes = bytes
        demand.beginsBeforeLingering = firstLingering > 0
        return demand
    }

    /// The Record at `position`; nil when it is not here.
    subscript(position: Position) -> Record? { slots.index(of: position).flatMap { slots[$0].record } }

    // MARK: Coming

    /// - Parameter lingers: whether an elidable one waits to be elided.
    mutating func append(
        _ record: consuming Record, _ urgency: Urgency, at position: Position, bytes: Int, lingers: Bool,
        at now: Instant
    ) {
        var kind = Kind.prompt
        switch urgency {
        case .lazy:
            kind = .lazy
            lazyCount += 1
            lazySince = lazySince ?? now
        case .elidable:
            if lingers {
                kind = .lingering
                lingeringBytes += bytes
            } else {
                messageSince = messageSince ?? now
            }
        case .message: messageSince = messageSince ?? now
        case .relaxed: relaxedSince = relaxedSince ?? now
        case .handshake: handshakeSince = handshakeSince ?? now
        case .control: controlSince = controlSince ?? now
        }
        if kind != .lingering, firstLingering == slots.count { firstLingering += 1 }
        slots.append(
            Slot(position: position, arrivedAt: now, record: consume record, bytes: bytes, kind: kind))
        self.bytes += bytes
    }

    // MARK: Going unwritten

    /// Takes out the Record at `position`.
    ///
    /// - Returns: nil when it is not here; whether it lingered.
    mutating func elide(_ position: Position) -> Bool? {
        guard let index = slots.index(of: position), !slots[index].isHole else { return nil }
        let lingered = slots[index].kind == .lingering
        bytes -= slots[index].bytes
        if lingered { lingeringBytes -= slots[index].bytes }
        if slots[index].kind == .lazy { lazyCount -= 1 }
        slots[index].record = nil
        slots[index].isHole = true
        holes += 1
        closeHoles()
        return lingered
    }

    private mutating func closeHoles() {
        while !slots.isEmpty, slots[0].isHole {
            slots.removeFirst()
            holes -= 1
            firstLingering = max(0, firstLingering - 1)
        }
        while !slots.isEmpty, slots[slots.count - 1].isHole {
            slots.removeLast()
            holes -= 1
        }
        firstLingering = min(firstLingering, slots.count)
        if holes > 64, holes > slots.count / 2 {
            slots.removeAll { $0.isHole }
            holes = 0
            firstLingering = 0
        }
        passOver()
        if slots.isEmpty { forgetDemand() }
    }

    /// Moves `firstLingering` on to one that does linger.
    private mutating func passOver() {
        while firstLingering < slots.count,
            slots[firstLingering].kind != .lingering || slots[firstLingering].isHole
        {
            firstLingering += 1
        }
    }

    /// What lingers up to `position` is waited for from now on.
    mutating func hasten(_ position: Position) {
        while firstLingering < slots.count, slots[firstLingering].position <= position {
            let slot = slots[firstLingering]
            slots[firstLingering].kind = .prompt
            lingeringBytes -= slot.bytes
            messageSince = min(messageSince ?? slot.arrivedAt, slot.arrivedAt)
            firstLingering += 1
            passOver()
        }
    }

    // MARK: Going out

    /// Fills a batch from the front, as far as it has room; the Records are lent, and stay.
    ///
    /// - Parameter onlyBeforeLingering: no further than to the first Record that lingers.
    /// - Returns: how many slots went into it.
    mutating func fill(_ builder: inout BatchBuilder, onlyBeforeLingering: Bool, limit: Int) -> Int {
        let end = onlyBeforeLingering ? firstLingering : slots.count
        var taken = 0
        var previous: Position?
        slots.lend(before: end) { index, slot in
            if slot.isHole { return true }
            let gap = previous.map { slot.position.number - $0.number - 1 } ?? 0
            let isIn =
                gap <= Self.gapMax
                && slot.lend { record, _ in builder.add(record, behind: Int(gap), limit: limit) } == true
            guard isIn else { return false }
            previous = slot.position
            taken = index + 1
            return true
        }
        if taken == 0, let record = slots.first?.record {
            // Too large for what is left of the segment, or for any batch that is shared.
            let isIn = builder.add(record, behind: 0, limit: .max)
            precondition(isIn, "an empty batch without a limit takes any Record")
            taken = 1
        }
        return taken
    }

    /// Elided Records in a row that a batch has two bytes each for; beyond, another batch costs no more.
    private static let gapMax: UInt64 = 1024

    /// Takes out the first `count` slots.
    ///
    /// - Parameter all: the commit was meant for every Record there is.
    /// - Returns: the Records, and how many of them lingered.
    mutating func take(_ count: Int, all: Bool) -> (slots: [Slot], lingered: Int) {
        if all, let last = slots.last { overdueThrough = last.position }
        var taken = slots.take(count)
        if holes > 0 {
            let all = taken.count
            taken.removeAll { $0.isHole }
            holes -= all - taken.count
        }
        var lingered = 0
        for i in taken.indices {
            bytes -= taken[i].bytes
            switch taken[i].kind {
            case .lazy: lazyCount -= 1
            case .lingering:
                lingered += 1
                lingeringBytes -= taken[i].bytes
            case .prompt: break
            }
        }
        firstLingering = max(0, firstLingering - count)
        closeHoles()
        if all {
            forgetDemand()
        } else {
            // Those that are left are no older than the first of all that are.
            lazySince = lazyCount > 0 ? slots.first?.arrivedAt : nil
        }
        return (taken, lingered)
    }

    /// Takes back what was taken out last and could not be written; whoever waits for it goes on waiting.
    mutating func putBack(_ taken: [Slot]) {
        var taken = taken
        for i in taken.indices {
            let arrivedAt = taken[i].arrivedAt
            bytes += taken[i].bytes
            if taken[i].kind == .lazy {
                lazyCount += 1
                lazySince = min(lazySince ?? arrivedAt, arrivedAt)
            } else {
                taken[i].kind = .prompt
                messageSince = min(messageSince ?? arrivedAt, arrivedAt)
            }
        }
        slots.putBack(taken)
        firstLingering += taken.count
    }

    private mutating func forgetDemand() {
        lazySince = nil
        messageSince = nil
        relaxedSince = nil
        handshakeSince = nil
        controlSince = nil
    }
}

extension RandomAccessCollection<PendingRecords.Slot> where Index == Int {
    /// Where the Record at `position` is; nil when it is not here.
    ///
    /// - Complexity: O(1) while there are no holes before it, else O(log count)
    func index(of position: Position) -> Int? { index(of: position.number) { $0.position.number } }
}
