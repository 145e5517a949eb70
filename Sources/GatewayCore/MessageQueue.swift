import DequeModule
import MQTT

/// Everything one receiver is owed, in order: a client that is here, a client that is away, or an uplink.
///
/// Deliveries are numbered over the queue's life. Each has an entry, but for those in a hole: a page, of which only
/// the index of the log knows more (`QueuePages.swift`), or a gap, in which everything is settled. Settled ones stay
/// as entries until all before them are settled and a Record has said so. Messages themselves are in memory only
/// for a prefix of the entries, `resident`; behind it an entry is just the position of its Record.
///
/// - Invariant: `resident.count <= headCount`, and a settled entry has no resident message.
/// - Invariant: holes lie between `floor` and `end`, in order and apart, and no gap begins at `floor`.
package struct MessageQueue {
    /// Every delivery before this one is settled, by Record.
    package internal(set) var floor = Delivery(0)
    /// The number the next message gets.
    package internal(set) var end = Delivery(0)
    // What follows is changed by this type alone, which is told in more than one file.
    var entries: Deque<Entry> = []
    var holes: Deque<Hole> = []
    var resident: Deque<StoredMessage?> = []
    /// Of the messages in memory.
    package internal(set) var residentBytes = 0
    /// Deliveries that are not settled.
    package internal(set) var waitingCount = 0
    /// The bytes of their messages: topics, properties and payloads. Of pages that were cut by a replay it is an
    /// estimate until their index is read.
    package internal(set) var waitingBytes = 0
    /// Of `waitingCount`, those in pages.
    var pagedCount = 0
    /// Entries with `isStray`.
    var strayCount = 0
    /// Entries settled since the last `acknowledgedRecord`: what a power cut would make us deliver again.
    var unrecordedCount = 0
    /// Entries settled that no Record has settled: the books still count them as queued.
    var unbookedCount = 0
    /// Deliveries before this one may have been sent before the start.
    var sentBelow = Delivery(0)
    /// A load is on its way.
    var isLoading = false
    /// An index is on its way.
    var isIndexing = false
    /// Floors whose Record is not known durable yet, oldest first (rule A7).
    var unconfirmedFloors: Deque<(position: Position, floor: Delivery)> = []
    /// The floor that certainly survives a power cut.
    var confirmedFloor = Delivery(0)
    /// Deliveries that came through a shared subscription, in rising order and at or above the floor. They are few,
    /// as no more are assigned than may be in flight, so they are kept here and not in every entry of every queue.
    var assignments: [Assignment] = []
    /// Where the queue ended when its receiver went away: while it is away, what came since was sent to nobody. Only
    /// Records move it, so that a start knows as much.
    var unsentFrom = Delivery(0)

    enum Phase: UInt8 {
        case waiting
        /// PUBLISH may have been sent.
        case sent
        /// PUBREC came and is recorded: only PUBREL is sent from now on [MQTT5-4.3.3-6]. Or the message is damaged.
        case received
        case settled
    }

    /// A delivery that a shared subscription's group chose this receiver for.
    struct Assignment {
        let delivery: Delivery
        var group: SessionID
        /// The QoS it has in the group's queue: this receiver's grant may be lower.
        let groupQoS: QoS
        /// The group's own delivery while it stays in the group's queue: its member leaves no trace.
        var source: Delivery?
        /// The Record that must be durable before a QoS 2 message is sent; `.zero` when there is none.
        let recordedAt: Position
    }

    /// What a queue needs no longer.
    struct Released {
        var positions: [Position] = []
        /// Of deliveries in pages there are only numbers.
        var paged: [(stretch: Stretch, count: Int)] = []
    }

    package init() {}

    /// What of the queue is in memory, and what only an index knows.
    package var entryCount: Int { entries.count }
    package var pageCount: Int { holes.count { $0.stretch != nil } }

    // MARK: Arriving

    /// Adds a message at the end; it stays in memory only while all before it do and `budget` bytes allow.
    /// With nil its bytes are read when they are needed, and so are those of all behind it.
    mutating func append(
        _ message: StoredMessage?, bytes: UInt32, qos: QoS, at position: Position, budget: Int,
        isStray: Bool = false
    ) {
        if let message, keepsNext(within: budget) {
            resident.append(message)
            residentBytes += message.message.bytes.count
        }
        enter(bytes: bytes, qos: qos, at: position, isStray: isStray)
    }

    private mutating func enter(bytes: UInt32, qos: QoS, at position: Position, isStray: Bool) {
        entries.append(
            Entry(position: position, bytes: bytes, qos: qos, phase: .waiting, isStray: isStray))
        end = Delivery(end.number + 1)
        waitingCount += 1
        waitingBytes += Int(bytes)
        if isStray { strayCount += 1 }
    }

    /// Adds a message that came just now; what it is here is asked for only where it stays in memory, which most of
    /// a long queue does not.
    mutating func append(
        arrived message: @autoclosure () -> StoredMessage, bytes: Int, qos: QoS, at position: Position,
        budget: Int, isStray: Bool
    ) {
        if keepsNext(within: budget) {
            resident.append(message())
            residentBytes += bytes
        }
        enter(bytes: UInt32(clamping: bytes), qos: qos, at: position, isStray: isStray)
    }

    /// Whether the next message at the end stays in memory.
    private func keepsNext(within budget: Int) -> Bool {
        pagedCount == 0 && resident.count == entries.count && residentBytes < budget
    }

    /// Adds a message that a group chose this receiver for.
    mutating func append(
        _ message: StoredMessage?, bytes: UInt32, qos: QoS, at position: Position, budget: Int,
        assignedBy group: SessionID, groupQoS: QoS, source: Delivery?, recordedAt: Position
    ) {
        assignments.append(
            Assignment(
                delivery: end, group: group, groupQoS: groupQoS, source: source, recordedAt: recordedAt))
        append(message, bytes: bytes, qos: qos, at: position, budget: budget, isStray: true)
    }

    /// Makes `number` the next message's, however far away it is: what would have come before was never written, or
    /// is lost, and counts as settled.
    ///
    /// - Parameter position: of the Record that says so.
    /// - Returns: false when a delivery with this number, or a later one, was here already.
    mutating func skip(to number: Delivery, at position: Position) -> Bool {
        guard number >= end, number.number < Delivery.countableLimit else { return false }
        if number > end {
            openGap(to: number)
            noteFloor(at: position)
        }
        return true
    }

    /// Goes on far behind all numbers that lost Records may have given, as often as damage allows: four million times.
    mutating func jump() {
        guard end.number < Delivery.countableLimit - Delivery.jump else { return }
        openGap(to: Delivery(end.number + Delivery.jump))
        // The next start would come to the same.
        noteFloor(at: .zero)
    }

    // MARK: Reading

    /// nil for what is not in memory, too.
    subscript(delivery: Delivery) -> Entry? {
        guard let i = index(of: delivery) else { return nil }
        var entry = entries[i]
        if entry.phase == .waiting, delivery < sentBelow { entry.phase = .sent }
        return entry
    }

    /// The delivery a peer means by `id`, if it is unsettled.
    func unsettled(_ id: PacketIdentifier, by rule: PacketIdentifierRule) -> Delivery? {
        guard let delivery = rule.delivery(with: id, atOrAfter: floor),
            let i = index(of: delivery), entries[i].phase != .settled,
            rule.identifier(of: delivery, qos: entries[i].qos) == id
        else { return nil }
        return delivery
    }

    /// How a delivery came through a shared subscription; nil when it came otherwise.
    ///
    /// - Complexity: O(log assignments)
    func assignment(of delivery: Delivery) -> Assignment? {
        guard !assignments.isEmpty else { return nil }
        let i = assignmentIndex(of: delivery)
        return i < assignments.count && assignments[i].delivery == delivery ? assignments[i] : nil
    }

    /// The message of a delivery if it is in memory.
    func message(of delivery: Delivery) -> StoredMessage? {
        guard let i = index(of: delivery), i < resident.count else { return nil }
        return resident[i]
    }

    func isResident(_ delivery: Delivery) -> Bool {
        guard let i = index(of: delivery) else { return false }
        return i < resident.count
    }

    /// Whether `delivery`'s identifier cannot collide with one that a power cut would bring back (rule A7).
    mutating func mayUseIdentifier(of delivery: Delivery, durable: Position, span: UInt64) -> Bool {
        while let first = unconfirmedFloors.first, first.position <= durable {
            confirmedFloor = first.floor
            unconfirmedFloors.removeFirst()
        }
        return delivery.number < confirmedFloor.number + span
    }

    // MARK: Loading

    /// The positions to read back next, at most `count` and of no more than `bytesMax` bytes or of one message, in rising
    /// order, and the group whose share of them it is, if any; empty while a load is on its way or none is needed.
    mutating func positionsToLoad(
        atMost count: Int, bytes bytesMax: Int
    ) -> (positions: [Position], group: SessionID?) {
        guard !isLoading else { return ([], nil) }
        var positions: [Position] = []
        var bytes = 0
        var group: SessionID?
        var i = resident.count
        let head = headCount
        load: while i < head, positions.count < count {
            switch entries[i].phase {
            case .waiting, .sent:
                let origin = entries[i].isStray ? assignment(of: delivery(at: i))?.group : nil
                if let last = positions.last {
                    // What a group assigns is older than what came in meanwhile: that is a load of its own.
                    guard origin == group, entries[i].position > last,
                        bytes + Int(entries[i].bytes) <= bytesMax
                    else { break load }
                }
                group = origin
                bytes += Int(entries[i].bytes)
                positions.append(entries[i].position)
            case .received, .settled:
                // Nothing to read for gaps and PUBRELs.
                if positions.isEmpty { resident.append(nil) }
            }
            i += 1
        }
        isLoading = !positions.isEmpty
        return (positions, group)
    }

    /// Takes what a load brought; returns the deliveries whose bytes were damaged, but for those that may have been sent at
    /// QoS 2. An answer to a load that was given up in between fits nowhere and is ignored.
    mutating func loaded(_ messages: [(Position, StoredMessage?)]) -> [Delivery] {
        isLoading = false
        var damaged: [Delivery] = []
        var next = messages.startIndex
        let head = headCount
        while next < messages.endIndex, resident.count < head {
            let i = resident.count
            switch entries[i].phase {
            case .received, .settled:
                resident.append(nil)
            case .waiting, .sent:
                let position = entries[i].position
                while next < messages.endIndex, messages[next].0 < position { next += 1 }
                guard next < messages.endIndex, messages[next].0 == position else { return damaged }
                if let message = messages[next].1 {
                    residentBytes += message.message.bytes.count
                } else if entries[i].qos < .exactlyOnce
                    || entries[i].phase == .waiting && delivery(at: i) >= sentBelow
                {
                    damaged.append(delivery(at: i))
                }
                resident.append(messages[next].1)
                next += 1
            }
        }
        return damaged
    }

    /// Gives back memory beyond `budget` bytes, from the end of what is resident.
    mutating func trimResident(to budget: Int) {
        while residentBytes > budget, let last = resident.popLast() {
            residentBytes -= last?.message.bytes.count ?? 0
        }
        isLoading = false
    }

    // MARK: Making room

    /// The oldest delivery at or after `start` that may be dropped, for nobody was sent it; one in a page may be it
    /// too. What was perhaps sent before the start goes at QoS 1, where a receiver may get anything twice; at QoS 2
    /// its handshake must end, so that its identifier is free again.
    ///
    /// - Complexity: O(deliveries passed over)
    func firstDroppable(atOrAfter start: Delivery) -> Delivery? {
        var delivery = max(start, floor)
        while delivery < end {
            if let i = index(of: delivery) {
                if entries[i].phase == .waiting, delivery >= sentBelow || entries[i].qos < .exactlyOnce {
                    return delivery
                }
                delivery = Delivery(delivery.number + 1)
            } else if let gapEnd = gap(at: delivery) {
                delivery = gapEnd
            } else if delivery < sentBelow {
                // Only the index knows at which QoS.
                delivery = min(sentBelow, pageEnd(at: delivery))
            } else {
                return delivery
            }
        }
        return nil
    }

    // MARK: Handing out

    /// The first delivery at or after `start` that nobody has; one in a page may be it too.
    ///
    /// - Complexity: O(deliveries passed over)
    func firstWaiting(atOrAfter start: Delivery) -> Delivery {
        var delivery = max(start, floor)
        while delivery < end {
            if let i = index(of: delivery) {
                guard entries[i].phase != .waiting else { return delivery }
                delivery = Delivery(delivery.number + 1)
            } else if let gapEnd = gap(at: delivery) {
                delivery = gapEnd
            } else {
                return delivery
            }
        }
        return delivery
    }

    /// Deliveries that nobody has.
    ///
    /// - Complexity: O(entries in memory)
    var unassignedCount: Int { entries.reduce(pagedCount) { $1.phase == .waiting ? $0 + 1 : $0 } }

    /// The same with their messages, of a queue whose messages are all in memory.
    ///
    /// - Complexity: O(entries)
    var waitingMessages: [(StoredMessage, QoS)] {
        zip(entries, resident).compactMap { entry, message in
            entry.phase == .waiting ? message.map { ($0, entry.qos) } : nil
        }
    }

    /// Takes an unsettled delivery out, for another queue to have; here it is settled.
    ///
    /// - Parameter known: what it is, as the Record has it: a page has no more than its number.
    mutating func take(_ delivery: Delivery, known: Entry? = nil, into released: inout Released) -> (
        entry: Entry, message: StoredMessage?
    )? {
        guard let i = index(of: delivery) else {
            guard let known, isPaged(delivery) else { return nil }
            unrecordedCount += 1
            settlePaged(delivery, into: &released)
            return (known, nil)
        }
        let entry = entries[i]
        guard entry.phase != .settled else { return nil }
        let message = message(of: delivery)
        unrecordedCount += 1
        release(i, into: &released)
        return (entry, message)
    }

    /// A member that had it is gone: whoever is next may have it.
    mutating func markWaiting(_ delivery: Delivery) {
        guard let i = index(of: delivery), entries[i].phase == .sent else { return }
        entries[i].phase = .waiting
    }

    /// Deliveries of `group` belong to `other` from now on, which knows nothing of them yet.
    mutating func reassign(from group: SessionID, to other: SessionID) {
        for i in assignments.indices where assignments[i].group == group {
            assignments[i].group = other
            assignments[i].source = nil
        }
    }

    // MARK: Handshakes

    mutating func markSent(_ delivery: Delivery) {
        guard let i = index(of: delivery) else { return }
        entries[i].phase = .sent
    }

    /// The message of a delivery that may have been sent at QoS 2 is damaged: what is left to do is to end its handshake.
    mutating func markUnreadable(_ delivery: Delivery) {
        guard let i = index(of: delivery), entries[i].phase == .sent || entries[i].phase == .waiting else {
            return
        }
        entries[i].phase = .received
    }

    /// PUBREC is recorded: the message itself is no longer needed, the Packet Identifier is.
    mutating func markReceived(_ delivery: Delivery, into released: inout Released) {
        guard let i = index(of: delivery) else {
            return markPagedReceived(delivery, into: &released)
        }
        guard entries[i].phase != .settled, entries[i].phase != .received || entries[i].isUnreadable else {
            return
        }
        entries[i].phase = .received
        forget(i, into: &released)
    }

    /// The receiver has it: live, before any Record says so (rule A8).
    ///
    /// - Returns: false when it was settled before.
    mutating func settle(_ delivery: Delivery) -> Bool {
        guard let i = index(of: delivery), entries[i].phase != .settled else { return false }
        noteSettled(i)
        unrecordedCount += 1
        unbookedCount += 1
        dropResident(i)
        return true
    }

    /// A Record can raise the floor: the last one did not reach far enough, or there was none.
    var isFloorSettled: Bool { entries.first?.phase == .settled && holes.first?.first != floor }

    /// What a Record must say so that every settled delivery stays settled after a power cut. Gaps need no Record:
    /// one has made them.
    ///
    /// - Complexity: O(span of settled entries)
    func acknowledgedRecord(for session: SessionID, lookingAhead span: UInt64) -> AcknowledgedRecord {
        var newFloor: Delivery?
        var above: [Delivery] = []
        var delivery = floor
        var hole = holes.startIndex
        for entry in entries {
            while hole < holes.endIndex, holes[hole].first == delivery {
                if holes[hole].stretch != nil { newFloor = newFloor ?? delivery }
                delivery = holes[hole].end
                hole += 1
            }
            guard delivery.number - floor.number < span else { break }
            if entry.phase != .settled {
                newFloor = newFloor ?? delivery
            } else if newFloor != nil, !entry.isElided {
                above.append(delivery)
            }
            delivery = Delivery(delivery.number + 1)
        }
        return AcknowledgedRecord(session: session, floor: newFloor ?? delivery, settledAbove: above)
    }

    /// Applies an acknowledgement Record.
    mutating func apply(_ record: AcknowledgedRecord, at position: Position, into released: inout Released) {
        for delivery in record.settledAbove { release(delivery, into: &released) }
        raiseFloor(to: record.floor, into: &released)
        if !assignments.isEmpty { assignments.removeFirst(assignmentIndex(of: floor)) }
        unrecordedCount = 0
        noteFloor(at: position)
        passElided()
    }

    /// The Record of a settled delivery, at `position`, will not be written.
    ///
    /// - Returns: false when no Record was needed for it any more.
    mutating func elided(_ delivery: Delivery, at position: Position) -> Bool {
        guard let i = index(of: delivery), entries[i].position == position, entries[i].phase == .settled
        else { return false }
        var released = Released()
        release(i, into: &released)
        entries[i].isElided = true
        unrecordedCount = max(0, unrecordedCount - 1)
        passElided()
        return true
    }

    /// The floor moves on without a Record past what none will bring back, and so does the floor that survives a
    /// power cut (rule A7): what was never written needs no protection.
    mutating func passElided() {
        let before = floor
        while let first = entries.first, first.isElided, holes.first?.first != floor {
            if entries.removeFirst().isStray { strayCount -= 1 }
            if !resident.isEmpty { resident.removeFirst() }
            floor = Delivery(floor.number + 1)
            passGapAtFloor()
        }
        guard floor > before else { return }
        if unconfirmedFloors.isEmpty {
            confirmedFloor = floor
        } else {
            unconfirmedFloors[unconfirmedFloors.count - 1].floor = floor
        }
    }

    /// Lets go of deliveries by Record.
    mutating func drop(_ deliveries: [Delivery], at position: Position, into released: inout Released) {
        for delivery in deliveries {
            if let i = index(of: delivery) {
                if entries[i].phase != .settled { unrecordedCount += 1 }
                release(i, into: &released)
            } else if delivery == end, delivery.number < Delivery.countableLimit {
                openGap(to: Delivery(delivery.number + 1))
            } else {
                settlePaged(delivery, into: &released)
            }
        }
        noteFloor(at: position)
    }

    private mutating func raiseFloor(to newFloor: Delivery, into released: inout Released) {
        guard newFloor.number < Delivery.countableLimit else { return }
        while floor < newFloor {
            if let hole = holes.first, hole.first == floor {
                passPage(upTo: min(hole.end, newFloor), into: &released)
            } else if floor < end {
                release(0, into: &released)
                if entries.removeFirst().isStray { strayCount -= 1 }
                if !resident.isEmpty { resident.removeFirst() }
                floor = Delivery(floor.number + 1)
            } else {
                // Settled without ever having been written.
                floor = newFloor
                end = newFloor
            }
            passGapAtFloor()
        }
    }

    /// Everything before a Record's own position may be forgotten of the identifiers once it is durable.
    private mutating func noteFloor(at position: Position) {
        if floor > unconfirmedFloors.last?.floor ?? confirmedFloor {
            unconfirmedFloors.append((position, floor))
        }
    }

    // MARK: Recovering

    /// The receiver goes away: what comes from now on is not sent before it is back.
    mutating func noteAway() { unsentFrom = end }

    // MARK: Details

    /// Where `delivery` is among the assignments, or would be.
    private func assignmentIndex(of delivery: Delivery) -> Int {
        assignments.partitioningIndex { $0.delivery >= delivery }
    }

    private mutating func dropResident(_ i: Int) {
        guard i < resident.count, let message = resident[i] else { return }
        residentBytes -= message.message.bytes.count
        resident[i] = nil
    }

    private mutating func noteSettled(_ i: Int) {
        entries[i].phase = .settled
        waitingCount -= 1
        waitingBytes -= Int(entries[i].bytes)
    }

    private mutating func forget(_ i: Int, into released: inout Released) {
        dropResident(i)
        guard entries[i].position != .zero else { return }
        released.positions.append(entries[i].position)
        entries[i].position = .zero
    }

    private mutating func release(_ i: Int, into released: inout Released) {
        if entries[i].phase != .settled {
            noteSettled(i)
        } else if !entries[i].isBooked {
            unbookedCount -= 1
        }
        entries[i].isBooked = true
        forget(i, into: &released)
    }

    private mutating func release(_ delivery: Delivery, into released: inout Released) {
        if let i = index(of: delivery) {
            release(i, into: &released)
        } else {
            settlePaged(delivery, into: &released)
        }
    }
}
