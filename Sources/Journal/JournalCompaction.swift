import GatewayCore

// Compaction: what is still owed moves out of segments of which most is not.
extension Journal {
    /// Whether compaction has to know what is owed: the host then calls `compact`.
    package var wantsCompaction: Bool {
        hasActive && checkpointing == .none && !failures.isTroubled && !isClosing
            && compaction.wantsState(space, at: latest)
    }

    /// Tells compaction what is owed: of one segment whose index it has read, or about how much of each.
    ///
    /// - Parameter state: to which every Record that was appended has been applied.
    /// - Complexity: O(postings of one segment), or O(segments)
    package mutating func compact(by state: some CheckpointSource, at now: Instant) {
        note(now)
        guard wantsCompaction else { return }
        let situation = Compaction.Situation(
            complete: segments.dropLast(), fallback: checkpoints.dropLast().last?.position ?? .zero,
            usedBytes: space.usedBytes, isPressing: space.isPressing, last: last)
        compaction.take(state, situation, nextSegment: &nextSegment, at: latest)
        stepCompaction()
    }

    /// Nothing of it while a commit or a checkpoint waits or is under way.
    var mayCompact: Bool {
        phase == .idle && checkpointing == .none && hasActive && !failures.isTroubled && !isClosing
    }

    mutating func stepCompaction() {
        guard mayCompact, due == .nothing else { return }
        if supply.isIdle, !compaction.leaving.isEmpty {
            let left = compaction.takeLeft(reading.isReading)
            if !left.isEmpty { perform(supply.release(left, [], isShort: space.isPressing)) }
        }
        guard let action = compaction.step(durable: durable, space, at: latest) else { return }
        compaction.began(action, ask(action.disk), at: latest)
    }

    mutating func adopt(_ merged: Segment, for victims: Set<UInt64>) {
        compaction.leave(segments.replace(victims, by: merged))
        reading.forget(victims)
        space.usedBytes += merged.end
    }
}
