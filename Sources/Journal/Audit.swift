import GatewayCore

/// Recomputes the books of a store from its Records alone, by arithmetic on numbers of deliveries and without any of
/// the code that keeps queues, so that a mistake there shows (promise P3).
///
/// It is given the Records of a recovery, and then every message Record that is still in the log. What it comes to is
/// compared with the queues and books of the recovered state.
package struct Audit: Sendable {
    private var queues: [SessionID: Queue] = [:]
    private var ended = Books()
    /// Deliveries whose message Records are in the log, by queue.
    private var found: [SessionID: DeliverySet] = [:]
    /// A message Record does not say which number it has in a queue.
    private var lacksNumbers = false

    fileprivate struct Queue {
        var open = DeliverySet()
        var numbered: UInt64 = 0
        var books = Books()
        /// Deliveries whose Record is that of another queue, with the group each came from, or needed no longer.
        var moved: [Delivery: SessionID?] = [:]
        var isPersistent: Bool
        var afterLoss = false
    }

    package init() {}

    // MARK: What a recovery tells

    /// Takes the Records of a recovery, in order.
    package mutating func recovered(_ record: Record) {
        switch record {
        case .sessionOpened(let opened):
            guard queues[opened.session] == nil else { return }
            queues[opened.session] = Queue(isPersistent: opened.isPersistent)
        case .sessionEnded(let id, _): end(id)
        case .message(let message):
            let isTakenOver = message.moved.map { handOver($0, to: message.targets) } ?? false
            for target in message.targets {
                arrive(target.delivery?.number, in: target.session, isTakenOver: isTakenOver)
            }
        case .acknowledged(let settled):
            change(settled.session) { queue in
                var count = queue.settle(below: settled.floor)
                for delivery in settled.settledAbove where queue.settle(delivery) { count += 1 }
                queue.books = queue.books.adding(Books(delivered: count))
            }
        case .dropped(let id, let deliveries, let reason):
            // What found its queue full may have taken no more than a number in it.
            if let number = deliveries.last?.number, let queue = queues[id], number >= queue.numbered {
                arrive(number, in: id)
            }
            change(id) { queue in
                let count = deliveries.reduce(0 as UInt64) { queue.settle($1) ? $0 + 1 : $0 }
                queue.books = queue.books.adding(Books(dropped: [(reason, count)]))
            }
        case .assigned(let assigned):
            guard change(assigned.member, { $0.goOn(at: assigned.number) }) == true,
                change(assigned.group, { $0.settle(assigned.delivery) }) == true
            else { return }
            change(assigned.group) { $0.books = $0.books.adding(Books(handedOver: 1)) }
            takeOver(assigned.member, from: assigned.group)
        case .outboundReceived(let id, let delivery):
            // Of the message nothing is needed any more, and compaction may have left it out.
            change(id) { queue in
                guard queue.moved[delivery] == nil, queue.open.contains(delivery.number) else { return }
                queue.moved[delivery] = .some(nil)
            }
        case .returned(let id, let deliveries):
            for delivery in deliveries { giveBack(delivery, of: id) }
        case .queue(let record): restore(record)
        case .books(let id?, let books): change(id) { $0.books = books }
        case .books(nil, let books): ended = books
        case .lost:
            for id in queues.keys { queues[id]?.afterLoss = true }
        case .sessionClosed, .subscribed, .unsubscribed, .inboundReleased, .inboundVoided,
            .uplinkEstablished, .wasOff, .profiled, .counters, .retained, .inboundHeld:
            break
        }
    }

    @discardableResult
    private mutating func change<Result>(_ id: SessionID, _ body: (inout Queue) -> Result) -> Result? {
        guard queues[id] != nil else { return nil }
        return body(&queues[id, default: Queue(isPersistent: false)])
    }

    private mutating func end(_ id: SessionID) {
        guard let queue = queues.removeValue(forKey: id), queue.isPersistent else { return }
        ended = ended.adding(queue.books).adding(Books(dropped: [(.sessionEnded, queue.queued)]))
    }

    private mutating func arrive(_ number: UInt64?, in id: SessionID, isTakenOver: Bool = false) {
        change(id) { queue in
            let number = number ?? queue.numbered
            guard number >= queue.numbered else { return }
            // Numbers passed over by what another queue gave are of messages that came and went.
            if isTakenOver { queue.afterLoss = false }
            queue.pass(to: number)
            queue.books = queue.books.adding(isTakenOver ? Books(takenOver: 1) : Books(received: 1))
            queue.open.insert(number)
            queue.numbered = number + 1
        }
    }

    /// - Returns: whether the message was the other queue's until now, and somebody takes it.
    private mutating func handOver(_ moved: MessageRecord.Moved, to targets: [MessageRecord.Target]) -> Bool {
        let isWanted = targets.contains { target in
            queues[target.session].map { ($0.numbered) <= target.delivery?.number ?? .max } ?? false
        }
        let wasThere = change(moved.from) { queue in
            let number = moved.delivery.number
            if number >= queue.numbered {
                queue.pass(to: number)
                queue.numbered = number + 1
                queue.books = queue.books.adding(Books(received: 1))
            } else if !queue.settle(moved.delivery) {
                return false
            }
            queue.books = queue.books.adding(
                isWanted ? Books(handedOver: 1) : Books(dropped: [(.damaged, 1)]))
            return true
        }
        return isWanted && wasThere == true
    }

    private mutating func takeOver(_ id: SessionID, from group: SessionID?) {
        change(id) { queue in
            queue.open.insert(queue.numbered)
            queue.moved[Delivery(queue.numbered)] = .some(group)
            queue.numbered += 1
            queue.books = queue.books.adding(Books(takenOver: 1))
        }
    }

    private mutating func giveBack(_ delivery: Delivery, of id: SessionID) {
        guard let group = queues[id]?.moved[delivery] ?? nil,
            change(id, { $0.settle(delivery) }) == true
        else { return }
        let hasGroup = queues[group] != nil
        change(id) { queue in
            queue.books = queue.books.adding(
                hasGroup ? Books(handedOver: 1) : Books(dropped: [(.sessionEnded, 1)]))
        }
        if hasGroup { takeOver(group, from: nil) }
    }

    private mutating func restore(_ record: QueueRecord) {
        change(record.session) { queue in
            var delivery = record.floor.number
            let add = { (entry: QueueRecord.Entry, delivery: UInt64, queue: inout Queue) in
                guard entry.position != nil else { return }
                queue.open.insert(delivery)
                if entry.isStray || entry.origin != nil || entry.isReceived {
                    queue.moved[Delivery(delivery)] = .some(entry.origin?.group)
                }
            }
            for entry in record.entries {
                add(entry, delivery, &queue)
                delivery += 1
            }
            for page in record.pages {
                if page.waitingCount > 0 { queue.open.insert(page.first.number..<page.end.number) }
                delivery = max(delivery, page.end.number)
            }
            for stray in record.strays { add(stray.entry, stray.delivery.number, &queue) }
            for entry in record.tail {
                add(entry, delivery, &queue)
                delivery += 1
            }
            queue.numbered = delivery
            let queued = queue.queued
            queue.books = Books(received: delivery, delivered: delivery &- queued)
        }
    }

    // MARK: What the log holds

    /// Takes every Record in the segments, in order.
    package mutating func inLog(_ record: Record) {
        guard case .message(let message) = record else { return }
        for target in message.targets {
            if let delivery = target.delivery {
                found[target.session, default: DeliverySet()].insert(delivery.number)
            } else {
                lacksNumbers = true
            }
        }
    }

    // MARK: The result

    /// What a queue comes to.
    package struct Line: Hashable, Sendable {
        package var session: SessionID
        package var owner: SessionOwner
        /// As recovery has them.
        package var books: Books
        package var queued: UInt64
        /// As they were recomputed.
        package var recomputed: Books
        package var recomputedQueued: UInt64
        /// Of those that wait: messages that are in no Record that can be read.
        package var missing: UInt64

        package var isEven: Bool {
            books.balance(withQueued: queued) && books == recomputed && queued == recomputedQueued
                && missing == 0
        }
    }

    package struct Result: Hashable, Sendable {
        /// In the order of their Sessions.
        package var lines: [Line]
        package var ended: Books
        package var recomputedEnded: Books
        package var total: Balance

        package var isEven: Bool {
            lines.allSatisfy(\.isEven) && ended == recomputedEnded && ended.balance(withQueued: 0)
                && total.isEven
        }
    }

    /// - Complexity: O(Sessions + entries)
    package func result(_ state: DurableState) -> Result {
        var lines: [Line] = []
        for id in state.sessionIDs {
            guard let session = state[id], session.isPersistent else { continue }
            let queue = queues[id] ?? Queue(isPersistent: true)
            lines.append(
                Line(
                    session: id, owner: session.owner, books: session.books,
                    queued: UInt64(session.queue.queuedCount), recomputed: queue.books,
                    recomputedQueued: queue.queued, missing: missing(id, queue)))
        }
        return Result(
            lines: lines, ended: state.endedBooks, recomputedEnded: ended, total: state.balance)
    }

    private func missing(_ id: SessionID, _ queue: Queue) -> UInt64 {
        guard !lacksNumbers else { return 0 }
        let there = found[id] ?? DeliverySet()
        var missing: UInt64 = 0
        for range in queue.open.ranges {
            var count = UInt64(range.count) - there.count(in: range)
            for delivery in queue.moved.keys where range.contains(delivery.number) {
                if !there.contains(delivery.number) { count -= 1 }
            }
            missing += count
        }
        return missing
    }
}

