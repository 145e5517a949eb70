import DequeModule
import MQTT

/// Dead letters that somebody wants delivered after all, on their way out of their queue.
struct Replay {
    /// Apart, and in rising order.
    var rest: Deque<Range<UInt64>> = []
    /// What is being read, in rising order.
    var loading: [Posting] = []
    /// The stretch whose index was asked for.
    var indexing: Stretch?

    var isWaiting: Bool { !loading.isEmpty || indexing != nil }
}

// What a cloud refuses, or says is too large for it, would be refused again for ever. It leaves its queue, so that the
// others can go on, and is kept until somebody decides about it: in a queue of its own that flows to nobody.
extension Gateway {
    // MARK: In

    /// The cloud answered a message with a Reason Code of 0x80 or above [MQTT5-4.3.2-3, MQTT5-4.3.3-4].
    ///
    /// - Returns: false when the receiver is no uplink; nothing has happened then.
    mutating func refuseByCloud(
        _ delivery: Delivery, of session: SessionID, _ reason: ReasonCode, at now: Instant,
        into effects: inout [Effect]
    ) -> Bool {
        guard keepDeadLetter(delivery, of: session, reason, at: now, into: &effects) else { return false }
        _ = update(session) { $0.flow?.inFlightCount -= 1 }
        pump(session, at: now, into: &effects)
        return true
    }

    /// Moves a message from an uplink's queue to its dead letters. It is in one of them, whatever becomes of the
    /// Record: without it the cloud is asked again. So the message's own Record must be written, and nobody may say
    /// that everyone has it.
    ///
    /// - Returns: false when the receiver is no uplink; nothing has happened then.
    mutating func keepDeadLetter(
        _ delivery: Delivery, of session: SessionID, _ reason: ReasonCode, at now: Instant,
        into effects: inout [Effect]
    ) -> Bool {
        let found = read(session) {
            ($0.owner.uplinkName, $0.queue[delivery], $0.queue.message(of: delivery))
        }
        guard let (name, entry, message) = found, let name, let entry, entry.phase != .settled, let message
        else { return false }
        forgetReports(of: [delivery], in: session)
        let letters = prepareDeadLetters(of: name, into: &effects)
        var received = message.received
        if received?.by == .zero { received?.by = entry.position }
        var record = MessageRecord(
            qos: message.publishedQoS, message: message.message,
            expiresAt: state.offTimes.deadline(message.expiresAt, of: entry.position),
            targets: [
                .init(session: letters, qos: entry.qos, retain: message.retain, rename: message.rename)
            ],
            received: received,
            moved: .init(from: session, delivery: delivery, refusal: .init(reason: reason, at: now)))
        _ = commitMessage(&record, .lazy, into: &effects)
        effects.append(.report(.deadLetter(uplink: name, reason)))
        listUnrecorded(session, at: now, into: &effects)
        boundDeadLetters(letters, of: name, at: now, into: &effects)
        return true
    }

    private mutating func prepareDeadLetters(of name: String, into effects: inout [Effect]) -> SessionID {
        let owner = SessionOwner.deadLetters(uplink: name)
        if let known = state.session(of: owner) { return known }
        let session = newSessionID(inJournal: true)
        let opened = SessionOpened(
            session: session, owner: owner, version: .v5_0, expirySeconds: .max, isPersistent: true, will: nil
        )
        _ = commit(.sessionOpened(opened), .lazy, into: &effects)
        return session
    }

    /// Lets the oldest go, counted, while there are more than the operator wants to keep.
    private mutating func boundDeadLetters(
        _ letters: SessionID, of name: String, at now: Instant, into effects: inout [Effect]
    ) {
        let routes = plan.uplinks.first { $0.name == name } ?? UplinkRoutes(name: name, out: [], in: [])
        while let oldest = read(
            letters,
            { session -> Delivery? in
                let queue = session.queue
                let isFull =
                    queue.waitingCount > routes.deadLettersMax
                    || queue.waitingBytes > routes.deadLetterBytesMax
                return isFull && queue.waitingCount > 0 ? queue.firstWaiting(atOrAfter: queue.floor) : nil
            }) ?? nil
        {
            drop([oldest], of: letters, .queueFull, at: now, into: &effects)
        }
    }

    // MARK: Out

