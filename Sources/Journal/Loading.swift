import GatewayCore

/// The messages that are being read back: one read answers every position in it that a request asked for, and
/// one event answers the whole request.
///
/// Neighbouring batches are read together, so that a long queue of small batches is not drained page by page.
struct Loading {
    struct Request {
        let session: SessionID
        /// Whose share of the messages is wanted.
        let target: SessionID
        fileprivate var answers: [(Position, StoredMessage?)] = []
        fileprivate var reads: [Read] = []
        /// Reads without an answer, and segments without an index.
        fileprivate var outstanding = 0
        /// What cannot be found before the index of its segment is there.
        fileprivate var unplaced: [UInt64: [Position]] = [:]

        init(session: SessionID, target: SessionID) {
            self.session = session
            self.target = target
        }

        mutating func answer(_ position: Position, _ record: Record?) {
            answers.append((position, Loading.message(in: record, for: target)))
        }

        /// - Parameter bytes: of the batch that holds it; nil when none does.
        mutating func want(_ position: Position, segment: UInt64, bytes: Range<Int>?) {
            guard let bytes else { return answer(position, nil) }
            guard let last = reads.last, last.segment == segment,
                reads[reads.count - 1].takes(position, bytes)
            else {
                reads.append(Read(segment: segment, position, bytes))
                return
            }
        }

        mutating func await(_ position: Position, segment: UInt64) {
            unplaced[segment, default: []].append(position)
        }

        /// In rising order.
        var awaitedSegments: [UInt64] { unplaced.keys.sorted() }
    }

    struct Read {
        let segment: UInt64
        private(set) var bytes: Range<Int>
        fileprivate var batches: [Batch]
        fileprivate var request: UInt64 = 0
        fileprivate var patience = Patience.whole

        fileprivate struct Batch {
            let bytes: Range<Int>
            var positions: [Position]
        }

        /// Read-ahead of one queue, in bytes; a larger batch is read alone.
        private static let bytesMax = 64 << 10
        /// What is read in vain between two batches costs less than a read of its own.
        private static let gapMax = 16 << 10

        fileprivate init(segment: UInt64, _ position: Position, _ bytes: Range<Int>) {
            self.segment = segment
            self.bytes = bytes
            batches = [Batch(bytes: bytes, positions: [position])]
        }

        /// Whether the batch of this position is read with those before it.
        fileprivate mutating func takes(_ position: Position, _ batch: Range<Int>) -> Bool {
            if batches[batches.count - 1].bytes == batch {
                batches[batches.count - 1].positions.append(position)
                return true
            }
            guard batch.lowerBound >= bytes.upperBound, batch.lowerBound - bytes.upperBound <= Self.gapMax,
                batch.upperBound - bytes.lowerBound <= Self.bytesMax
            else { return false }
            bytes = bytes.lowerBound..<batch.upperBound
            batches.append(Batch(bytes: batch, positions: [position]))
            return true
        }

        fileprivate var positions: [Position] { batches.flatMap(\.positions) }

        /// A read of its own for each batch: one bad page shall not cost its neighbours. nil where it is of one only.
        fileprivate var alone: [Read]? {
            batches.count < 2
                ? nil
                : batches.map { batch in
                    var read = self
                    read.bytes = batch.bytes
                    read.batches = [batch]
                    return read
                }
        }
    }

    private var requests: [UInt64: Request] = [:]
    private var reads: [OperationToken: Read] = [:]
    private var postponed = Postponed<Read>()
    /// The segment in which patience ended last: what else the disk refuses there has little, so that a segment that is
    /// not to be read does not keep its queues waiting a minute for every few of its messages.
    private var givenUp: UInt64?
    private var lastRequest: UInt64 = 0

    /// Answers at once what needs no reading; otherwise returns the reads to be made now.
    mutating func begin(_ request: Request, into events: inout [StorageEvent]) -> [Read] {
        var request = request
        takeOver(whatIsAskedAgainBy: &request)
        guard !request.reads.isEmpty || !request.unplaced.isEmpty else {
            events.append(.loaded(request.session, request.answers))
            return []
        }
        lastRequest += 1
        request.outstanding = request.unplaced.count
        return start(&request, lastRequest)
    }

    /// Who asks for a position twice does not wait for the first answer any more: a receiver that comes and goes while the
    /// disk refuses leaves no reads behind, and its patience goes on.
    private mutating func takeOver(whatIsAskedAgainBy request: inout Request) {
        guard !postponed.items.isEmpty else { return }
        var stale: Set<UInt64> = []
        for old in postponed.items.map(\.item) where requests[old.request]?.session == request.session {
            let positions = Set(old.positions)
            for index in request.reads.indices
            where request.reads[index].positions.contains(where: positions.contains) {
                request.reads[index].patience = old.patience
                stale.insert(old.request)
            }
        }
        postponed.removeAll { stale.contains($0.request) }
        for number in stale { requests[number] = nil }
    }

