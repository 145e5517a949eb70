import MQTT

extension QueueBounds {
    /// Whether a message of `size` bytes would exceed what may wait; one that waits alone may be larger than all.
    func isReached(by queue: borrowing MessageQueue, plus size: Int) -> Bool {
        let count = queue.waitingCount
        guard count > 0 else { return messagesMax.map { $0 < 1 } ?? false }
        if let messagesMax, count >= messagesMax { return true }
        if let bytesMax { return queue.waitingBytes + size > bytesMax }
        return false
    }
}

// What happens when a queue is full: see `QueueBounds.WhenFull`. `refuse` is decided before anything is, with the other
// reasons to refuse; here is what lets a message go. Whatever does is in a Record and in the books (promise P3).
extension Gateway {
    /// Whether a message of `size` bytes joins a queue; makes room for it where that is the policy.
    mutating func makesRoom(
        for size: Int, in session: SessionID, at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        guard hasVolatileRoom(for: session, into: &effects) else { return false }
        let policy = read(session) { session in
            session.bounds.flatMap { $0.isReached(by: session.queue, plus: size) ? $0.whenFull : nil }
        }
        switch policy ?? nil {
        case nil, .refuse:
            // Refused it would have been before; a Will cannot be.
            return true
        case .dropOldest:
            if dropOldest(for: size, of: session, at: now, into: &effects) { return true }
            dropNewest(of: session, at: now, into: &effects)
            return false
        case .dropNewest:
            dropNewest(of: session, at: now, into: &effects)
            return false
        }
    }

    /// Lets go of as many of the oldest as it takes.
    ///
    /// - Returns: false when that is not enough, because the rest was sent: then nothing is let go.
    /// - Complexity: O(dropped), amortised
    private mutating func dropOldest(
        for size: Int, of session: SessionID, at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        let found: [Delivery]?? = update(session) { session in
            guard let bounds = session.bounds else { return nil }
            var count = session.queue.waitingCount
            var bytes = session.queue.waitingBytes
            var next = max(session.droppableFrom, session.flow?.next ?? session.queue.floor)
            var oldest: [Delivery] = []
            while count > 0,
                count >= bounds.messagesMax ?? .max || bytes + size > bounds.bytesMax ?? .max
            {
                guard let delivery = session.queue.firstDroppable(atOrAfter: next) else { return nil }
                oldest.append(delivery)
                count -= 1
                bytes -= session.queue.bytes(of: delivery)
                next = Delivery(delivery.number + 1)
            }
            session.droppableFrom = next
            return oldest
        }
        guard let oldest = found ?? nil else { return false }
        drop(oldest, of: session, .queueFull, at: now, into: &effects)
        return true
    }

    /// The new message takes a number in the queue and nothing else. Its publisher waits for that Record: nobody would
    /// know of what was acknowledged and let go if a power cut took it.
    private mutating func dropNewest(of session: SessionID, at now: Instant, into effects: inout [Effect]) {
        guard let next = read(session, { $0.queue.end }) else { return }
        drop([next], of: session, .queueFull, .message, at: now, into: &effects)
    }
}