    /// Sends dead letters to the cloud once more: behind what waits, in the queue that they came from or in the
    /// uplink's first where that is gone. They are read back from flash, so it takes its time; what has not gone by a
    /// stop, a power cut, or a queue or disk that is full stays where it is.
    ///
    /// - Parameter numbers: of the dead letters; nil for all.
    /// - Returns: how many will go.
    /// - Complexity: O(numbers)
    package mutating func replayDeadLetters(
        uplink name: String, numbers: [UInt64]?, at now: Instant, into effects: inout [Effect]
    ) -> Int {
        guard let letters = state.session(of: .deadLetters(uplink: name)), mayReplayDeadLetters
        else {
            return 0
        }
        let chosen = deadLetters(numbers, in: letters)
        guard !chosen.isEmpty else { return 0 }
        var replay = replays[letters] ?? Replay()
        replay.rest = Self.union(Array(replay.rest) + chosen)
        replays[letters] = replay
        if !replay.isWaiting { replayNext(of: letters, at: now, into: &effects) }
        return numbers == nil
            ? read(letters) { $0.queue.waitingCount } ?? 0 : chosen.reduce(0) { $0 + $1.count }
    }

    /// Whether there may be any: of an uplink of the plan, or of one that there was.
    package func hasDeadLetters(ofUplink name: String) -> Bool {
        plan.uplinks.contains { $0.name == name } || state.session(of: .deadLetters(uplink: name)) != nil
    }

    /// What is sent again needs room where it waits.
    package var mayReplayDeadLetters: Bool { !isStopping && !isUnderPressure }

    /// Lets dead letters go, counted.
    ///
    /// - Parameter numbers: of the dead letters; nil for all.
    /// - Returns: how many went.
    /// - Complexity: O(dead letters)
    package mutating func purgeDeadLetters(
        uplink name: String, numbers: [UInt64]?, at now: Instant, into effects: inout [Effect]
    ) -> Int {
        guard let letters = state.session(of: .deadLetters(uplink: name)) else { return 0 }
        var count = 0
        for range in deadLetters(numbers, in: letters) {
            var next = Delivery(range.lowerBound)
            while true {
                let some = read(letters) { $0.queue.waiting(from: next, below: range.upperBound) } ?? []
                guard let last = some.last else { break }
                drop(some, of: letters, .purged, at: now, into: &effects)
                count += some.count
                next = Delivery(last.number + 1)
            }
        }
        return count
    }

    private func deadLetters(_ numbers: [UInt64]?, in letters: SessionID) -> [Range<UInt64>] {
        read(letters) { session in
            guard let numbers else {
                let all = session.queue.floor.number..<session.queue.end.number
                return session.queue.waitingCount > 0 ? [all] : []
            }
            let there = numbers.filter { session.queue.needs(Delivery($0)) }
            return Array(Self.union(there.map { $0..<$0 + 1 }))
        } ?? []
    }

    private static func union(_ ranges: [Range<UInt64>]) -> Deque<Range<UInt64>> {
        var union: Deque<Range<UInt64>> = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = union.last, range.lowerBound <= last.upperBound {
                union[union.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                union.append(range)
            }
        }
        return union
    }

    // MARK: One load after another

    /// Asks for the next dead letters to be read, or for where they are.
    private mutating func replayNext(
        of letters: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        let (countMax, bytesMax) = (plan.limits.loadedAtOnceMax, plan.limits.residentBytesMax)
        var replay = replays[letters] ?? Replay()
        _ = read(letters) { session in
            var bytes = 0
            while replay.loading.count < countMax, bytes < bytesMax,
                let delivery = replay.next(in: session.queue)
            {
                guard let entry = session.queue[delivery] else {
                    if replay.loading.isEmpty { replay.indexing = session.queue.stretch(of: delivery) }
                    break
                }
                replay.loading.append(
                    Posting(
                        delivery: delivery, position: entry.position, qos: entry.qos, bytes: entry.bytes))
                replay.passes(delivery)
                bytes += Int(entry.bytes)
            }
        }
        replays[letters] = replay.isWaiting ? replay : nil
        if let stretch = replay.indexing {
            effects.append(.index(letters, stretch))
        } else if !replay.loading.isEmpty {
            effects.append(.load(letters, replay.loading.map(\.position), target: letters))
        }
    }

    /// The index says where those are that are on flash alone; what it should have and has not is lost, counted.
    mutating func replayIndexed(
        _ postings: [Posting]?, of stretch: Stretch, for letters: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard var replay = replays[letters], replay.indexing == stretch else { return }
        replay.indexing = nil
        // Whatever flash may say.
        let known = (postings ?? []).filter { stretch.contains($0.position) }
            .sorted(by: Posting.isBefore)
        var damaged: [Delivery] = []
        let (countMax, bytesMax) = (plan.limits.loadedAtOnceMax, plan.limits.residentBytesMax)
        _ = read(letters) { session in
            var bytes = 0
            while replay.loading.count < countMax, bytes < bytesMax, damaged.count < countMax,
                let delivery = replay.next(in: session.queue), session.queue.stretch(of: delivery) == stretch
            {
                let i = known.partitioningIndex { $0.delivery >= delivery }
                if i < known.count, known[i].delivery == delivery {
                    // A load is in rising order.
                    if let last = replay.loading.last, known[i].position <= last.position { break }
                    replay.loading.append(known[i])
                    bytes += Int(known[i].bytes)
                } else {
                    damaged.append(delivery)
                }
                replay.passes(delivery)
            }
        }
        replays[letters] = replay
        if !damaged.isEmpty { drop(damaged, of: letters, .damaged, at: now, into: &effects) }
        guard !replay.loading.isEmpty else { return replayNext(of: letters, at: now, into: &effects) }
        effects.append(.load(letters, replay.loading.map(\.position), target: letters))
    }

