import DequeModule
import MQTT

/// Everything one receiver is owed, in order: a client that is here, a client that is away, or an uplink.
///
/// Deliveries are numbered over the queue's life; `entries[i]` is delivery `floor + i`. Settled ones stay as
/// gaps until all before them are settled and a Record has said so. Messages themselves are in memory only
/// for a prefix of the entries, `resident`; behind it an entry is just the position of its Record.
///
/// - Invariant: `resident.count <= entries.count`, and a settled entry has no resident message.
package struct MessageQueue {
    /// Every delivery before this one is settled, by Record.
    package private(set) var floor = Delivery(0)
    private var entries: Deque<Entry> = []
    private var resident: Deque<StoredMessage?> = []
    private(set) var residentBytes = 0
    /// The size of recent messages, the larger ones for longer: what the next load will bring, about.
    private var recentBytes = 4096
    /// Entries that are not settled.
    package private(set) var waitingCount = 0
    /// Entries settled since the last `acknowledgedRecord`: what a power cut would make us deliver again.
    private(set) var unrecordedCount = 0
    /// A load is on its way.
    private var isLoading = false
    /// Floors whose Record is not known durable yet, oldest first (rule A7).
    private var unconfirmedFloors: Deque<(position: Position, floor: Delivery)> = []
    /// The floor that certainly survives a power cut.
    private var confirmedFloor = Delivery(0)
    /// Deliveries that came through a shared subscription, in rising order and at or above the floor. They are few,
    /// as no more are assigned than may be in flight, so they are kept here and not in every entry of every queue.
    private(set) var assignments: [Assignment] = []
    /// Where the queue ended when its receiver went away: while it is away, what came since was sent to nobody. Only
    /// Records move it, so that a start knows as much.
    private var unsentFrom = Delivery(0)

    struct Entry {
        /// `.zero` once the Record is no longer needed, or when there is none.
        var position: Position
        var qos: QoS
        var phase: Phase
    }

    enum Phase: UInt8 {
        case waiting
        /// PUBLISH may have been sent.
        case sent
        /// PUBREC came and is recorded: only PUBREL is sent from now on [MQTT5-4.3.3-6].
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

    package init() {}

    /// The number the next message gets.
    package var end: Delivery { Delivery(floor.number + UInt64(entries.count)) }

    // MARK: Arriving

    /// Adds a message at the end; it stays in memory only while all before it do and `budget` bytes allow.
    /// With nil its bytes are read when they are needed, and so are those of all behind it.
    mutating func append(_ message: StoredMessage?, qos: QoS, at position: Position, budget: Int) {
        if let message, resident.count == entries.count, residentBytes < budget {
            resident.append(message)
            residentBytes += message.message.bytes.count
        }
        if let message { noteSize(message) }
        entries.append(Entry(position: position, qos: qos, phase: .waiting))
        waitingCount += 1
    }

    /// Adds a message that a group chose this receiver for.
    mutating func append(
        _ message: StoredMessage?, qos: QoS, at position: Position, budget: Int, assignedBy group: SessionID,
        groupQoS: QoS, source: Delivery?, recordedAt: Position
    ) {
        assignments.append(
            Assignment(
                delivery: end, group: group, groupQoS: groupQoS, source: source, recordedAt: recordedAt))
        append(message, qos: qos, at: position, budget: budget)
    }

    // MARK: Reading

    subscript(delivery: Delivery) -> Entry? {
        guard delivery >= floor, delivery < end else { return nil }
        return entries[index(of: delivery)]
    }

    /// The delivery a peer means by `id`, if it is unsettled.
    func unsettled(_ id: PacketIdentifier) -> Delivery? {
        guard let delivery = PacketIdentifierRule.delivery(with: id, atOrAfter: floor),
            let entry = self[delivery], entry.phase != .settled,
            PacketIdentifierRule.identifier(of: delivery, qos: entry.qos) == id
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
        let i = index(of: delivery)
        return i < resident.count ? resident[i] : nil
    }

    func isResident(_ delivery: Delivery) -> Bool { index(of: delivery) < resident.count }

    /// Whether `delivery`'s identifier cannot collide with one that a power cut would bring back (rule A7).
    mutating func mayUseIdentifier(of delivery: Delivery, durable: Position, span: UInt64) -> Bool {
        while let first = unconfirmedFloors.first, first.position <= durable {
            confirmedFloor = first.floor
            unconfirmedFloors.removeFirst()
        }
        return delivery.number < confirmedFloor.number + span
    }

    // MARK: Loading

    /// How many messages a load may ask for so that it brings about `bytes`: one at least.
    func countToLoad(forBytes bytes: Int) -> Int { max(1, bytes / max(1, recentBytes)) }

    private mutating func noteSize(_ message: StoredMessage) {
        recentBytes = max(message.message.bytes.count, recentBytes - recentBytes / 8)
    }

    /// The positions to read back next, at most `count`, in rising order, and the group whose share of them it
    /// is, if any; empty while a load is on its way or none is needed.
    mutating func positionsToLoad(atMost count: Int) -> (positions: [Position], group: SessionID?) {
        guard !isLoading else { return ([], nil) }
        var positions: [Position] = []
        var group: SessionID?
        var i = resident.count
        load: while i < entries.count, positions.count < count {
            switch entries[i].phase {
            case .waiting, .sent:
                let origin = assignment(of: Delivery(floor.number + UInt64(i)))?.group
                if let last = positions.last {
                    // What a group assigns is older than what came in meanwhile: that is a load of its own.
                    guard origin == group, entries[i].position > last else { break load }
                }
                group = origin
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

    /// Takes what a load brought; returns the deliveries whose bytes were damaged. An answer to a load that
    /// was given up in between fits nowhere and is ignored.
    mutating func loaded(_ messages: [(Position, StoredMessage?)]) -> [Delivery] {
        isLoading = false
        var damaged: [Delivery] = []
        var next = messages.startIndex
        while next < messages.endIndex, resident.count < entries.count {
            let i = resident.count
            switch entries[i].phase {
            case .received, .settled:
                resident.append(nil)
            case .waiting, .sent:
                let position = entries[i].position
                while next < messages.endIndex, messages[next].0 < position { next += 1 }
                guard next < messages.endIndex, messages[next].0 == position else { return damaged }
                if let message = messages[next].1 {
                    noteSize(message)
                    residentBytes += message.message.bytes.count
                } else {
                    damaged.append(Delivery(floor.number + UInt64(i)))
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

    // MARK: Handing out

    /// The first delivery at or after `start` that nobody has.
    ///
    /// - Complexity: O(deliveries passed over)
    func firstWaiting(atOrAfter start: Delivery) -> Delivery {
        var delivery = max(start, floor)
        while delivery < end, entries[index(of: delivery)].phase != .waiting {
            delivery = Delivery(delivery.number + 1)
        }
        return delivery
    }

    /// Deliveries that nobody has.
    ///
    /// - Complexity: O(entries)
    var unassignedCount: Int { entries.reduce(0) { $1.phase == .waiting ? $0 + 1 : $0 } }

    /// The same with their messages, of a queue whose messages are all in memory.
    ///
    /// - Complexity: O(entries)
    var waitingMessages: [(StoredMessage, QoS)] {
        zip(entries, resident).compactMap { entry, message in
            entry.phase == .waiting ? message.map { ($0, entry.qos) } : nil
        }
    }

    /// Takes an unsettled delivery out, for another queue to have; here it is settled.
    mutating func take(_ delivery: Delivery) -> (entry: Entry, message: StoredMessage?)? {
        guard let entry = self[delivery], entry.phase != .settled else { return nil }
        let message = message(of: delivery)
        unrecordedCount += 1
        var released: [Position] = []
        release(delivery, into: &released)
        return (entry, message)
    }

    /// A member that had it is gone: whoever is next may have it.
    mutating func markWaiting(_ delivery: Delivery) {
        guard let entry = self[delivery], entry.phase == .sent else { return }
        setPhase(.waiting, of: delivery)
    }

    /// Deliveries of `group` belong to `other` from now on, which knows nothing of them yet.
    mutating func reassign(from group: SessionID, to other: SessionID) {
        for i in assignments.indices where assignments[i].group == group {
            assignments[i].group = other
            assignments[i].source = nil
        }
    }

    // MARK: Handshakes

    mutating func markSent(_ delivery: Delivery) { setPhase(.sent, of: delivery) }

    /// PUBREC is recorded: the message itself is no longer needed, the Packet Identifier is.
    mutating func markReceived(_ delivery: Delivery) -> Position {
        guard let entry = self[delivery], entry.phase != .settled, entry.phase != .received else {
            return .zero
        }
        setPhase(.received, of: delivery)
        return forget(index(of: delivery))
    }

    /// The receiver has it: live, before any Record says so (rule A8).
    ///
    /// - Returns: false when it was settled before.
    mutating func settle(_ delivery: Delivery) -> Bool {
        guard let entry = self[delivery], entry.phase != .settled else { return false }
        setPhase(.settled, of: delivery)
        waitingCount -= 1
        unrecordedCount += 1
        dropResident(index(of: delivery))
        return true
    }

    /// What a Record must say so that every settled delivery stays settled after a power cut.
    ///
    /// - Complexity: O(span of settled entries)
    func acknowledgedRecord(for session: SessionID, lookingAhead span: UInt64) -> AcknowledgedRecord {
        var newFloor = floor
        var above: [Delivery] = []
        var contiguous = true
        for i in 0..<min(entries.count, Int(span)) {
            let delivery = Delivery(floor.number + UInt64(i))
            if entries[i].phase == .settled {
                if contiguous { newFloor = Delivery(delivery.number + 1) } else { above.append(delivery) }
            } else {
                contiguous = false
            }
        }
        return AcknowledgedRecord(session: session, floor: newFloor, settledAbove: above)
    }

    /// Applies an acknowledgement Record; returns the positions whose Records it no longer needs.
    mutating func apply(_ record: AcknowledgedRecord, at position: Position) -> [Position] {
        var released: [Position] = []
        for delivery in record.settledAbove { release(delivery, into: &released) }
        while floor < record.floor, !entries.isEmpty {
            release(floor, into: &released)
            entries.removeFirst()
            if !resident.isEmpty { resident.removeFirst() }
            floor = Delivery(floor.number + 1)
        }
        if !assignments.isEmpty { assignments.removeFirst(assignmentIndex(of: floor)) }
        unrecordedCount = 0
        if floor > unconfirmedFloors.last?.floor ?? confirmedFloor {
            unconfirmedFloors.append((position, floor))
        }
        return released
    }

    /// Lets go of deliveries by Record; returns the positions no longer needed.
    mutating func drop(_ deliveries: [Delivery]) -> [Position] {
        var released: [Position] = []
        for delivery in deliveries {
            if let entry = self[delivery], entry.phase != .settled { unrecordedCount += 1 }
            release(delivery, into: &released)
        }
        return released
    }

    // MARK: Recovering

    /// The receiver goes away: what comes from now on is not sent before it is back.
    mutating func noteAway() { unsentFrom = end }

    /// What may have been sent before the start goes out with DUP. Of a receiver that was away, that is what came
    /// before it went; the rest is sent for the first time, so without [MQTT5-3.3.1-1, MQTT311-3.3.1-3], and may
    /// still expire [MQTT5-3.3.2-5].
    ///
    /// - Complexity: O(entries)
    mutating func assumeSent(isAway: Bool) {
        for i in entries.indices where entries[i].phase == .waiting && !(isAway && isUnsent(i)) {
            entries[i].phase = .sent
        }
    }

    /// The receiver forgot what it was sent: all of it is new to it.
    mutating func assumeNotSent() {
        for i in entries.indices where entries[i].phase == .sent { entries[i].phase = .waiting }
    }

    /// Deliveries that await only PUBCOMP.
    ///
    /// - Complexity: O(entries)
    var received: [Delivery] {
        entries.indices.filter { entries[$0].phase == .received }.map { Delivery(floor.number + UInt64($0)) }
    }

    /// What `QueueRecord` needs for a checkpoint.
    func record(for session: SessionID, isAway: Bool) -> QueueRecord {
        QueueRecord(
            session: session, floor: floor,
            entries: entries.enumerated().map { i, entry in
                let isGone = entry.position == .zero && entry.phase == .settled
                let assignment = isGone ? nil : assignment(of: Delivery(floor.number + UInt64(i)))
                return QueueRecord.Entry(
                    position: isGone ? nil : entry.position, qos: entry.qos,
                    isReceived: entry.phase == .received,
                    origin: assignment.map { QueueRecord.Origin(group: $0.group, qos: $0.groupQoS) })
            }, unsentFrom: isAway ? max(floor, unsentFrom) : nil)
    }

    init(_ record: QueueRecord) {
        floor = record.floor
        confirmedFloor = record.floor
        for entry in record.entries {
            let isUnsent = record.unsentFrom.map { $0 <= end } ?? false
            let unsettled: Phase = entry.isReceived ? .received : isUnsent ? .waiting : .sent
            let phase: Phase = entry.position == nil ? .settled : unsettled
            if let origin = entry.origin {
                assignments.append(
                    Assignment(
                        delivery: end, group: origin.group, groupQoS: origin.qos, source: nil,
                        recordedAt: .zero))
            }
            entries.append(Entry(position: entry.position ?? .zero, qos: entry.qos, phase: phase))
            if phase != .settled { waitingCount += 1 }
        }
        unsentFrom = record.unsentFrom ?? end
    }

    /// The positions of all Records still needed.
    ///
    /// - Complexity: O(entries)
    var neededPositions: [Position] { entries.compactMap { $0.position == .zero ? nil : $0.position } }

    // MARK: Details

    private func index(of delivery: Delivery) -> Int { Int(delivery.number - floor.number) }

    private func isUnsent(_ i: Int) -> Bool { floor.number + UInt64(i) >= unsentFrom.number }

    /// Where `delivery` is among the assignments, or would be.
    private func assignmentIndex(of delivery: Delivery) -> Int {
        var low = 0
        var high = assignments.count
        while low < high {
            let middle = (low + high) / 2
            if assignments[middle].delivery < delivery { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func setPhase(_ phase: Phase, of delivery: Delivery) {
        entries[index(of: delivery)].phase = phase
    }

    private mutating func dropResident(_ i: Int) {
        guard i < resident.count, let message = resident[i] else { return }
        residentBytes -= message.message.bytes.count
        resident[i] = nil
    }

    private mutating func forget(_ i: Int) -> Position {
        dropResident(i)
        defer { entries[i].position = .zero }
        return entries[i].position
    }

    private mutating func release(_ delivery: Delivery, into released: inout [Position]) {
        guard let entry = self[delivery] else { return }
        let i = index(of: delivery)
        if entry.phase != .settled {
            entries[i].phase = .settled
            waitingCount -= 1
        }
        let position = forget(i)
        if position != .zero { released.append(position) }
    }
}
