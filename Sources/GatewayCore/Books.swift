/// What became of every message a queue was owed (promise P3), counted since its Session began. Every number a
/// queue gives is accounted for once, so that at any time
///
///     received + takenOver = delivered + queued + expired + dropped + handedOver
///
/// where `queued` is what the queue holds and no Record has settled. The counts change only with Records, so that a
/// replay comes to the same; what a receiver acknowledged is queued until a Record says so (rule A8). Messages that were
/// never written are received and delivered; after a power cut those that no Record came behind, and no checkpoint, are
/// forgotten, as received and as delivered.
package struct Books: Hashable, Sendable {
    /// Messages that came for this receiver.
    package internal(set) var received: UInt64 = 0
    /// Messages that another queue handed over: a group's to its member, or a member's back to its group.
    package internal(set) var takenOver: UInt64 = 0
    /// Acknowledged by the receiver, or never written because everyone had them (rule E3).
    package internal(set) var delivered: UInt64 = 0
    /// The other side of `takenOver`: over all queues the two are equal.
    package internal(set) var handedOver: UInt64 = 0
    /// By the number of the reason; none until one is counted.
    private var drops: [UInt64] = []

    package init(
        received: UInt64 = 0, takenOver: UInt64 = 0, delivered: UInt64 = 0, handedOver: UInt64 = 0,
        dropped: [(reason: DropReason, count: UInt64)] = []
    ) {
        self.received = received
        self.takenOver = takenOver
        self.delivered = delivered
        self.handedOver = handedOver
        for (reason, count) in dropped { drop(count, reason) }
    }

    // MARK: Reading

    /// Let go for this reason.
    package func dropped(_ reason: DropReason) -> UInt64 {
        let place = Int(reason.rawValue)
        return place < drops.count ? drops[place] : 0
    }

    /// Every reason that was ever needed, in order.
    package var dropped: [(reason: DropReason, count: UInt64)] {
        DropReason.allCases.compactMap { dropped($0) > 0 ? ($0, dropped($0)) : nil }
    }

    /// Their Message Expiry Interval passed [MQTT5-3.3.2.3.3].
    package var expired: UInt64 { dropped(.messageExpired) }

    /// Let go for any other reason.
    package var droppedUnexpired: UInt64 { drops.reduce(0, &+) &- expired }

    /// Whether they say the same as a queue that holds `queued` unsettled messages.
    package func balance(withQueued queued: UInt64) -> Bool {
        received &+ takenOver == delivered &+ queued &+ drops.reduce(0, &+) &+ handedOver
    }

    // MARK: Entering

    /// What a Record did to a queue.
    enum Entry {
        /// Messages came. Numbers that were passed over are of Records that were never written, or of `lost` ones.
        case arrived(afterLoss: Bool)
        case delivered
        case dropped(DropReason)
        case handedOver
        case takenOver
    }

    /// The state of a queue, as far as books go.
    struct Tally {
        /// Deliveries that were ever numbered.
        var numbered: UInt64
        /// Those of them that no Record has settled.
        var queued: Int
    }

    /// Enters that a Record has brought the queue from one tally to another.
    mutating func enter(_ entry: Entry, from before: Tally, to after: Tally) {
        let passed = after.numbered &- before.numbered
        let all =
            UInt64(bitPattern: Int64(before.queued)) &+ passed &- UInt64(bitPattern: Int64(after.queued))
        // Numbers that were jumped over were never given.
        let settled = Delivery.count(from: 0, to: all)
        let numbered = passed &- (all &- settled)
        let hasJumped = all != settled
        switch entry {
        case .arrived(let afterLoss):
            received &+= numbered
            // What is not there behind a jump was never written, unless more was lost since.
            if afterLoss, !hasJumped { drop(settled, .damaged) } else { delivered &+= settled }
        case .delivered:
            received &+= numbered
            delivered &+= settled
        case .dropped(let reason):
            received &+= numbered
            drop(settled, reason)
        case .handedOver:
            received &+= numbered
            handedOver &+= settled
        case .takenOver:
            // Numbers that were passed over are of messages that came before it.
            takenOver &+= numbered &- settled
            received &+= settled
            delivered &+= settled
        }
    }

    private mutating func drop(_ count: UInt64, _ reason: DropReason) {
        guard count > 0 else { return }
        let place = Int(reason.rawValue)
        if drops.count <= place { drops += Array(repeating: 0, count: place + 1 - drops.count) }
        drops[place] &+= count
    }

    package static func += (sum: inout Books, more: Books) {
        sum.received &+= more.received
        sum.takenOver &+= more.takenOver
        sum.delivered &+= more.delivered
        sum.handedOver &+= more.handedOver
        for (reason, count) in more.dropped { sum.drop(count, reason) }
    }
}

/// The books of everything in the journal at one moment.
package struct Balance: Hashable, Sendable {
    /// Of the queues there are and of those that ended.
    package var books: Books
    package var queued: UInt64

    package init(books: Books, queued: UInt64) {
        self.books = books
        self.queued = queued
    }

    /// Whether nothing is unaccounted for.
    package var isEven: Bool { books.balance(withQueued: queued) && books.takenOver == books.handedOver }
}

extension MessageQueue {
    /// What no Record has settled.
    package var queuedCount: Int { waitingCount + unbookedCount }

    var tally: Books.Tally { Books.Tally(numbered: end.number, queued: queuedCount) }
}

extension Session {
    /// Changes the queue as a Record says, and enters that in the books. Of a queue that leaves no trace there are
    /// none.
    mutating func booking<Result>(_ entry: Books.Entry, _ change: (inout Session) -> Result) -> Result {
        guard isPersistent else { return change(&self) }
        let before = queue.tally
        let result = change(&self)
        books.enter(entry, from: before, to: queue.tally)
        return result
    }

    /// A queue as a checkpoint brought it back. One that was written before there were books has lost nothing
    /// that is known of; its own books, where there are some, come next.
    mutating func openBooks() {
        let tally = queue.tally
        books = Books()
        books.enter(.delivered, from: Books.Tally(numbered: 0, queued: 0), to: tally)
    }

    /// The books as they stand where `record` is all there is of the queue: it leaves out what was settled without
    /// a Record and has none to be settled in.
    func books(with record: QueueRecord) -> Books {
        var books = books
        books.enter(.delivered, from: queue.tally, to: MessageQueue(record).tally)
        return books
    }

    /// What the books come to when the Session ends now.
    var finalBooks: Books {
        var books = books
        let tally = queue.tally
        books.enter(
            .dropped(.sessionEnded), from: tally, to: Books.Tally(numbered: tally.numbered, queued: 0))
        return books
    }
}

extension DurableState {
    /// The same for what changes more than one queue.
    mutating func booking(_ id: SessionID, _ entry: Books.Entry, _ change: (inout DurableState) -> Void) {
        let before = update(id) { $0.isPersistent ? $0.queue.tally : nil } ?? nil
        change(&self)
        guard let before else { return }
        _ = update(id) { $0.books.enter(entry, from: before, to: $0.queue.tally) }
    }

    /// The books of all queues together, and of those that ended.
    ///
    /// - Complexity: O(Sessions)
    package var balance: Balance {
        var balance = Balance(books: endedBooks, queued: 0)
        for id in sessionIDs {
            guard let session = self[id], session.isPersistent else { continue }
            balance.books += session.books
            balance.queued &+= UInt64(session.queue.queuedCount)
        }
        return balance
    }
}
