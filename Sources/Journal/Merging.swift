import GatewayCore

/// What a segment holds that is owed to someone.
struct Owed {
    /// Of messages, in rising order.
    let positions: [Position]
    /// About what they take in a merged file.
    let bytes: Int
    /// The deliveries of them that are named in the index.
    let deliveries: Set<OwedDelivery>

    /// - Complexity: O(postings · log postings)
    init(_ index: SegmentIndex, _ state: some CheckpointSource) {
        var sizes: [Position: Int] = [:]
        var deliveries: Set<OwedDelivery> = []
        let strays = state.strayPositions(in: index.stretch)
        for session in index.sessions {
            for posting in index.postings(of: session, in: index.stretch) {
                let isOwed = state.needs(session, posting.delivery)
                guard isOwed || strays.contains(posting.position) else { continue }
                sizes[posting.position, default: Int(posting.bytes) + Self.overhead] += Self.perTarget
                if isOwed { deliveries.insert(OwedDelivery(session: session, delivery: posting.delivery)) }
            }
        }
        for position in strays where sizes[position] == nil { sizes[position] = Self.overhead }
        positions = sizes.keys.sorted()
        // Batches are padded to pages.
        bytes = sizes.values.reduce(0, +) / 8 * 9
        self.deliveries = deliveries
    }

    /// What is owed takes at least so much in a merged file, as far as that is seen without a look at every
    /// delivery: of the queue that says most, if all that the index knows of it is owed yet.
    ///
    /// - Complexity: O(bytes of the index)
    static func bytesAtLeast(_ index: SegmentIndex, _ state: some CheckpointSource) -> Int {
        var most = 0
        for queue in index.queues where queue.messageBytes > most {
            guard let span = index.span(of: queue), state.needsAll(queue.session, span) else { continue }
            most = queue.messageBytes + queue.count * (overhead + perTarget)
        }
        return most / 8 * 9
    }

    private static let overhead = 32
    /// In the Record and in the footer.
    private static let perTarget = 16
}

struct OwedDelivery: Hashable {
    var session: SessionID
    var delivery: Delivery
}

/// One merged file in the making: it is gathered in memory, at most about half a segment, and then written.
struct Merge {
    let id: UInt64
    let victims: [Segment]
    /// Those whose index is still to be read; the last comes first.
    private var unread: [Segment]
    private var reads: [Read] = []
    private var deliveries: Set<OwedDelivery> = []
    private var builder: MergedBuilder
    private(set) var isSealed = false
    /// What is left out was settled by Records up to here, which must be durable before the victims go.
    var provenAt = Position.zero
    /// The file, once it is sealed.
    private(set) var output: [UInt8] = []
    /// How much of it is on the disk.
    var written = 0

    private struct Read {
        let segment: Segment
        var bytes: Range<Int>
        var batches: [(bytes: Range<Int>, positions: [Position])]
    }

    private static let readBytes = 256 << 10

    /// - Parameter victims: neighbours, in rising order, each with whether nothing in it is owed.
    init(_ id: UInt64, _ victims: [(segment: Segment, isDead: Bool)], store: StoreID) {
        self.id = id
        self.victims = victims.map(\.segment)
        unread = victims.reversed().compactMap { $0.isDead ? nil : $0.segment }
        builder = MergedBuilder(id, first: self.victims.first?.first ?? .zero.next, store: store)
    }

    private var victimBytes: Int { victims.reduce(0) { $0 + $1.end } }

    /// As the journal knows it once it is durable.
    var segment: Segment {
        var segment = Segment(
            id: id, first: builder.first, capacity: output.count, fileBytes: output.count)
        segment.isMerged = true
        segment.last = victims.last?.last ?? segment.last
        segment.end = builder.end
        return segment
    }

    /// Waits for the log to be durable.
    func isWritten(awaiting durable: Position) -> Bool { isSealed && durable < provenAt }

    mutating func nextVictim() -> Segment? { reads.isEmpty ? unread.popLast() : nil }

    /// Where to read next.
    var nextRead: (Segment, Range<Int>)? { reads.first.map { ($0.segment, $0.bytes) } }

    /// Notes what of a victim is to be kept; false when its index does not say where that is, or puts it before what
    /// an earlier victim holds.
    mutating func plan(_ segment: Segment, _ owed: Owed, _ index: SegmentIndex, provenAt: Position) -> Bool {
        guard !index.isPartial, owed.positions.first.map({ builder.takes($0) }) ?? true else { return false }
        self.provenAt = max(self.provenAt, provenAt)
        deliveries = owed.deliveries
        for position in owed.positions {
            guard let place = index.place(of: position) else { return false }
            if let last = reads.indices.last, reads[last].bytes.upperBound >= place.upperBound {
                reads[last].batches[reads[last].batches.count - 1].positions.append(position)
            } else if let last = reads.indices.last, reads[last].bytes.upperBound == place.lowerBound,
                place.upperBound - reads[last].bytes.lowerBound <= Self.readBytes
            {
                reads[last].bytes = reads[last].bytes.lowerBound..<place.upperBound
                reads[last].batches.append((place, [position]))
            } else {
                reads.append(Read(segment: segment, bytes: place, batches: [(place, [position])]))
            }
        }
        return true
    }