    private mutating func start(_ request: inout Request, _ number: UInt64) -> [Read] {
        var started = request.reads
        for index in started.indices { started[index].request = number }
        request.outstanding += started.count
        request.reads = []
        requests[number] = request
        return started
    }

    /// Whether something of this segment is still to be read.
    ///
    /// - Complexity: O(requests)
    func isReading(_ segment: UInt64) -> Bool {
        reads.values.contains { $0.segment == segment }
            || postponed.items.contains { $0.item.segment == segment }
            || requests.values.contains { $0.unplaced[segment] != nil }
    }

    /// Notes which operation makes a read.
    mutating func expect(_ read: Read, _ token: OperationToken) { reads[token] = read }

    /// The index of a segment is there: returns the reads that waited for it.
    ///
    /// - Complexity: O(requests · log requests)
    mutating func arrived(_ index: SegmentIndex, into events: inout [StorageEvent]) -> [Read] {
        var started: [Read] = []
        for number in requests.keys.sorted() {
            guard var request = requests[number],
                let positions = request.unplaced.removeValue(forKey: index.segment)
            else { continue }
            for position in positions {
                request.want(position, segment: index.segment, bytes: index.place(of: position))
            }
            request.outstanding -= 1
            started += start(&request, number)
            finishIfAnswered(number, into: &events)
        }
        return started
    }

    /// When a read is due that the disk has refused.
    var nextAttempt: Instant? { postponed.next }

    /// The reads that are to be tried again now.
    mutating func due(at now: Instant) -> [Read] { postponed.takeDue(at: now) }

    /// What to read next; nil when the completion was not that of a read.
    ///
    /// - Parameter isWritable: the log can be written at present.
    mutating func completed(
        _ completion: DiskCompletion, store: StoreID, isWritable: Bool, at now: Instant,
        into events: inout [StorageEvent]
    ) -> [Read]? {
        guard var read = reads.removeValue(forKey: completion.token) else { return nil }
        guard var request = requests.removeValue(forKey: read.request) else { return [] }
        switch completion.outcome {
        case .read(let bytes):
            Self.answer(&request, read, bytes, store)
        case .failed(let number):
            let refusal = ReadRefusal(errorNumber: number)
            if refusal != .ofTheSystem, let alone = read.alone {
                request.reads = alone
                break
            }
            if givenUp == read.segment, read.patience == .whole { read.patience = .short }
            if let pause = read.patience.refused(refusal, isWritable: isWritable, at: now) {
                postponed.add(read, at: now.advanced(byMilliseconds: pause))
                // Not answered yet.
                requests[read.request] = request
                return []
            }
            if refusal == .ofTheMedium { givenUp = read.segment }
            for position in read.positions { request.answer(position, nil) }
        case .done:
            for position in read.positions { request.answer(position, nil) }
        }
        request.outstanding -= 1
        let again = start(&request, read.request)
        finishIfAnswered(read.request, into: &events)
        return again
    }

    private mutating func finishIfAnswered(_ number: UInt64, into events: inout [StorageEvent]) {
        guard let request = requests[number], request.outstanding == 0 else { return }
        requests[number] = nil
        events.append(.loaded(request.session, request.answers.sorted { $0.0 < $1.0 }))
    }

    /// A batch is checked each time it is read: flash forgets.
    private static func answer(_ request: inout Request, _ read: Read, _ bytes: [UInt8], _ store: StoreID) {
        for batch in read.batches {
            let start = batch.bytes.lowerBound - read.bytes.lowerBound
            for (position, record) in records(batch, read.segment, bytes, start, store) {
                request.answer(position, record)
            }
        }
    }

    private static func records(
        _ batch: Read.Batch, _ segment: UInt64, _ bytes: [UInt8], _ start: Int, _ store: StoreID
    ) -> [(Position, Record?)] {
        do {
            let header = try BatchHeader(
                decoding: bytes, at: start, offset: batch.bytes.lowerBound, store: store, segment: segment)
            guard header.verifiesPayload(in: bytes, at: start, store: store) else {
                throw DecodingError.wrongChecksum
            }
            return try batch.positions.map { position throws(DecodingError) in
                (position, try header.record(at: position, in: bytes, at: start))
            }
        } catch {
            return batch.positions.map { ($0, nil) }
        }
    }

    private static func message(in record: Record?, for session: SessionID) -> StoredMessage? {
        guard case .message(let message)? = record else { return nil }
        return StoredMessage(message, for: session)
    }
}
