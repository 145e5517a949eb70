import GatewayCore

/// The index of a complete segment as it stands behind its last batch, in whole pages.
///
/// It is written without a sync of its own. One that is torn or rots costs a scan of its segment and nothing
/// else, because it says nothing that the batches do not.
enum Footer {
    static let headSize = 80
    private static let magic: UInt32 = 0x5446_4754  // "TGFT"
    private static let partialFlag: UInt64 = 1
    /// A longer body is not believed, nor one so many times as long as what it is the index of.
    private static let bodyMax = 64 << 20
    private static let bodyRatioMax = 8

    /// What is known without the body.
    struct Head: Hashable {
        var segment: UInt64
        var stretch: Stretch
        /// Where the footer itself stands.
        var end: Int
        var expiry: ExpirySpan
        var isPartial: Bool
        var bodyLength: Int
        fileprivate var bodyChecksum: UInt32
        /// In bytes, with padding.
        var totalLength: Int { wholePages(Footer.headSize + bodyLength) }
    }

    // MARK: Writing

    /// - Complexity: O(index)
    static func encoded(_ index: SegmentIndex, store: StoreID) -> [UInt8] {
        let body = encodedBody(index)
        let seed = Checksum.seed(store, index.segment, offset: index.end)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(wholePages(headSize + body.count))
        bytes.append(fixed: magic)
        bytes.append(fixed: UInt32(0))
        bytes.append(fixed: UInt32(body.count))
        bytes.append(fixed: Checksum.of(body, 0..<body.count, seed: seed))
        bytes.append(fixed: index.segment)
        bytes.append(fixed: UInt64(index.end))
        bytes.append(fixed: index.stretch.first.number)
        bytes.append(fixed: index.stretch.last.number)
        bytes.append(fixed: index.expiry.earliest?.milliseconds ?? .max)
        bytes.append(fixed: index.expiry.latest?.milliseconds ?? .max)
        bytes.append(fixed: index.isPartial ? partialFlag : 0)
        bytes.append(fixed: UInt64(0))
        bytes.put(Checksum.of(bytes, 8..<headSize, seed: seed), at: 4)
        bytes.append(contentsOf: body)
        bytes.pad(to: pageBytes)
        return bytes
    }

    private static func encodedBody(_ index: SegmentIndex) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(integer: UInt64(index.batches.count))
        var page: UInt32 = 0
        var position = index.stretch.first.number
        for batch in index.batches {
            bytes.append(integer: UInt64(batch.page - page))
            bytes.append(integer: batch.first.number - position)
            page = batch.page
            position = batch.first.number
        }
        bytes.append(integer: UInt64(index.queues.count))
        var session: UInt64 = 0
        for queue in index.queues {
            bytes.append(integer: queue.session.number - session)
            bytes.append(integer: UInt64(queue.count))
            bytes.append(integer: UInt64(queue.messageBytes))
            bytes.append(integer: UInt64(queue.bytes.count))
            session = queue.session.number
        }
        bytes.append(contentsOf: index.lists)
        return bytes
    }

    // MARK: Reading

    /// The head that stands at `offset` of the segment and at `start` of `bytes`.
    static func head(
        _ bytes: [UInt8], at start: Int, offset: Int, store: StoreID, segment: UInt64
    ) throws(DecodingError) -> Head {
        guard start >= 0, start <= bytes.count - headSize else { throw .truncated }
        var reader = ByteReader(bytes, start..<start + headSize)
        guard try reader.fixed(UInt32.self) == magic else { throw .wrongMagic }
        let seed = Checksum.seed(store, segment, offset: offset)
        guard try reader.fixed(UInt32.self) == Checksum.of(bytes, start + 8..<start + headSize, seed: seed)
        else { throw .wrongChecksum }
        let length = Int(try reader.fixed(UInt32.self))
        let checksum = try reader.fixed(UInt32.self)
        let number = try reader.fixed(UInt64.self)
        let end = try reader.fixed(UInt64.self)
        let first = try reader.fixed(UInt64.self)
        let last = try reader.fixed(UInt64.self)
        let earliest = try reader.fixed(UInt64.self)
        let latest = try reader.fixed(UInt64.self)
        let flags = try reader.fixed(UInt64.self)
        guard number == segment, end == UInt64(offset), first > 0, first <= last, last < countableLimit,
            length <= min(bodyMax, bodyRatioMax * offset)
        else { throw .invalidField }
        return Head(
            segment: number, stretch: Stretch(first: Position(first), last: Position(last)), end: offset,
            expiry: ExpirySpan(
                earliest: earliest == .max ? nil : Instant(milliseconds: earliest),
                latest: latest == .max ? nil : Instant(milliseconds: latest)),
            isPartial: flags & partialFlag != 0, bodyLength: length, bodyChecksum: checksum)
    }

    /// The index behind `head`, which stands at the start of `bytes`.
    ///
    /// - Complexity: O(bytes)
    static func index(_ head: Head, _ bytes: [UInt8], store: StoreID) throws(DecodingError) -> SegmentIndex {
        guard head.bodyLength <= bytes.count - headSize else { throw .truncated }
        let body = headSize..<headSize + head.bodyLength
        let seed = Checksum.seed(store, head.segment, offset: head.end)
        guard Checksum.of(bytes, body, seed: seed) == head.bodyChecksum else { throw .wrongChecksum }
        var reader = ByteReader(bytes, body)
        let batches = try batches(&reader, head)
        let queues = try queues(&reader)
        let length = queues.last?.bytes.upperBound ?? 0
        let lists = Array(try reader.take(length))
        guard reader.isAtEnd else { throw .trailingBytes }
        return SegmentIndex(
            segment: head.segment, stretch: head.stretch, end: head.end, batches: batches, queues: queues,
            lists: lists, expiry: head.expiry, isPartial: head.isPartial)
    }

    private static func batches(
        _ reader: inout ByteReader, _ head: Head
    ) throws(DecodingError) -> [SegmentIndex.BatchPlace] {
        var batches: [SegmentIndex.BatchPlace] = []
        var page: UInt64 = 0
        var position = head.stretch.first.number
        for _ in 0..<(try reader.length()) {
            let pages = try reader.integer(as: UInt32.self)
            let positions = try reader.integer()
            page += UInt64(pages)
            guard pages > 0, page * UInt64(pageBytes) < UInt64(head.end),
                positions <= head.stretch.last.number - position, let number = UInt32(exactly: page)
            else { throw .invalidField }
            position += positions
            batches.append(.init(first: Position(position), page: number))
        }
        return batches
    }

    private static func queues(_ reader: inout ByteReader) throws(DecodingError) -> [SegmentIndex.QueueList] {
        var queues: [SegmentIndex.QueueList] = []
        var session: UInt64 = 0
        var start = 0
        for _ in 0..<(try reader.length()) {
            let difference = try reader.integer()
            let count = try reader.integer(as: Int.self)
            let messageBytes = try reader.integer(as: Int.self)
            let length = try reader.length()
            // A posting has three bytes at least.
            guard difference < countableLimit, session + difference < countableLimit, count <= length / 3
            else { throw .invalidField }
            session += difference
            queues.append(
                .init(
                    session: SessionID(session), count: count, messageBytes: messageBytes,
                    bytes: start..<start + length))
            start += length
        }
        return queues
    }
}
