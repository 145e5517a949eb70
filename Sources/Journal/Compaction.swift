import GatewayCore

/// Takes what is still owed out of segments that are mostly not, so that a few messages for an absent client do not
/// pin all that came between them.
///
/// Victims are complete segments before the fallback checkpoint of which at most half is owed. Neighbours become one
/// merged file, which is not longer than half of them: each byte that is written frees at least one, so that all
/// compaction together writes no more than the log did. It is written bit by bit under a temporary name, while no
/// commit is under way, and the victims go only when it is durable under its own; until then they stand for
/// themselves. Whatever fails on the way costs the attempt and nothing else.
struct Compaction {
    private let plan: JournalPlan
    private let store: StoreID
    /// Of segments before the fallback checkpoint, by number.
    private var surveys: [UInt64: Survey] = [:]
    private var unsurveyed: [Segment] = []
    private var fetch: Fetch?
    /// Waits for the state to say what of it is owed.
    private var found: SegmentIndex?
    private var merge: Merge?
    /// What an attempt that failed left, and must be gone before the next.
    private var discarded: [StoreFile] = []
    private var underWay: (token: OperationToken, action: Action)?
    private var backOff = BackOff()
    /// Before that the flash is left alone.
    private var nextStep: Instant
    private var nextLook: Instant
    /// A host that does not tell the state at present is not reminded before that.
    private var reminder: Instant
    /// Segments that a merged file replaced, until nobody reads them.
    private(set) var leaving: [Segment] = []

    /// How much of a segment was owed when its index was looked at: it only becomes less.
    private struct Survey {
        /// About what it takes in a merged file; 0 only where nothing at all is owed.
        var liveBytes: Int
        /// What the state counted then.
        var owed: Int
        /// What was settled then is durable when the log is up to here.
        var provenAt: Position

        /// Whether enough was settled since to look again.
        func isStale(_ owedNow: Int) -> Bool { owedNow > owed || owedNow < owed && owedNow * 8 <= owed * 7 }
    }

    private struct Fetch {
        let segment: Segment
        var progress: IndexFetch
        var wanted: Range<Int>
    }

    /// What is asked of the disk.
    enum Action {
        case readIndex(Segment, Range<Int>)
        case readMessages(Segment, Range<Int>)
        case writePart(UInt64, offset: Int, bytes: [UInt8])
        case publish(UInt64)
        case delete([StoreFile])

        var disk: DiskOperation.Action {
            switch self {
            case .readIndex(let segment, let bytes), .readMessages(let segment, let bytes):
                .read(segment.file, offset: bytes.lowerBound, count: bytes.count)
            case .writePart(let id, let offset, let bytes):
                .writePart(.mergedPart(id), offset: offset, bytes: bytes)
            case .publish(let id): .publish(.merged(id), from: .mergedPart(id))
            case .delete(let files): .delete(files)
            }
        }

        /// What it takes of the rate, in bytes: flash is read faster than written, and not worn.
        var cost: Int {
            switch self {
            case .readIndex(_, let bytes), .readMessages(_, let bytes): bytes.count / 4
            case .writePart(_, _, let bytes): bytes.count
            case .publish, .delete: pageBytes
            }
        }
    }

    enum Outcome {
        case notOurs, ours
        /// The merged file is durable and stands for these segments.
        case merged(Segment, Set<UInt64>)
    }

    /// What the journal knows when it asks for the next step.
    struct Situation {
        /// In rising order, all but the one being written.
        var complete: ArraySlice<Segment>
        /// A restart reads the older of the two checkpoints at worst.
        var fallback: Position
        var usedBytes: Int
        /// Publishers wait for room, which is all that others have left of the file system, perhaps, and far below the
        /// log's own limit.
        var isPressing: Bool
        var last: Position
    }

    private static let partBytes = 256 << 10

    init(plan: JournalPlan, store: StoreID, at now: Instant) {
        self.plan = plan
        self.store = store
        nextStep = now
        nextLook = now
        reminder = now
    }

