import GatewayCore

/// Everything that is read while the gateway runs: messages, and the indexes of complete segments that lead to
/// them. A few indexes stay in memory, so that neither a start nor a long backlog costs memory for each segment.
struct Reading {
    private let store: StoreID
    private var loading = Loading()
    /// Those used last, the most recent one last.
    private var kept: [SegmentIndex] = []
    private var fetches: [UInt64: Fetch] = [:]
    private var tokens: [OperationToken: UInt64] = [:]
    /// Of indexes.
    private var postponed = Postponed<(segment: UInt64, bytes: Range<Int>)>()

    /// So many, or so many bytes of them, whichever is less; the last one stays in any case.
    private static let keptMax = 8
    private static let keptBytesMax = 4 << 20

    private struct Fetch {
        var progress: IndexFetch
        var pages: [(session: SessionID, stretch: Stretch)] = []
    }

    /// What is to be asked of the disk.
    enum Read {
        case messages(Loading.Read)
        case index(segment: UInt64, bytes: Range<Int>)

        var segment: UInt64 {
            switch self {
            case .messages(let read): read.segment
            case .index(let segment, _): segment
            }
        }

        var bytes: Range<Int> {
            switch self {
            case .messages(let read): read.bytes
            case .index(_, let bytes): bytes
            }
        }
    }

    init(store: StoreID) { self.store = store }

    // MARK: Asking

    /// Begins to load `positions`, all of which are in `segments` if anywhere.
    ///
    /// - Parameter active: the index of the segment that is still written to.
    /// - Complexity: O(positions · log segments)
    mutating func load(
        _ request: Loading.Request, _ positions: [Position], in segments: [Segment], active: IndexBuilder?,
        into events: inout [StorageEvent]
    ) -> [Read] {
        var request = request
        for position in positions {
            guard let segment = segments.holding(position) else {
                request.answer(position, nil)
                continue
            }
            if let active, active.segment == segment.id {
                request.want(position, segment: segment.id, bytes: active.place(of: position))
            } else if let index = index(of: segment.id) {
                request.want(position, segment: segment.id, bytes: index.place(of: position))
            } else {
                request.await(position, segment: segment.id)
            }
        }
        var reads: [Read] = []
        for id in request.awaitedSegments {
            guard let segment = segments.last(where: { $0.id == id }) else { continue }
            if let read = fetch(segment) { reads.append(read) }
        }
        return loading.begin(request, into: &events).map { .messages($0) } + reads
    }

    /// Begins to find what the index of `segment` knows of a queue.
    mutating func page(
        _ session: SessionID, _ stretch: Stretch, of segment: Segment, into events: inout [StorageEvent]
    ) -> [Read] {
        if let index = index(of: segment.id) {
            events.append(.indexed(session, stretch, index.postings(of: session, in: stretch)))
            return []
        }
        let read = fetch(segment)
        fetches[segment.id]?.pages.append((session, stretch))
        return read.map { [$0] } ?? []
    }

    /// Notes which operation makes a read.
    mutating func expect(_ read: Read, _ token: OperationToken) {
        switch read {
        case .messages(let read): loading.expect(read, token)
        case .index(let segment, _): tokens[token] = segment
        }
    }

    /// nil when one is on its way.
    private mutating func fetch(_ segment: Segment) -> Read? {
        guard fetches[segment.id] == nil else { return nil }
        let progress = IndexFetch(segment, store: store)
        fetches[segment.id] = Fetch(progress: progress)
        return .index(segment: segment.id, bytes: progress.firstRead)
    }

    // MARK: Indexes in memory

    private mutating func index(of segment: UInt64) -> SegmentIndex? {
        guard let place = kept.lastIndex(where: { $0.segment == segment }) else { return nil }
        let index = kept.remove(at: place)
        kept.append(index)
        return index
    }

    mutating func keep(_ index: SegmentIndex) {
        kept.removeAll { $0.segment == index.segment }
        kept.append(index)
        while kept.count > Self.keptMax
            || kept.count > 1 && kept.reduce(0, { $0 + $1.memoryBytes }) > Self.keptBytesMax
        {
            kept.removeFirst()
        }
    }

    /// Whether something of this segment is still to be read.
    func isReading(_ segment: UInt64) -> Bool { fetches[segment] != nil || loading.isReading(segment) }

    /// These segments are gone.
    mutating func forget(_ segments: Set<UInt64>) { kept.removeAll { segments.contains($0.segment) } }

    // MARK: What was refused

    /// When a read is due that the disk has refused.
    var nextAttempt: Instant? {
        guard let ofIndexes = postponed.next else { return loading.nextAttempt }
        return loading.nextAttempt.map { min($0, ofIndexes) } ?? ofIndexes
    }

    /// The reads that are to be tried again now.
    mutating func due(at now: Instant) -> [Read] {
        loading.due(at: now).map { .messages($0) }
            + postponed.takeDue(at: now).map { .index(segment: $0.segment, bytes: $0.bytes) }
    }

    // MARK: Answers

    /// What to read next; nil when the completion was not that of a read.
    ///
    /// - Parameter isWritable: the log can be written at present.
    mutating func completed(
        _ completion: DiskCompletion, isWritable: Bool, at now: Instant, into events: inout [StorageEvent]
    ) -> [Read]? {
        if let again = loading.completed(
            completion, store: store, isWritable: isWritable, at: now, into: &events)
        {
            return again.map { .messages($0) }
        }
        guard let segment = tokens.removeValue(forKey: completion.token) else { return nil }
        guard var fetch = fetches.removeValue(forKey: segment) else { return [] }
        switch fetch.progress.answered(completion.outcome, isWritable: isWritable, at: now) {
        case .read(let range):
            fetches[segment] = fetch
            return [.index(segment: segment, bytes: range)]
        case .later(let range, let pause):
            fetches[segment] = fetch
            postponed.add((segment, range), at: now.advanced(byMilliseconds: pause))
            return []
        case .found(let index):
            keep(index)
            for page in fetch.pages {
                let postings = index.postings(of: page.session, in: page.stretch)
                events.append(.indexed(page.session, page.stretch, postings))
            }
            return loading.arrived(index, into: &events).map { .messages($0) }
        }
    }
}

extension [Segment] {
    /// The segment that holds `position`, if any does.
    ///
    /// - Complexity: O(log segments)
    func holding(_ position: Position) -> Segment? {
        let low = partitioningIndex { $0.first > position }
        // Several segments may begin at one position when a boot wrote nothing; the last of them holds it.
        guard low > 0, position <= self[low - 1].last else { return nil }
        return self[low - 1]
    }
}
