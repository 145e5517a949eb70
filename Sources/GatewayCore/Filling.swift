/// What was said to be full, until it was said to have room again.
struct FullStores {
    var queues: [SessionID] = []
    var isRetainedFull = false
    var isEmpty: Bool { queues.isEmpty && !isRetainedFull }
    var isCheckScheduled = false
}

// Who refuses says why: a queue that is full stops its publishers, who may have nothing to do with it. That is told
// once, and once more when there is room again; it is looked at only now and then, so that a queue at its limit is
// no stream of lines.
extension Gateway {
    /// A message found no room in the queue of `session`.
    mutating func noteFull(_ session: SessionID, at now: Instant, into effects: inout [Effect]) {
        let limit = plan.limits.queuedMessagesMax
        let found = update(session) { session -> (SessionOwner, Int)? in
            defer { session.isListedFull = true }
            return session.isListedFull ? nil : (session.owner, session.messagesMax(limit))
        }
        guard let (owner, most) = found ?? nil else { return }
        fullStores.queues.append(session)
        effects.append(.report(.full(.queue(owner, messagesMax: most))))
        scheduleFullCheck(at: now)
    }

    /// A retained message found no room among the others.
    mutating func noteRetainedFull(at now: Instant, into effects: inout [Effect]) {
        guard !fullStores.isRetainedFull else { return }
        fullStores.isRetainedFull = true
        effects.append(.report(.full(.retained(bytesMax: plan.limits.retainedBytesMax))))
        scheduleFullCheck(at: now)
    }

    private mutating func scheduleFullCheck(at now: Instant) {
        guard !fullStores.isCheckScheduled else { return }
        fullStores.isCheckScheduled = true
        schedule(.fullStores, at: now.advanced(byMilliseconds: Self.fullCheckMilliseconds))
    }

    /// No queue is told to be full more often than this.
    private static var fullCheckMilliseconds: UInt64 { 10_000 }

    /// Tells what has a tenth of its room again. Of a queue whose Session has ended nothing more is told.
    ///
    /// - Complexity: O(queues that were full)
    mutating func checkFullStores(at now: Instant, into effects: inout [Effect]) {
        fullStores.isCheckScheduled = false
        let listed = fullStores.queues
        fullStores.queues = []
        let limit = plan.limits.queuedMessagesMax
        for id in listed {
            let found = update(id) { session in
                let most = session.messagesMax(limit)
                let bytesMax = session.bounds?.bytesMax ?? .max
                let isFull =
                    session.queue.waitingCount > most / 10 * 9
                    || session.queue.waitingBytes > bytesMax / 10 * 9
                session.isListedFull = isFull
                return (session.owner, isFull, most)
            }
            guard let (owner, isFull, most) = found else { continue }
            if isFull {
                fullStores.queues.append(id)
            } else {
                effects.append(.report(.drained(.queue(owner, messagesMax: most))))
            }
        }
        let bytesMax = plan.limits.retainedBytesMax
        if fullStores.isRetainedFull, state.retained.bytes <= bytesMax / 10 * 9 {
            fullStores.isRetainedFull = false
            effects.append(.report(.drained(.retained(bytesMax: bytesMax))))
        }
        if !fullStores.isEmpty { scheduleFullCheck(at: now) }
    }
}

extension Session {
    /// How many messages may wait for it: as many as for anybody, or fewer.
    fileprivate func messagesMax(_ limit: Int) -> Int { min(limit, bounds?.messagesMax ?? limit) }
}