    /// Takes what was read; false when it is not what the index promised.
    mutating func received(_ bytes: [UInt8], _ range: Range<Int>, store: StoreID) -> Bool {
        guard let read = reads.first, read.bytes == range, bytes.count == range.count else { return false }
        reads.removeFirst()
        for batch in read.batches {
            let start = batch.bytes.lowerBound - range.lowerBound
            do {
                let header = try BatchHeader(
                    decoding: bytes, at: start, offset: batch.bytes.lowerBound, store: store,
                    segment: read.segment.id)
                guard header.verifiesPayload(in: bytes, at: start, store: store) else { return false }
                let wanted = Set(batch.positions)
                var kept = 0
                try header.records(in: bytes, at: start) { record, position in
                    guard wanted.contains(position), case .message = record else { return }
                    builder.add(record, at: position, from: header, owed: deliveries)
                    kept += 1
                }
                guard kept == wanted.count else { return false }
            } catch {
                return false
            }
        }
        return true
    }

    /// Ends the file; false when it would take more than it frees.
    mutating func seal(store: StoreID) -> Bool {
        guard !isSealed else { return true }
        isSealed = true
        output = builder.sealed(last: victims.last?.last ?? .zero)
        return 2 * output.count <= victimBytes
    }
}

/// Puts Records into batches at the positions they have.
private struct MergedBuilder {
    let first: Position
    private let id: UInt64
    private let store: StoreID
    private var bytes = [UInt8](repeating: 0, count: pageBytes)
    private var index: IndexBuilder
    private var batch = BatchBuilder()
    private var records: [(Record, Position)] = []
    /// The batch that the first Record was in.
    private var source: BatchHeader?
    private var clock = Instant(milliseconds: 0)
    private var boot: UInt32 = 0
    private var lastKept: Position
    /// First byte after the last batch.
    private(set) var end = pageBytes

    /// Messages are read back by whole batches.
    private static let batchBytes = 32 << 10
    /// Empty Records cost less than a page up to here.
    private static let gapMax: UInt64 = 1024

    init(_ id: UInt64, first: Position, store: StoreID) {
        self.id = id
        self.first = first
        self.store = store
        lastKept = Position(first.number - 1)
        index = IndexBuilder(segment: id, first: first)
    }

    /// Whether `position` lies behind all that was added.
    func takes(_ position: Position) -> Bool { position > max(lastKept, records.last?.1 ?? lastKept) }

    mutating func add(
        _ record: Record, at position: Position, from source: BatchHeader, owed: Set<OwedDelivery>
    ) {
        let gap = records.last.map { position.number - $0.1.number - 1 } ?? 0
        if gap > Self.gapMax || !batch.add(record, behind: Int(gap), limit: Self.batchBytes) {
            flush()
            _ = batch.add(record, limit: .max)
        }
        if records.isEmpty { self.source = source }
        records.append((record.owed(owed), position))
        clock = max(clock, source.clock)
        boot = max(boot, source.boot)
    }

    private mutating func flush() {
        guard let first = records.first?.1, let last = records.last?.1, let source else { return }
        // No evidence: that stands where it was first written.
        let stamp = BatchStamp(
            store: store, segment: id, offset: bytes.count, first: first, durableBefore: lastKept,
            clock: source.clock, boot: source.boot, wall: WallReading(milliseconds: 0, isTrusted: false))
        let (header, encoded) = batch.sealed(stamp)
        index.add(header, at: bytes.count)
        for (record, position) in records { index.add(record, at: position) }
        bytes += encoded
        end = bytes.count
        lastKept = last
        batch = BatchBuilder()
        records = []
    }

    /// The whole file.
    mutating func sealed(last: Position) -> [UInt8] {
        flush()
        let found = index.index.over(Stretch(first: first, last: last))
        bytes += Footer.encoded(found, store: store)
        var header = SegmentHeader(
            store: store, segment: id,
            predecessor: SegmentEnd(segment: 0, offset: 0, last: Position(first.number - 1)), clock: clock,
            boot: boot)
        header.merged = .init(last: last, end: UInt64(end))
        bytes.replaceSubrange(0..<pageBytes, with: header.encoded)
        defer { bytes = [] }
        return bytes
    }
}

extension Record {
    /// A message with the targets that are still owed it, and those of which that is not known.
    fileprivate func owed(_ deliveries: Set<OwedDelivery>) -> Record {
        guard case .message(var message) = self else { return self }
        message.targets.removeAll { target in
            guard let delivery = target.delivery else { return false }
            return !deliveries.contains(OwedDelivery(session: target.session, delivery: delivery))
        }
        return .message(message)
    }
}