    // MARK: What is owed

    private func isWorthLooking(_ space: SpaceWatch) -> Bool {
        space.isPressing || space.usedBytes > plan.compactionSlackBytes
            || space.usedBytes > plan.compactionHighWaterBytes
    }

    private var isResting: Bool {
        fetch == nil && found == nil && merge == nil && discarded.isEmpty && unsurveyed.isEmpty
            && underWay == nil
    }

    /// Whether `take(_:_:)` has something to do.
    func wantsState(_ space: SpaceWatch, at now: Instant) -> Bool {
        guard nextStep <= now else { return false }
        return found != nil || isResting && nextLook <= now && isWorthLooking(space)
    }

    /// - Complexity: O(postings of one segment), or O(segments) for a look at all of them
    mutating func take(
        _ state: some CheckpointSource, _ situation: Situation, nextSegment: inout UInt64, at now: Instant
    ) {
        if let index = found {
            found = nil
            judge(index, state, situation.last, at: now)
        } else if isResting {
            look(state, situation, nextSegment: &nextSegment, at: now)
        }
    }

    private mutating func judge(
        _ index: SegmentIndex, _ state: some CheckpointSource, _ last: Position, at now: Instant
    ) {
        guard let segment = fetch?.segment else { return }
        fetch = nil
        if merge != nil {
            guard merge?.plan(segment, Owed(index, state), index, provenAt: last) == true else {
                return giveUp(at: now, because: .unreadable)
            }
            return
        }
        surveys[segment.id] = Survey(
            liveBytes: index.isPartial ? segment.end : min(liveBytes(segment, index, state), segment.end),
            owed: state.owedCount(in: index.stretch), provenAt: last)
        if unsurveyed.isEmpty { nextLook = now }
    }

    /// While a backlog grows everything in it is owed, and its segments come to be judged as fast as they fill: who
    /// looked at each delivery then would take a tenth of all time. A bound of 0 says nothing: a short segment is worth
    /// no merging by itself, and goes with its neighbours.
    private func liveBytes(_ segment: Segment, _ index: SegmentIndex, _ state: some CheckpointSource) -> Int {
        let atLeast = Owed.bytesAtLeast(index, state)
        return atLeast == 0 || isWorth(atLeast, segment.end) ? Owed(index, state).bytes : atLeast
    }

    private mutating func look(
        _ state: some CheckpointSource, _ situation: Situation, nextSegment: inout UInt64, at now: Instant
    ) {
        nextLook = now.advanced(byMilliseconds: plan.compactionLookMilliseconds)
        let candidates = situation.complete.filter {
            $0.stretch != nil && $0.last <= situation.fallback && $0.end <= 2 * plan.segmentBytes
        }
        var known: [UInt64: Survey] = [:]
        var liveBytes = 0
        for segment in candidates {
            guard let stretch = segment.stretch else { continue }
            guard let survey = surveys[segment.id], !survey.isStale(state.owedCount(in: stretch)) else {
                unsurveyed.append(segment)
                continue
            }
            known[segment.id] = survey
            liveBytes += survey.liveBytes
        }
        surveys = known
        guard unsurveyed.isEmpty else { return }
        let isDue =
            situation.usedBytes > 2 * liveBytes + plan.compactionSlackBytes
            || situation.usedBytes > plan.compactionHighWaterBytes || situation.isPressing
        guard isDue, let victims = victims(among: situation.complete) else { return }
        merge = Merge(nextSegment, victims.map { ($0, surveys[$0.id]?.liveBytes == 0) }, store: store)
        merge?.provenAt = victims.compactMap { surveys[$0.id]?.provenAt }.max() ?? situation.last
        nextSegment += 1
    }

