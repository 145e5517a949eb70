import GatewayCore

/// The reads under way: one read of a batch answers every position in it that a request asked for, and one
/// event answers the whole request.
struct Loading {
    struct Request {
        let session: SessionID
        /// Whose share of the messages is wanted.
        let target: SessionID
        fileprivate var answers: [(Position, StoredMessage?)] = []
        fileprivate var reads: [Read] = []
        /// Reads without an answer.
        fileprivate var outstanding = 0

        init(session: SessionID, target: SessionID) {
            self.session = session
            self.target = target
        }

        mutating func answer(_ position: Position, _ record: Record?) {
            answers.append((position, Loading.message(in: record, for: target)))
        }

        mutating func want(_ position: Position, segment: UInt64, bytes: Range<Int>) {
            if let last = reads.last, last.segment == segment, last.bytes == bytes {
                reads[reads.count - 1].positions.append(position)
            } else {
                reads.append(Read(segment: segment, bytes: bytes, positions: [position]))
            }
        }
    }

    struct Read {
        let segment: UInt64
        let bytes: Range<Int>
        fileprivate var positions: [Position]
        fileprivate var request: UInt64 = 0
    }

    private var requests: [UInt64: Request] = [:]
    private var reads: [OperationToken: Read] = [:]
    private var lastRequest: UInt64 = 0

    /// Answers at once what needs no reading; otherwise returns the reads, which get tokens in their order
    /// from `firstToken` on.
    mutating func begin(_ request: Request, into events: inout [StorageEvent], firstToken: UInt64) -> [Read] {
        guard !request.reads.isEmpty else {
            events.append(.loaded(request.session, request.answers))
            return []
        }
        lastRequest += 1
        var request = request
        let needed = request.reads
        request.reads = []
        request.outstanding = needed.count
        requests[lastRequest] = request
        for (index, var read) in needed.enumerated() {
            read.request = lastRequest
            reads[OperationToken(firstToken + UInt64(index))] = read
        }
        return needed
    }

    /// Whether the completion was that of a read; if so it has been dealt with.
    mutating func completed(_ completion: DiskCompletion, store: StoreID, into events: inout [StorageEvent])
        -> Bool
    {
        guard let read = reads.removeValue(forKey: completion.token),
            var request = requests.removeValue(forKey: read.request)
        else { return false }
        switch completion.outcome {
        case .read(let bytes): Self.answer(&request, read, bytes, store)
        case .done, .failed: for position in read.positions { request.answer(position, nil) }
        }
        request.outstanding -= 1
        if request.outstanding == 0 {
            request.answers.sort { $0.0 < $1.0 }
            events.append(.loaded(request.session, request.answers))
        } else {
            requests[read.request] = request
        }
        return true
    }

    /// A batch is checked each time it is read: flash forgets.
    private static func answer(_ request: inout Request, _ read: Read, _ bytes: [UInt8], _ store: StoreID) {
        do {
            let header = try BatchHeader(decoding: bytes, at: 0, store: store, segment: read.segment)
            guard header.verifiesPayload(in: bytes, at: 0, store: store) else {
                throw DecodingError.wrongChecksum
            }
            for position in read.positions {
                request.answer(position, try header.record(at: position, in: bytes, at: 0))
            }
        } catch {
            let answered = Set(request.answers.map(\.0))
            for position in read.positions where !answered.contains(position) {
                request.answer(position, nil)
            }
        }
    }

    private static func message(in record: Record?, for session: SessionID) -> StoredMessage? {
        guard case .message(let message)? = record else { return nil }
        return StoredMessage(message, for: session)
    }
}
