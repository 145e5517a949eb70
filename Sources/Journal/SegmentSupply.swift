import GatewayCore

/// Where files for segments come from and what becomes of those that nobody needs: kept as free files where
/// overwriting costs less than appending, deleted elsewhere. It also keeps the reserve.
///
/// What it wants done comes out as work for the disk; nothing of it may fail the log. What could not be deleted
/// is tried again later, and until then counts as used.
struct SegmentSupply {
    /// What the disk is asked besides writing the log.
    enum Work: Equatable {
        case delete([Refuse])
        case retire([Segment])
        case makeReserve

        func action(_ plan: JournalPlan) -> DiskOperation.Action {
            switch self {
            case .delete(let refuse): .delete(refuse.map(\.file))
            case .retire(let segments): .retire(segments.map(\.id))
            case .makeReserve: .makeReserve(.reserve, bytes: plan.reserveBytes)
            }
        }
    }

    /// A file to be deleted, and what it counts for.
    struct Refuse: Equatable {
        let file: StoreFile
        let bytes: Int
    }

    private enum Reserve {
        case absent, present
        /// The disk was full: its bytes went to what had to be written.
        case givenUp
    }

    private let plan: JournalPlan
    let recycles: Bool
    /// In the order in which they became free.
    private var free: [FreeSegment]
    /// What is left of failed attempts, and what is too much.
    private var refuse: [Refuse] = []
    /// Segments that were given up because of an error: their blocks are not trusted with others.
    private var doubtful: Set<UInt64> = []
    private var reserve: Reserve
    private var underWay: [OperationToken: Work] = [:]
    private var backOff = BackOff()
    /// Of the reserve: where a quota has no room for it, each attempt writes all of it for nothing.
    private var reserveBackOff = BackOff(longestMilliseconds: 600_000)

    init(plan: JournalPlan, recovered: RecoveredLog) {
        self.plan = plan
        recycles = recovered.recycles
        let usable = recycles ? recovered.free.filter(plan.isRecyclable).prefix(plan.freeSegmentsMax) : []
        free = Array(usable)
        for file in recovered.free where !free.contains(file) {
            refuse.append(Refuse(file: .free(file.id), bytes: 0))
        }
        refuse += recovered.leftOver.map { Refuse(file: $0, bytes: 0) }
        reserve = recovered.hasReserve ? .present : .absent
        if recovered.hasReserve, plan.reserveBytes == 0 {
            refuse.append(Refuse(file: .reserve, bytes: 0))
            reserve = .absent
        }
    }

    var isIdle: Bool { underWay.isEmpty }
    /// Bytes that a segment can have although the file system calls them taken.
    var freeBytes: Int { free.reduce(0) { $0 + $1.bytes } }
    /// Whether what the reserve is for cannot be counted on: it was given up, or there is no room to make it. A restart
    /// knows only that it is not there.
    ///
    /// - Parameter hasRoom: whether there is room for it and some more.
    func lacksReserve(hasRoom: Bool) -> Bool {
        switch reserve {
        case .present: false
        case .givenUp: true
        case .absent: plan.reserveBytes > 0 && !hasRoom
        }
    }

    // MARK: Files for segments

    /// A file with room for `bytes`, if there is one; it is the caller's then.
    mutating func take(_ bytes: Int) -> FreeSegment? {
        guard let index = free.firstIndex(where: { $0.bytes >= bytes }) else { return nil }
        return free.remove(at: index)
    }

    /// The segment was not created; whatever is there of it goes.
    mutating func creationFailed(_ id: UInt64, from file: FreeSegment?) {
        refuse.append(Refuse(file: .segment(id), bytes: 0))
        if let file { refuse.append(Refuse(file: .free(file.id), bytes: 0)) }
    }

    mutating func gaveUp(_ id: UInt64) { doubtful.insert(id) }

    // MARK: Work