    /// The one of which least is owed, with neighbours.
    private func victims(among complete: ArraySlice<Segment>) -> ArraySlice<Segment>? {
        func isVictim(_ segment: Segment) -> Bool {
            surveys[segment.id].map { isWorth($0.liveBytes, segment.end) } ?? false
        }
        func share(_ segment: Segment) -> Double {
            Double(surveys[segment.id]?.liveBytes ?? segment.end) / Double(segment.end)
        }
        let seed = complete.indices.filter { isVictim(complete[$0]) }
            .min { share(complete[$0]) < share(complete[$1]) }
        guard let seed else { return nil }
        var range = seed...seed
        var live = surveys[complete[seed].id]?.liveBytes ?? 0
        func extend(to place: Int) -> Bool {
            guard complete.indices.contains(place), let more = surveys[complete[place].id]?.liveBytes,
                isVictim(complete[place]) || complete[place].end <= plan.segmentBytes / 8,
                live + more <= plan.segmentBytes / 2
            else { return false }
            let grown = min(place, range.lowerBound)...max(place, range.upperBound)
            guard isWorth(live + more, complete[grown].reduce(0) { $0 + $1.end }) else { return false }
            range = grown
            live += more
            return true
        }
        while extend(to: range.upperBound + 1) {}
        while extend(to: range.lowerBound - 1) {}
        return complete[range]
    }

    /// A header, a footer and the messages take at most half of what they are taken from.
    private func isWorth(_ liveBytes: Int, _ bytes: Int) -> Bool { 2 * (liveBytes + 2 * pageBytes) <= bytes }

    // MARK: Steps

    /// When `step` may have something that no completion brings.
    func nextDeadline(_ space: SpaceWatch, durable: Position) -> Instant? {
        guard underWay == nil else { return nil }
        if isResting { return isWorthLooking(space) ? max(nextLook, nextStep, reminder) : nil }
        if found != nil { return max(nextStep, reminder) }
        if let merge, merge.isWritten(awaiting: durable) { return nil }
        return nextStep
    }

    /// The next thing to be done, if it may be done now.
    mutating func step(durable: Position, _ space: SpaceWatch, at now: Instant) -> Action? {
        guard underWay == nil, nextStep <= now else { return nil }
        if found != nil || isResting && nextLook <= now {
            reminder = now.advanced(byMilliseconds: 1_000)
            return nil
        }
        if !discarded.isEmpty { return .delete(discarded) }
        if fetch == nil { beginFetch() }
        if let fetch { return .readIndex(fetch.segment, fetch.wanted) }
        guard merge != nil else { return nil }
        if let (segment, bytes) = merge?.nextRead { return .readMessages(segment, bytes) }
        guard merge?.seal(store: store) == true else {
            giveUp(at: now, because: .worthless)
            return nil
        }
        guard let merge, durable >= merge.provenAt else { return nil }
        // Most of what is left may go into it: twice as much comes back.
        guard merge.written > 0 || space.leaves(plan.segmentBytes / 8, behind: merge.output.count) else {
            nextStep = now.advanced(byMilliseconds: plan.compactionLookMilliseconds)
            return nil
        }
        guard merge.written < merge.output.count else { return .publish(merge.id) }
        let end = min(merge.written + Self.partBytes, merge.output.count)
        return .writePart(merge.id, offset: merge.written, bytes: Array(merge.output[merge.written..<end]))
    }

    private mutating func beginFetch() {
        let next: Segment?
        if merge != nil { next = merge?.nextVictim() } else { next = unsurveyed.popLast() }
        guard let next else { return }
        let progress = IndexFetch(next, store: store)
        fetch = Fetch(segment: next, progress: progress, wanted: progress.firstRead)
    }

    mutating func began(_ action: Action, _ token: OperationToken, at now: Instant) {
        underWay = (token, action)
        nextStep = now.advanced(
            byMilliseconds: UInt64(action.cost * 1000 / max(plan.compactionBytesPerSecond, 1)))
    }

