import GatewayCore

/// The log as a state machine: Records go in, operations for the disk come out, and an event says when they
/// are durable. It has no clock and does no I/O.
///
/// One batch is in flight at a time and the next gathers behind it, so that the busier the gateway, the more
/// Records share a sync. A Record is durable only when the sync that covers it was answered with success. What a
/// failed write or sync left of its batch counts for nothing: the Records are written again in a new segment,
/// whose header says where the one before ends (see `FailureStates`).
package struct Journal {
    package let store: StoreID
    let plan: JournalPlan
    let boot: UInt32
    /// Evidence for the batch headers, and when it was given.
    var wall = WallReading(milliseconds: 0, isTrusted: false)
    var wallReadAt: Instant
    var wallProvenAt = Position.zero
    let uptime: Uptime?

    /// The position of the last Record that was appended.
    package internal(set) var last: Position
    /// Every Record up to here survives a power cut, or was elided.
    package internal(set) var durable: Position
    /// What the core knows of that.
    var toldDurable: Position
    /// The last Record that was written, and is durable.
    var written: Position
    /// The Records of the batch in flight.
    var inFlight: [PendingRecords.Slot] = []
    var inFlightBytes = 0
    /// What comes behind them.
    var pending = PendingRecords()
    var policy: CommitPolicy
    /// What was handed to the disk, over the life of the store.
    package internal(set) var wear: Wear

    var phase = Phase.idle
    var isClosing = false
    var failures = FailureStates()
    /// Nothing can be made durable at present.
    package var hasFailed: Bool { failures.hasFailed }
    /// Everything is durable and the log says that it ended well.
    package internal(set) var isClosed = false

    /// In rising order; the last is the one being written when `hasActive`.
    var segments: [Segment]
    var hasActive = false
    /// This boot has written something.
    var hasBegun = false
    var supply: SegmentSupply
    var nextSegment: UInt64
    var tail: SegmentEnd
    let recoveredClean: Bool
    var anchor: WallAnchor?
    var unproven: UnprovenStart?
    /// The clock in the last batch, or in the last that recovery found.
    package internal(set) var stampedAt: Instant

    var checkpoints: [RecoveredLog.CheckpointFile]
    var checkpointing = Checkpointing.none
    var checkpointedAt: Instant
    var checkpointBackOff = BackOff()
    /// How often it was looked in vain for room that a checkpoint under pressure would make, and how often before one is
    /// written all the same.
    var vainLooks = 0
    var vainLooksMax = 1
    /// The last checkpoint found segments in which nothing is owed, and left them only because it was the first
    /// to cover them. Not known before the first checkpoint of this process, which may be asked for in vain.
    var leftNeedlessSegments = true
    /// Since the last checkpoint.
    var grownBytes = 0
    var grownSegments = 0
    /// Of both, what the checkpoint that is being written covers.
    var coveredGrowth = (bytes: 0, segments: 0)

    var reading: Reading
    /// Of the segment that is written to.
    var activeIndex: IndexBuilder?
    /// A footer that is being written: nobody waits for it, and its failure costs a scan.
    var footer: (token: OperationToken, segment: UInt64)?
    /// What the core is told once the next segment is there.
    var untold: StorageEvent?
    var space: SpaceWatch
    var compaction: Compaction
    /// What is not durable yet holds too much memory: the disk is slower than the publishers.
    var isBackedUp = false
    /// What the core was told last.
    var isPressing = false
    var isStuck = false
    var latest: Instant

    var lastToken: UInt64 = 0
    var operations: [DiskOperation] = []
    var events: [StorageEvent] = []

    enum Phase: Equatable {
        case idle
        case creating(OperationToken, Segment, from: FreeSegment?)
        case writing(OperationToken, BatchHeaderSummary)
    }

    /// What is needed of a batch when its sync is answered.
    struct BatchHeaderSummary: Equatable {
        let header: BatchHeader
        let offset: Int
        /// Where its padding ends, and zeros for batches to come.
        let reach: Int
    }

    enum Checkpointing: Equatable {
        case none
        /// Until the log is durable up to its position.
        case waiting(Position, [UInt8], deletable: [UInt64])
        case writing(OperationToken, Position, bytes: Int, deletable: [UInt64])
    }

    /// - Parameter resumed: where the clock goes on; without it nothing is known of the time off.
    package init(plan: JournalPlan, recovered: RecoveredLog, resumed: Resumption? = nil) {
        let resumed = resumed ?? recovered.resume(on: nil, uptimeMilliseconds: 0)
        precondition(plan.segmentBytes >= 3 * pageBytes, "a segment holds its header, a page and its footer")
        self.plan = plan
        store = recovered.store
        reading = Reading(store: recovered.store)
        boot = recovered.boot &+ 1
        last = recovered.last
        durable = recovered.last
        toldDurable = recovered.last
        written = recovered.last
        policy = CommitPolicy(
            plan.commits, lazyDelayMilliseconds: plan.lazyDelayMilliseconds, at: recovered.clock)
        segments = recovered.segments
        nextSegment = recovered.nextSegment
        tail = recovered.tail
        recoveredClean = recovered.wasCleanShutdown
        anchor = recovered.anchor
        uptime = resumed.uptime
        unproven = resumed.unproven
        wallReadAt = recovered.clock
        stampedAt = recovered.clock
        checkpoints = recovered.checkpoints
        latest = recovered.clock
        wear = recovered.wear
        checkpointedAt = recovered.clock
        let covered = recovered.checkpoints.last?.position ?? .zero
        for segment in segments where segment.last > covered {
            grownBytes += segment.end
            grownSegments += 1
        }
        let used = segments.reduce(0) { $0 + $1.end } + checkpoints.reduce(0) { $0 + $1.bytes }
        space = SpaceWatch(plan: plan, usedBytes: used)
        supply = SegmentSupply(plan: plan, recovered: recovered)
        compaction = Compaction(plan: plan, store: recovered.store, at: recovered.clock)
        if let measured = recovered.space { space.measured(measured, at: latest) }
        reportPressure()
    }

    // MARK: Evidence

    /// The wall clock as it is now; to be given every second or so.
    ///
    /// - Parameters:
    ///   - wall: trusted when a `WallWitness` believes it.
    ///   - position: the Record of what it proved. An anchor that is durable before it would take the proof away.
    package mutating func note(_ wall: WallReading, at now: Instant, provenAt position: Position = .zero) {
        note(now)
        self.wall = wall
        wallReadAt = now
        wallProvenAt = position
    }

    /// Whether a batch written now has an anchor in it.
    package var hasEvidence: Bool { wall.isTrusted && durable >= wallProvenAt }

    /// What the wall clock must say now: a moment of another time would look like time that passed unseen.
    var wallNow: WallReading {
        let passed = Int64(clamping: latest.milliseconds(since: wallReadAt))
        let (sum, overflow) = wall.milliseconds.addingReportingOverflow(passed)
        return WallReading(milliseconds: overflow ? .max : sum, isTrusted: hasEvidence && !overflow)
    }

    // MARK: Appending

    /// Takes a Record into the log; it is durable when `.durable` says so.
    package mutating func append(
        _ record: consuming Record, _ urgency: Urgency, at now: Instant
    ) -> Position {
        precondition(!isClosing, "nothing is appended behind the end")
        note(now)
        last = last.next
        let bytes = record.memoryBytes
        pending.append(
            record, urgency, at: last, bytes: bytes, lingers: policy.lingers(at: latest), at: latest)
        return last
    }

    /// Everyone who was owed the message at `position` has it: its Record is not written, unless it is too late
    /// for that. Answered by `.elided`.
    package mutating func elide(_ position: Position, at now: Instant) {
        note(now)
        // A checkpoint that waits for its turn may say that the message is owed.
        if case .waiting(let covered, _, _) = checkpointing, position <= covered { return }
        guard !hasFailed, let lingered = pending.elide(position) else { return }
        if lingered { policy.lingered(1, wereElided: true, at: latest) }
        events.append(.elided(position))
        advanceDurable()
    }

    /// What may be elided up to `position` lingers no longer for it.
    package mutating func hasten(_ position: Position, at now: Instant) {
        note(now)
        pending.hasten(position)
    }

    /// Starts what is due. Call it after a round of appends, and at `nextDeadline`.
    package mutating func tick(at now: Instant) {
        note(now)
        keepToBudget()
        startBatchIfDue()
        reportPressure()
        if space.isMeasurementDue(at: now) { ask(.measureSpace) }
        perform(dueWork())
        read(reading.due(at: latest))
        stepCompaction()
    }

    mutating func keepToBudget() {
        guard let budget = plan.flashBudget else { return }
        let widening = budget.widening(spent: wear.bytesToday(at: latest))
        if widening != policy.widening { policy.widen(widening, at: latest) }
    }

    /// Whether more was written today than the flash was to be given in a day.
    package var isOverFlashBudget: Bool {
        plan.flashBudget?.isExceeded(spent: wear.bytesToday(at: latest)) ?? false
    }

    /// When `tick` has something to do that no completion brings.
    package var nextDeadline: Instant? {
        guard !isClosed else { return nil }
        let batch = phase == .idle ? nextBatch : nil
        let work = failures.isTroubled || isClosing ? nil : supply.nextDeadline
        let merging =
            mayCompact ? compaction.nextDeadline(space, durable: durable) : nil
        return [batch, space.nextMeasurement, work, reading.nextAttempt, merging].compactMap { $0 }.min()
    }

    var nextBatch: Instant? {
        failures.isTroubled ? failures.nextAttempt : policy.nextDeadline(pending.demand)
    }

    mutating func note(_ now: Instant) { latest = max(latest, now) }

    /// What the next batch is to take.
    var due: CommitPolicy.Due {
        // The attempt that finds out whether the disk works again may have nothing to write.
        if failures.isTroubled {
            return failures.allowsAttempt(at: latest) ? .everything(lingeredInVain: false) : .nothing
        }
        if isClosing || pending.isOverdue { return .everything(lingeredInVain: false) }
        if case .waiting = checkpointing, !pending.isEmpty { return .everything(lingeredInVain: false) }
        return policy.due(pending.demand, at: latest)
    }

    mutating func startBatchIfDue() {
        guard phase == .idle, !isClosed else { return }
        let due = due
        guard due != .nothing else { return }
        if isClosing, pending.isEmpty, !failures.isTroubled {
            // The end is noted behind the last checkpoint.
            guard checkpointing == .none, supply.isIdle else { return }
            if !hasBegun, recoveredClean {
                // Nothing was written in this boot, and the last one ended well.
                isClosed = true
                return
            }
        }
        guard hasActive, let active = segments.last else { return createSegment(forBytes: pageBytes) }
        let room = active.capacity - active.end - (activeIndex?.footerBytes ?? 0)
        let limit = min(room, plan.batchBytesMax)
        var builder = BatchBuilder(expecting: min(pending.bytes, limit))
        let taken = pending.fill(&builder, onlyBeforeLingering: due == .beforeLingering, limit: limit)
        guard builder.totalLength <= room else { return createSegment(forBytes: builder.totalLength) }
        policy.committed(pending.demand, at: latest)
        // Given away: what somebody else holds too is copied, a megabyte at a time, when its header is written.
        write(consume builder, taking: taken, due, to: active)
    }

    mutating func write(
        _ builder: consuming BatchBuilder, taking count: Int, _ due: CommitPolicy.Due, to active: Segment
    ) {
        let first = pending.first ?? last.next
        let bytesBefore = pending.bytes
        let (slots, lingered) = pending.take(count, all: due != .beforeLingering)
        if due == .everything(lingeredInVain: true) {
            policy.lingered(lingered, wereElided: false, at: latest)
        }
        let isLast = isClosing && pending.isEmpty
        let stamp = BatchStamp(
            store: store, segment: active.id, offset: active.end, first: first, durableBefore: written,
            clock: latest, boot: boot, wall: wallNow, isCleanShutdown: isLast)
        stampedAt = latest
        let (builtMessages, builtPayload) = (builder.messageCount, builder.payloadBytes)
        let (header, batch) = builder.sealed(stamp)
        // Nothing is taken beforehand when there is little.
        let mayGrow = supply.recycles && !space.isPressing && !failures.isTroubled
        let reach = active.reach(ofBatch: batch.count, growingBy: mayGrow ? plan.growthBytes : 0)
        let ahead = reach - active.end - batch.count
        let bytes = ahead > 0 ? batch + repeatElement(0, count: ahead) : batch
        inFlight = slots
        wear.note(messages: builtMessages, payloadBytes: builtPayload)
        inFlightBytes = bytesBefore - pending.bytes
        let token = ask(.write(.segment(active.id), offset: active.end, bytes: bytes))
        phase = .writing(token, BatchHeaderSummary(header: header, offset: active.end, reach: reach))
    }

    /// Notes up to where everything is durable or elided.
    mutating func advanceDurable() {
        guard inFlight.isEmpty else { return }
        durable = max(durable, pending.first.map { Position($0.number - 1) } ?? last)
    }

    /// A new segment, whose header names the end of the one before: everything up to there is durable, because
    /// no batch is in flight.
    mutating func createSegment(forBytes needed: Int) {
        let id = nextSegment
        nextSegment += 1
        hasBegun = true
        if hasActive { leaveActive(.sealed) }
        let file = supply.take(2 * pageBytes + needed)
        let header = SegmentHeader(
            store: store, segment: id, predecessor: tail, clock: latest, boot: boot, uptime: uptime,
            isRecycled: file != nil)
        let capacity = file?.bytes ?? max(plan.segmentBytes, 2 * pageBytes + needed)
        let segment = Segment(
            id: id, first: tail.last.next, capacity: capacity, fileBytes: file?.bytes ?? pageBytes)
        let token =
            if let file {
                ask(.reuseSegment(.segment(id), from: .free(file.id), page: header.encoded))
            } else {
                ask(.createSegment(.segment(id), page: header.encoded))
            }
        phase = .creating(token, segment, from: file)
    }

    enum Leaving {
        /// It gets its footer.
        case sealed
        /// A write to it failed: nothing is ever written to it again.
        case givenUp
    }

    /// Nothing is written to the active segment any more; the next header names its end.
    mutating func leaveActive(_ how: Leaving) {
        guard let active = segments.last else { return }
        hasActive = false
        tail = SegmentEnd(segment: active.id, offset: UInt64(active.end), last: written)
        seal(active, how)
    }

    /// Nothing is appended to `segment` any more: its index goes behind its last batch.
    mutating func seal(_ segment: Segment, _ how: Leaving) {
        guard let index = activeIndex?.index, let stretch = segment.stretch else { return }
        activeIndex = nil
        switch how {
        case .sealed:
            let token = ask(
                .writeFooter(
                    .segment(segment.id), offset: segment.end, bytes: Footer.encoded(index, store: store)))
            footer = (token, segment.id)
            events.append(.sealed(stretch, queues: index.sessions))
        case .givenUp:
            // Before the next header names its end, a power cut may bring the void batch back into it.
            untold = .sealed(stretch, queues: index.sessions)
        }
        reading.keep(index)
    }

    // MARK: The disk's answers

    package mutating func completed(_ completion: DiskCompletion, at now: Instant) {
        note(now)
        if let space = completion.space { self.space.measured(space, at: latest) }
        let isWritable = !failures.isTroubled
        if let next = reading.completed(completion, isWritable: isWritable, at: latest, into: &events) {
            return read(next)
        }
        switch compaction.completed(completion, isWritable: isWritable, at: latest) {
        case .notOurs: break
        case .ours: return stepCompaction()
        case .merged(let merged, let victims):
            adopt(merged, for: victims)
            reportPressure()
            return stepCompaction()
        }
        if let footer, completion.token == footer.token {
            self.footer = nil
            if case .failed = completion.outcome { supply.gaveUp(footer.segment) }
            return
        }
        if let freed = supply.completed(completion, at: latest) {
            space.usedBytes -= freed
        } else {
            switch completion.outcome {
            case .failed(let number): failed(completion.token, Refusal(errorNumber: number))
            case .done, .read: succeeded(completion.token)
            }
        }
        reportPressure()
        startBatchIfDue()
        stepCompaction()
    }

    /// Tells the core when room for messages runs out, be it on the disk or in memory, and when it is back.
    mutating func reportPressure() {
        if failures.isStuck != isStuck {
            isStuck = failures.isStuck
            events.append(.stuck(isStuck))
        }
        space.reusableBytes = supply.freeBytes
        space.checkpointBytes = checkpoints.last?.bytes ?? 0
        let hasRoom = space.hasRoom(for: plan.reserveBytes)
        space.isInDebt = failures.lacksRoom || supply.lacksReserve(hasRoom: hasRoom)
        space.update()
        let bytes = inFlightBytes + pending.bytes
        if bytes > plan.bufferBytesMax {
            isBackedUp = true
        } else if bytes < plan.bufferBytesMax / 2 {
            isBackedUp = false
        }
        let presses = space.isPressing || isBackedUp
        guard presses != isPressing else { return }
        isPressing = presses
        events.append(.pressure(presses))
    }

    mutating func succeeded(_ token: OperationToken) {
        switch phase {
        case .creating(token, let segment, _):
            phase = .idle
            segments.append(segment)
            hasActive = true
            activeIndex = IndexBuilder(segment: segment.id, first: segment.first)
            if let untold { events.append(untold) }
            untold = nil
            space.usedBytes += segment.end
            grownBytes += segment.end
            grownSegments += 1
        case .writing(token, let batch):
            phase = .idle
            batchIsDurable(batch)
        case .idle, .creating, .writing:
            checkpointSucceeded(token)
        }
    }

    mutating func batchIsDurable(_ batch: BatchHeaderSummary) {
        segments[segments.count - 1].add(batch.header, at: batch.offset)
        segments[segments.count - 1].grew(to: batch.reach)
        activeIndex?.add(batch.header, at: batch.offset)
        activeIndex?.add(&inFlight)
        space.usedBytes += batch.header.totalLength
        grownBytes += batch.header.totalLength
        inFlight = []
        inFlightBytes = 0
        if batch.header.wall.isTrusted {
            anchor = WallAnchor(clock: batch.header.clock, wallMilliseconds: batch.header.wall.milliseconds)
            unproven = nil
        }
        if batch.header.recordCount > 0 {
            written = batch.header.last
        }
        advanceDurable()
        if failures.attemptSucceeded() { events.append(.recovered) }
        if batch.header.isCleanShutdown { isClosed = true }
        advanceCheckpoint()
    }

    mutating func checkpointSucceeded(_ token: OperationToken) {
        switch checkpointing {
        case .writing(token, let position, let bytes, let deletable):
            checkpointIsDurable(position, bytes: bytes, deletable: deletable)
        case .none, .waiting, .writing:
            // The space was measured.
            break
        }
    }

    mutating func failed(_ token: OperationToken, _ refusal: Refusal) {
        switch phase {
        case .creating(token, let segment, let file):
            supply.creationFailed(segment.id, from: file)
            attemptFailed(refusal)
        case .writing(token, _):
            // Void, whatever the disk kept of it: the next header names the end before it.
            supply.gaveUp(segments[segments.count - 1].id)
            leaveActive(.givenUp)
            takeBackBatch()
            attemptFailed(refusal)
        case .idle, .creating, .writing:
            if case .writing(token, _, _, _) = checkpointing { checkpointFailed(refusal) }
        }
    }

    mutating func takeBackBatch() {
        pending.putBack(inFlight)
        inFlight = []
        inFlightBytes = 0
    }

    mutating func attemptFailed(_ refusal: Refusal) {
        phase = .idle
        if refusal == .noRoom { perform(supply.makeRoom(everything: false)) }
        if failures.attemptFailed(refusal, isLast: isClosing, at: latest) { events.append(.failed) }
    }

    // MARK: The end

    /// Flushes everything and notes in the log that it ended well; `isClosed` tells when that is durable.
    /// Nothing is appended afterwards. A checkpoint that is being written is waited for.
    package mutating func close(at now: Instant) {
        note(now)
        isClosing = true
        startBatchIfDue()
    }

    // MARK: What comes out

    /// Moves the operations to be carried out, in order, to the end of `list`.
    package mutating func takeOperations(into list: inout [DiskOperation]) {
        list.append(contentsOf: operations)
        operations.removeAll(keepingCapacity: true)
    }

    /// Moves the events to be told, in order, to the end of `list`.
    package mutating func takeEvents(into list: inout [StorageEvent]) {
        list.append(contentsOf: events)
        events.removeAll(keepingCapacity: true)
        if durable > toldDurable {
            toldDurable = durable
            list.append(.durable(upTo: durable))
        }
    }

    @discardableResult
    mutating func ask(_ action: DiskOperation.Action) -> OperationToken {
        lastToken += 1
        let token = OperationToken(lastToken)
        operations.append(DiskOperation(token: token, action: action))
        wear.note(action, at: latest)
        return token
    }
}

extension Record {
    /// About what it holds in memory: its messages, and something for everything else.
    fileprivate var memoryBytes: Int {
        switch self {
        case .message(let record): 64 + 64 * record.targets.count + record.message.bytes.count
        case .retained(let record): 64 + record.message.bytes.count
        case .sessionOpened(let opened): 64 + (opened.will?.message.bytes.count ?? 0)
        case .subscribed(_, let subscriptions): 64 + 64 * subscriptions.count
        case .unsubscribed(_, let filters): 64 + 64 * filters.count
        case .acknowledged(let settled): 64 + 8 * settled.settledAbove.count
        case .dropped(_, let deliveries, _), .returned(_, let deliveries): 64 + 8 * deliveries.count
        case .inboundHeld(_, let ids): 64 + 7 * ids.count
        case .queue(let queue): 64 + 24 * queue.entries.count
        case .profiled(_, let name): 64 + name.utf8.count
        case .sessionClosed, .wasOff, .sessionEnded, .inboundReleased, .inboundVoided, .outboundReceived,
            .assigned, .uplinkEstablished, .counters, .books, .lost:
            64
        }
    }
}