    /// What is to be done with segments and other files that nobody needs.
    ///
    /// - Parameter isShort: there is little room: nothing is kept for later.
    mutating func release(_ segments: [Segment], _ files: [Refuse], isShort: Bool) -> [Work] {
        var kept: [Segment] = []
        for segment in segments {
            let file = FreeSegment(id: segment.id, bytes: segment.fileBytes)
            let isDoubtful = doubtful.remove(segment.id) != nil
            if recycles, !isShort, !isDoubtful, !segment.isMerged,
                free.count + kept.count < plan.freeSegmentsMax,
                plan.isRecyclable(file)
            {
                kept.append(segment)
            } else {
                refuse.append(Refuse(file: segment.file, bytes: segment.end))
            }
        }
        refuse += files
        var work: [Work] = kept.isEmpty ? [] : [.retire(kept)]
        work += takeRefuse()
        return work
    }

    /// The disk is full: the reserve is given up, and with `everything` the free files too.
    ///
    /// - Returns: nothing when there is nothing left to give.
    mutating func makeRoom(everything: Bool) -> [Work] {
        if reserve == .present {
            reserve = .givenUp
            refuse.append(Refuse(file: .reserve, bytes: 0))
        }
        if everything { giveUpFreeFiles() }
        return takeRefuse()
    }

    private mutating func giveUpFreeFiles() {
        refuse += free.map { Refuse(file: .free($0.id), bytes: 0) }
        free = []
    }

    private mutating func takeRefuse() -> [Work] {
        guard !refuse.isEmpty else { return [] }
        defer { refuse = [] }
        return [.delete(refuse)]
    }

    /// What failed before, or was never done.
    ///
    /// - Parameter hasRoom: whether there is room for the reserve and some more.
    mutating func dueWork(at now: Instant, hasRoom: Bool) -> [Work] {
        guard underWay.isEmpty, backOff.allows(now) else { return [] }
        if !refuse.isEmpty { return takeRefuse() }
        let isDue = plan.reserveBytes > 0 && reserve != .present && hasRoom && reserveBackOff.allows(now)
        return isDue ? [.makeReserve] : []
    }

    /// When `dueWork` has something that no completion brings. The reserve waits for space to be measured.
    var nextDeadline: Instant? { underWay.isEmpty && !refuse.isEmpty ? backOff.next : nil }

    mutating func began(_ work: Work, _ token: OperationToken) { underWay[token] = work }

    /// Whether the completion was that of work.
    ///
    /// - Returns: how many used bytes that freed; nil when it was something else.
    mutating func completed(_ completion: DiskCompletion, at now: Instant) -> Int? {
        guard let work = underWay.removeValue(forKey: completion.token) else { return nil }
        if case .failed(let number) = completion.outcome {
            failed(work, Refusal(errorNumber: number), at: now)
            return 0
        }
        backOff.succeeded()
        switch work {
        case .delete(let refuse):
            return refuse.reduce(0) { $0 + $1.bytes }
        case .retire(let segments):
            free += segments.map { FreeSegment(id: $0.id, bytes: $0.fileBytes) }
            return segments.reduce(0) { $0 + $1.end }
        case .makeReserve:
            reserve = .present
            reserveBackOff.succeeded()
            return 0
        }
    }

    private mutating func failed(_ work: Work, _ refusal: Refusal, at now: Instant) {
        switch work {
        case .delete(let files):
            backOff.failed(at: now)
            refuse += files
        case .retire(let segments):
            backOff.failed(at: now)
            // Some may have their new names.
            for segment in segments {
                refuse.append(Refuse(file: .segment(segment.id), bytes: segment.end))
                refuse.append(Refuse(file: .free(segment.id), bytes: 0))
            }
        case .makeReserve:
            reserveBackOff.failed(at: now)
            guard refusal == .noRoom else { return }
            // The file system has room in free files only, or says nothing of a quota.
            reserve = .givenUp
            giveUpFreeFiles()
        }
    }
}

extension JournalPlan {
    /// Whether a file is worth keeping: one that is nearly as large as a segment, and not much larger.
    func isRecyclable(_ file: FreeSegment) -> Bool {
        file.bytes >= segmentBytes / 2 && file.bytes <= segmentBytes * 2
    }
}