    /// - Parameter isWritable: the log can be written at present.
    mutating func completed(_ completion: DiskCompletion, isWritable: Bool, at now: Instant) -> Outcome {
        guard let underWay, underWay.token == completion.token else { return .notOurs }
        self.underWay = nil
        var bytes: [UInt8]?
        var isRefused = false
        switch completion.outcome {
        case .read(let read): bytes = read
        case .failed: isRefused = true
        case .done: break
        }
        switch underWay.action {
        case .readIndex:
            answered(completion.outcome, isWritable: isWritable, at: now)
        case .readMessages(_, let range):
            if merge?.received(bytes ?? [], range, store: store) != true {
                giveUp(at: now, because: .unreadable)
            }
        case .writePart(let id, _, let part):
            guard !isRefused else {
                giveUp(at: now, because: .refused([.mergedPart(id)]))
                break
            }
            merge?.written += part.count
        case .publish(let id):
            guard !isRefused, let merge else {
                // The name may have changed all the same.
                giveUp(at: now, because: .refused([.mergedPart(id), .merged(id)]))
                break
            }
            self.merge = nil
            backOff.succeeded()
            nextLook = now
            return .merged(merge.segment, Set(merge.victims.map(\.id)))
        case .delete:
            if isRefused {
                backOff.failed(at: now)
                nextStep = backOff.next ?? now
            } else {
                discarded = []
            }
        }
        return .ours
    }

    private mutating func answered(_ outcome: DiskCompletion.Outcome, isWritable: Bool, at now: Instant) {
        guard var current = fetch else { return }
        fetch = nil
        switch current.progress.answered(outcome, isWritable: isWritable, at: now) {
        case .read(let range): current.wanted = range
        case .later(let range, let pause):
            current.wanted = range
            nextStep = max(nextStep, now.advanced(byMilliseconds: pause))
        case .found(let index): found = index
        }
        fetch = current
    }

    private enum Failure {
        /// Something cannot be read or does not verify: those segments are best left alone.
        case unreadable
        /// It takes more than it frees.
        case worthless
        /// The disk would not write; what there is of these files goes first.
        case refused([StoreFile])
    }

    private mutating func giveUp(at now: Instant, because failure: Failure) {
        guard let failed = merge else { return }
        merge = nil
        switch failure {
        case .unreadable, .worthless:
            for victim in failed.victims { surveys[victim.id]?.liveBytes = victim.end }
            nextLook = now
        case .refused(let files):
            discarded = files
            backOff.failed(at: now)
            nextStep = backOff.next ?? now
            nextLook = nextStep
        }
    }

    // MARK: Afterwards

    /// These segments are gone: nothing in them was owed.
    mutating func forget(_ gone: Set<UInt64>) {
        unsurveyed.removeAll { gone.contains($0.id) }
        if let merge {
            // What is written already stands for them as well as for the others.
            guard !merge.isSealed, merge.victims.contains(where: { gone.contains($0.id) }) else { return }
            self.merge = nil
            fetch = nil
            found = nil
        } else if let current = fetch, gone.contains(current.segment.id) {
            fetch = nil
            found = nil
        }
    }

    mutating func leave(_ segments: [Segment]) { leaving += segments }

    /// Those that nobody reads any more.
    mutating func takeLeft(_ isRead: (UInt64) -> Bool) -> [Segment] {
        let left = leaving.filter { !isRead($0.id) }
        leaving.removeAll { !isRead($0.id) }
        return left
    }
}

extension [Segment] {
    /// Puts a merged file in the place of those that it stands for; returns them. Some may be gone already.
    ///
    /// - Complexity: O(segments)
    mutating func replace(_ victims: Set<UInt64>, by merged: Segment) -> [Segment] {
        let replaced = filter { victims.contains($0.id) }
        removeAll { victims.contains($0.id) }
        insert(merged, at: firstIndex { $0.first > merged.first } ?? count)
        return replaced
    }
}

extension SpaceWatch {
    /// Whether the file system would have `reserve` bytes free behind `bytes` more.
    func leaves(_ reserve: Int, behind bytes: Int) -> Bool { freeBytes.map { $0 >= bytes + reserve } ?? true }
}

extension JournalPlan {
    var compactionHighWaterBytes: Int { sizeLimitBytes / 4 * 3 }
}
