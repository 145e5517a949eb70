import GatewayCore
import Journal

/// What damage to durable bytes may cost: the Records of the batches that it hit, and nothing beside them.
struct Toll: CustomStringConvertible {
    /// Their Records are gone, and with them whatever the gateway knew of having taken them.
    private(set) var messages: [MessageName] = []
    /// Those of them whose receivers may hold their identifiers for ever: nothing else says that they were ever sent.
    private(set) var unknown: [MessageName] = []
    /// Records of what had been settled are gone: it may come once more.
    private(set) var mayRepeat = false
    /// Sessions, subscriptions or the end of the log are gone: nothing follows any more from what peers saw.
    private(set) var isBeyondJudgement = false
    /// What is gone and was not hit.
    private(set) var violations: [String] = []

    var description: String {
        if isBeyondJudgement { return "too much to say what is owed" }
        return mayRepeat ? "\(messages), and what had come may come again" : "\(messages)"
    }

    var isNothing: Bool { messages.isEmpty && !mayRepeat && !isBeyondJudgement }

    /// Compares what a start finds on the disk with what it would have found on it before.
    ///
    /// - Parameter isFirst: nothing was lost before, so that a checkpoint knows no more than the log.
    /// - Complexity: O(bytes of the store)
    init(of damage: [DiskDamage], on disk: SimulatedDisk, isFirst: Bool) {
        let before = Finds(disk.repaired(damage))
        let after = Finds(disk)
        guard let whole = before.log, let log = after.log else {
            violations.append("damage keeps the gateway from starting")
            return
        }
        let isLogWhole = after.positions.isSuperset(of: before.positions)
        // Once no checkpoint is left, whatever was hit before and was in one may matter after all, and what was deleted
        // because of it is missing.
        isBeyondJudgement = log.checkpoints.isEmpty && !whole.checkpoints.isEmpty
        if isFirst, isLogWhole, !isBeyondJudgement, log.report.lost != whole.report.lost {
            violations.append("\(log.report.lost) are called lost, and no Record was hit")
        }
        // Two are kept, so that the other one is there when one is hit later.
        let upheldThrough = whole.checkpoints.count > 1 ? whole.checkpoints.first?.position : nil
        for batch in before.batches where !after.positions.isSuperset(of: batch.records.map(\.position)) {
            let isHit = damage.contains { $0.file == batch.file && $0.range.overlaps(batch.range) }
            if !isHit { violations.append("\(batch.file) \(batch.range) is lost, and was not damaged") }
            for (record, position) in batch.records where !after.positions.contains(position) {
                lose(record, before, isUpheld: upheldThrough.map { position <= $0 } ?? false)
            }
        }
        // What was at the end cannot be told from what a power cut tore, so that its numbers are given once more.
        if log.last < whole.last { isBeyondJudgement = true }
        // What had been settled without a Record, a checkpoint alone knew.
        if log.checkpoints.last?.position != whole.checkpoints.last?.position { mayRepeat = true }
        if isFirst, isNothing, after.balance != before.balance {
            violations.append("damage that hit no Record makes \(after.balance) of \(before.balance)")
        }
    }

    /// - Parameter isUpheld: a checkpoint that is whole knows what it says.
    private mutating func lose(_ record: Record, _ before: Finds, isUpheld: Bool) {
        switch record {
        case .message(let message):
            // A retained message that was cleared may be there again.
            if message.retained == .clear, !isUpheld { isBeyondJudgement = true }
            guard let name = MessageName(payload: message.message.payload[...]) else { return }
            messages.append(name)
            if !isUpheld { unknown.append(name) }
        case .acknowledged, .outboundReceived, .dropped:
            if !isUpheld { mayRepeat = true }
        case .assigned(let assigned):
            guard !isUpheld else { return }
            // Its group may have settled it since, and its member has never heard of it.
            mayRepeat = true
            if let position = assigned.source?.position, let name = before.name(at: position) {
                messages.append(name)
                unknown.append(name)
            } else {
                isBeyondJudgement = true
            }
        default:
            if !isUpheld { isBeyondJudgement = true }
        }
    }
}

/// Everything that an inspection of a disk finds.
private struct Finds {
    /// nil when it cannot be read.
    private(set) var log: RecoveredLog?
    private(set) var batches: [FoundBatch] = []
    private(set) var positions: Set<Position> = []
    private(set) var balance: Balance

    struct FoundBatch {
        var file: String
        /// Up to where the next one begins.
        var range: Range<Int>
        var records: [(record: Record, position: Position)]
    }

    /// Which message is there.
    ///
    /// - Complexity: O(Records)
    func name(at position: Position) -> MessageName? {
        for batch in batches {
            for case (.message(let message), position) in batch.records {
                return MessageName(payload: message.message.payload[...])
            }
        }
        return nil
    }

    init(_ disk: consuming SimulatedDisk) {
        disk.stepsLeft = .max
        disk.fault = nil
        _ = disk.beginStore()
        var batches: [FoundBatch] = []
        var state = DurableState()
        do {
            let inspection = try Inspection.inspect(
                &disk, recovered: { state.apply($0, at: $1) },
                found: { found in
                    if let last = batches.last, last.file == found.file {
                        if last.range.lowerBound == found.offset {
                            return batches[batches.count - 1].records.append((found.record, found.position))
                        }
                        batches[batches.count - 1].range = last.range.lowerBound..<found.offset
                    }
                    batches.append(
                        FoundBatch(
                            file: found.file, range: found.offset..<Int.max,
                            records: [(found.record, found.position)]))
                })
            log = inspection.log
        } catch { log = nil }
        positions = Set(batches.flatMap { $0.records.map(\.position) })
        self.batches = batches
        balance = state.balance
    }
}