    /// What was read goes to the queue it came from.
    mutating func replayLoaded(
        _ messages: [(Position, StoredMessage?)], for letters: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard var replay = replays[letters], !replay.loading.isEmpty else { return }
        let loaded = replay.loading
        replay.loading = []
        replays[letters] = replay
        var lanes: [SessionID] = []
        var next = messages.startIndex
        for letter in loaded {
            while next < messages.endIndex, messages[next].0 < letter.position { next += 1 }
            // Purged meanwhile, or let go for want of room.
            guard read(letters, { $0.queue.needs(letter.delivery) }) == true else { continue }
            guard next < messages.endIndex, messages[next].0 == letter.position,
                let message = messages[next].1
            else {
                drop([letter.delivery], of: letters, .damaged, at: now, into: &effects)
                continue
            }
            guard let lane = lane(for: message, of: letters),
                mayReplay(message.message.bytes.count, into: lane)
            else {
                replays[letters] = nil
                break
            }
            sendAnew(letter, message, of: letters, into: lane, &effects)
            if !lanes.contains(lane) { lanes.append(lane) }
        }
        listUnrecorded(letters, at: now, into: &effects)
        for lane in lanes { pump(lane, at: now, into: &effects) }
        if replays.contains(letters) { replayNext(of: letters, at: now, into: &effects) }
    }

    /// The queue that a dead letter came from, or the uplink's first. What was live once is not any more: it joins the
    /// backlog.
    private func lane(for message: StoredMessage, of letters: SessionID) -> SessionID? {
        guard case .deadLetters(let name) = read(letters, { $0.owner }) else { return nil }
        if let lane = message.refusedIn, read(lane, { $0.owner.uplinkName }) == name {
            return (read(lane, { $0.backlog }) ?? nil) ?? lane
        }
        return state.session(of: .uplink(name: name))
    }

    /// Whether a queue has room for a dead letter of `size` bytes, within the bounds of its own too: none is worth a
    /// message that was not refused.
    private func mayReplay(_ size: Int, into lane: SessionID) -> Bool {
        guard !isStopping, !isUnderPressure else { return false }
        let most = plan.limits.queuedMessagesMax
        return read(lane) {
            $0.queue.waitingCount < most && $0.bounds?.isReached(by: $0.queue, plus: size) != true
        } == true
    }

    private mutating func sendAnew(
        _ letter: Posting, _ message: StoredMessage, of letters: SessionID, into lane: SessionID,
        _ effects: inout [Effect]
    ) {
        var record = MessageRecord(
            qos: message.publishedQoS, message: message.message,
            expiresAt: state.offTimes.deadline(message.expiresAt, of: letter.position),
            targets: [.init(session: lane, qos: letter.qos, retain: message.retain, rename: message.rename)],
            received: message.received, moved: .init(from: letters, delivery: letter.delivery))
        _ = commitMessage(&record, .message, into: &effects)
        forgetReport(of: message.message.topic, to: lane)
    }
}

extension Replay {
    /// The first that is still there.
    fileprivate mutating func next(in queue: borrowing MessageQueue) -> Delivery? {
        while let range = rest.first {
            let delivery = queue.firstWaiting(atOrAfter: Delivery(range.lowerBound))
            if delivery.number < range.upperBound {
                rest[0] = delivery.number..<range.upperBound
                return delivery
            }
            rest.removeFirst()
        }
        return nil
    }

    fileprivate mutating func passes(_ delivery: Delivery) {
        guard let range = rest.first, range.contains(delivery.number) else { return }
        rest[0] = delivery.number + 1..<range.upperBound
    }
}

extension MessageQueue {
    /// What waits from `start` on and below `end`, so much of it as a Record should name.
    fileprivate func waiting(from start: Delivery, below end: UInt64) -> [Delivery] {
        var waiting: [Delivery] = []
        var next = firstWaiting(atOrAfter: start)
        while next.number < min(end, self.end.number), waiting.count < 4096 {
            waiting.append(next)
            next = firstWaiting(atOrAfter: Delivery(next.number + 1))
        }
        return waiting
    }
}