extension Audit.Queue {
    /// What no Record has settled.
    fileprivate var queued: UInt64 { open.count }

    /// Numbers before this one that never came: of Records that were never written, or of lost ones.
    fileprivate mutating func pass(to number: UInt64) {
        let passed = Delivery.count(from: numbered, to: number)
        books = books.adding(
            afterLoss && passed == number - numbered
                ? Books(received: passed, dropped: [(.damaged, passed)])
                : Books(received: passed, delivered: passed))
        afterLoss = false
    }

    /// - Returns: false when the queue is beyond that number.
    fileprivate mutating func goOn(at number: Delivery?) -> Bool {
        guard let number = number?.number else { return true }
        guard number >= numbered else { return false }
        pass(to: number)
        numbered = number
        return true
    }

    /// - Returns: how many were open.
    fileprivate mutating func settle(below floor: Delivery) -> UInt64 {
        var count = open.remove(below: floor.number)
        if floor.number > numbered {
            let passed = Delivery.count(from: numbered, to: floor.number)
            books = books.adding(Books(received: passed))
            count += passed
            numbered = floor.number
        }
        if !moved.isEmpty { moved = moved.filter { $0.key >= floor } }
        return count
    }

    /// - Returns: whether it was open.
    fileprivate mutating func settle(_ delivery: Delivery) -> Bool {
        open.remove(delivery.number)
    }
}

