import GatewayCore

// Checkpoints: a restart reads the newest instead of the log before it, and then segments may go in which nothing is
// owed.
extension Journal {
    /// Whether the log has grown enough for a checkpoint, or is full and a checkpoint may free some of it.
    package var wantsCheckpoint: Bool {
        guard checkpointing == .none, supply.isIdle, !hasFailed, !isClosing, lastKept > coveredPosition,
            checkpointBackOff.allows(latest)
        else { return false }
        return isPressureCheckpointDue || hasGrown
    }

    private var hasGrown: Bool {
        // What acknowledges an old backlog comes before anything of it can go, and may come fast.
        if space.isPressing, grownBytes >= space.growthUnderPressure { return true }
        let due = max(
            plan.checkpointGrowthBytes, plan.checkpointGrowthFactor * (checkpoints.last?.bytes ?? 0))
        return grownBytes >= due || grownSegments >= plan.checkpointSegments
    }

    /// Begins the checkpoint that is wanted. One that is wanted only to make room, while no segment is owed to nobody and
    /// the log has hardly grown, waits ever longer, up to 32 times as long: all that is in a full log may be owed for
    /// days (promise P7). It comes in the end, because compaction goes by checkpoints too.
    ///
    /// - Complexity: O(state)
    package mutating func beginWantedCheckpoint(of state: some CheckpointSource, at now: Instant) {
        note(now)
        guard wantsCheckpoint else { return }
        // What was written since the last one takes of the room that is kept free until a segment can go.
        let isWorthwhile =
            hasGrown || grownBytes >= space.growthUnderPressure / 4
            || completeSegments.contains { !$0.isOwed(by: state) }
        if isWorthwhile {
            vainLooksMax = 1
        } else {
            vainLooks += 1
            guard vainLooks >= vainLooksMax else {
                checkpointedAt = latest
                return
            }
            vainLooksMax = min(vainLooksMax * 2, 32)
        }
        vainLooks = 0
        beginCheckpoint(of: state, at: now)
    }

    private var completeSegments: ArraySlice<Segment> { hasActive ? segments.dropLast() : segments[...] }

    var isPressureCheckpointDue: Bool {
        space.isPressing
            && latest.milliseconds(since: checkpointedAt) >= plan.pressureCheckpointMilliseconds
    }

    /// Whether one more Record, whatever it says, lets the next checkpoint free what the last one had to leave.
    ///
    /// A segment is deleted only when a second checkpoint covers it, and under pressure nothing may come that
    /// would make a second one different from the first. The journal invents no Records, because the core counts
    /// them too: when this is true the host has the core append one that changes nothing, and then looks at
    /// `wantsCheckpoint`, which is true at once. It is so at most once for each checkpoint that left something.
    package var wantsRecord: Bool {
        let hasComplete = segments.count > (hasActive ? 1 : 0)
        return isPressureCheckpointDue && hasComplete && leftNeedlessSegments && lastKept == coveredPosition
            && checkpointing == .none && supply.isIdle && !hasFailed && !isClosing
    }

    /// The last Record that is written or will be.
    var lastKept: Position { pending.last ?? inFlight.last?.position ?? written }

    /// Up to where a restart reads a checkpoint instead of the log.
    package var coveredPosition: Position { checkpoints.last?.position ?? .zero }

    /// Writes a checkpoint of `state`, to which every Record that was appended has been applied, and deletes
    /// what is not needed any more: segments that lie wholly before the checkpoint before this one (which stays,
    /// in case this one is damaged) and in which nothing is owed. Does nothing while one is being written.
    ///
    /// - Complexity: O(state)
    package mutating func beginCheckpoint(of state: some CheckpointSource, at now: Instant) {
        note(now)
        guard checkpointing == .none, supply.isIdle, !hasFailed, !isClosed else { return }
        let complete = completeSegments
        // Behind it there is nothing but what was elided, and the log goes on in the same place without it.
        let position = lastKept
        let header = CheckpointHeader(
            position: position, clock: latest, boot: boot, nextSegment: nextSegment, anchor: anchor,
            segments: complete.map { SegmentRow($0) }, uptime: uptime, unproven: unproven, wear: wear)
        var builder = CheckpointBuilder(header, store: store)
        state.snapshot { builder.add($0) }
        // One at this very position is about to be replaced, and is no fallback for what replaces it.
        let fallback = checkpoints.last { $0.position < position }?.position ?? .zero
        leftNeedlessSegments = false
        var deletable: [UInt64] = []
        for segment in complete {
            if segment.isOwed(by: state) { continue }
            if segment.last <= fallback {
                deletable.append(segment.id)
            } else {
                leftNeedlessSegments = true
            }
        }
        checkpointing = .waiting(position, builder.sealed(), deletable: deletable)
        coveredGrowth = (grownBytes, grownSegments)
        checkpointedAt = latest
        advanceCheckpoint()
        startBatchIfDue()
    }

    /// The log first, then the checkpoint that stands for it.
    mutating func advanceCheckpoint() {
        guard case .waiting(let position, let bytes, let deletable) = checkpointing, durable >= position
        else {
            return
        }
        let token = ask(.writeCheckpoint(.checkpoint(position.number), bytes: bytes))
        checkpointing = .writing(token, position, bytes: bytes.count, deletable: deletable)
    }

    mutating func checkpointIsDurable(_ position: Position, bytes: Int, deletable: [UInt64]) {
        if checkpoints.last?.position == position {
            space.usedBytes -= checkpoints.removeLast().bytes
        }
        checkpoints.append(.init(position: position, bytes: bytes))
        space.usedBytes += bytes
        grownBytes -= coveredGrowth.bytes
        grownSegments -= coveredGrowth.segments
        checkpointing = .none
        checkpointBackOff.succeeded()
        let gone = Set(deletable)
        reading.forget(gone)
        compaction.forget(gone)
        let needless = segments.filter { gone.contains($0.id) }
        segments.removeAll { gone.contains($0.id) }
        let old = checkpoints.dropLast(2).map {
            SegmentSupply.Refuse(file: .checkpoint($0.position.number), bytes: $0.bytes)
        }
        checkpoints.removeFirst(old.count)
        perform(supply.release(needless, old, isShort: space.isPressing))
    }

    /// A checkpoint that cannot be written is no reason to stop: the log behind the last one grows meanwhile.
    mutating func checkpointFailed(_ refusal: Refusal) {
        checkpointing = .none
        checkpointBackOff.failed(at: latest)
        if refusal == .noRoom { perform(supply.makeRoom(everything: true)) }
    }

    mutating func dueWork() -> [SegmentSupply.Work] {
        guard !isClosing, !failures.isTroubled else { return [] }
        return supply.dueWork(at: latest, hasRoom: hasBegun && space.hasRoom(for: plan.reserveBytes))
    }

    mutating func perform(_ work: [SegmentSupply.Work]) {
        for part in work { supply.began(part, ask(part.action(plan))) }
    }
}

extension Segment {
    /// - Complexity: that of `owes`
    fileprivate func isOwed(by state: some CheckpointSource) -> Bool {
        first <= last && state.owes(from: first, through: last)
    }
}