extension Books {
    fileprivate func adding(_ more: Books) -> Books {
        var sum = self
        sum += more
        return sum
    }
}

/// Numbers that mostly come in order and go in order.
struct DeliverySet: Hashable, Sendable {
    /// Apart, and in rising order.
    private(set) var ranges: [Range<UInt64>] = []

    var count: UInt64 { ranges.reduce(0) { $0 + UInt64($1.count) } }

    /// - Complexity: O(1) behind the last; O(ranges) elsewhere
    mutating func insert(_ number: UInt64) {
        guard let last = ranges.last, number <= last.upperBound else {
            ranges.append(number..<number + 1)
            return
        }
        if number == last.upperBound {
            ranges[ranges.count - 1] = last.lowerBound..<number + 1
            return
        }
        let i = place(of: number)
        if ranges[i].contains(number) { return }
        ranges.insert(number..<number + 1, at: i)
        join(i)
    }

    private mutating func join(_ i: Int) {
        if i + 1 < ranges.count, ranges[i].upperBound == ranges[i + 1].lowerBound {
            ranges[i] = ranges[i].lowerBound..<ranges[i + 1].upperBound
            ranges.remove(at: i + 1)
        }
        if i > 0, ranges[i - 1].upperBound == ranges[i].lowerBound {
            ranges[i - 1] = ranges[i - 1].lowerBound..<ranges[i].upperBound
            ranges.remove(at: i)
        }
    }

    /// Adds numbers behind all others.
    mutating func insert(_ range: Range<UInt64>) {
        guard !range.isEmpty, range.lowerBound >= ranges.last?.upperBound ?? 0 else { return }
        ranges.append(range)
        join(ranges.count - 1)
    }

    /// - Returns: whether it was there.
    mutating func remove(_ number: UInt64) -> Bool {
        let i = place(of: number)
        guard i < ranges.count, ranges[i].contains(number) else { return false }
        let range = ranges[i]
        ranges.replaceSubrange(
            i...i, with: [range.lowerBound..<number, number + 1..<range.upperBound].filter { !$0.isEmpty })
        return true
    }

    /// - Returns: how many there were.
    mutating func remove(below floor: UInt64) -> UInt64 {
        var removed: UInt64 = 0
        while let first = ranges.first, first.lowerBound < floor {
            let gone = first.clamped(to: 0..<floor)
            removed += UInt64(gone.count)
            if gone.upperBound == first.upperBound {
                ranges.removeFirst()
            } else {
                ranges[0] = floor..<first.upperBound
            }
        }
        return removed
    }

    func contains(_ number: UInt64) -> Bool {
        let i = place(of: number)
        return i < ranges.count && ranges[i].contains(number)
    }

    func count(in range: Range<UInt64>) -> UInt64 {
        var count: UInt64 = 0
        var i = place(of: range.lowerBound)
        while i < ranges.count, ranges[i].lowerBound < range.upperBound {
            count += UInt64(ranges[i].clamped(to: range).count)
            i += 1
        }
        return count
    }

    /// The first range that ends behind `number`.
    private func place(of number: UInt64) -> Int {
        ranges.partitioningIndex { $0.upperBound > number }
    }
}
