import GatewayCore
import MQTT

/// Where the batches of a complete segment begin, and which deliveries of which queues are in it.
///
/// Its size is bounded by the segment's: a target takes about as many bytes in its Record as here.
struct SegmentIndex: Hashable, Sendable {
    let segment: UInt64
    let stretch: Stretch
    /// First byte after the last batch: where the footer begins.
    let end: Int
    /// In rising order.
    fileprivate(set) var batches: [BatchPlace]
    /// In rising order of Sessions.
    fileprivate(set) var queues: [QueueList]
    /// The postings of all queues, one list behind the other; each as differences to the one before.
    fileprivate(set) var lists: [UInt8]
    fileprivate(set) var expiry: ExpirySpan
    /// Something was left out: a queue whose numbers are not known, or what could not be read.
    let isPartial: Bool

    struct BatchPlace: Hashable, Sendable {
        var first: Position
        var page: UInt32
    }

    struct QueueList: Hashable, Sendable {
        var session: SessionID
        var count: Int
        /// Of the messages in it.
        var messageBytes: Int
        /// In `lists`.
        var bytes: Range<Int>
    }

    init(
        segment: UInt64, stretch: Stretch, end: Int, batches: [BatchPlace], queues: [QueueList],
        lists: [UInt8], expiry: ExpirySpan, isPartial: Bool
    ) {
        self.segment = segment
        self.stretch = stretch
        self.end = end
        self.batches = batches
        self.queues = queues
        self.lists = lists
        self.expiry = expiry
        self.isPartial = isPartial
    }

    /// The same for a stretch that ends behind its last Record.
    func over(_ stretch: Stretch) -> SegmentIndex {
        SegmentIndex(
            segment: segment, stretch: stretch, end: end, batches: batches, queues: queues, lists: lists,
            expiry: expiry, isPartial: isPartial)
    }

    /// About what it holds in memory.
    var memoryBytes: Int { 16 * batches.count + 48 * queues.count + lists.count }

    /// The Sessions whose queues it knows.
    var sessions: [SessionID] { queues.map(\.session) }

    /// The bytes of the batch that holds `position`, if any does; damage may have made them too many.
    ///
    /// - Complexity: O(log batches)
    func place(of position: Position) -> Range<Int>? { batches.place(of: position, end: end) }

    /// What it knows of a queue within `stretch`, in order of position.
    ///
    /// - Complexity: O(log queues + the queue's postings)
    func postings(of session: SessionID, in stretch: Stretch) -> [Posting] {
        let low = queues.partitioningIndex { $0.session.number >= session.number }
        guard low < queues.count, queues[low].session == session else { return [] }
        var postings: [Posting] = []
        postings.reserveCapacity(queues[low].count)
        var reader = ByteReader(lists, queues[low].bytes)
        var posting = PostingCursor(self.stretch.first)
        do {
            while !reader.isAtEnd {
                let next = try posting.next(&reader)
                if stretch.contains(next.position) { postings.append(next) }
            }
        } catch {
            // Only what has another checksum than ours could bring us here; what came before still counts.
        }
        return postings
    }
}

extension SegmentIndex {
    /// The first and the last delivery that it knows of a queue, in order of position; nil when it knows none.
    ///
    /// - Complexity: O(the queue's postings)
    func span(of queue: QueueList) -> ClosedRange<Delivery>? {
        var reader = ByteReader(lists, queue.bytes)
        var cursor = PostingCursor(stretch.first)
        var span: ClosedRange<Delivery>?
        do {
            while !reader.isAtEnd {
                let next = try cursor.next(&reader).delivery
                span = min(span?.lowerBound ?? next, next)...max(span?.upperBound ?? next, next)
            }
        } catch {
            // As for `postings`.
        }
        return span
    }
}

/// From the earliest expiry of a segment's messages to the latest.
struct ExpirySpan: Hashable, Sendable {
    /// nil when none ever expires.
    var earliest: Instant?
    /// nil when one never expires.
    var latest: Instant? = Instant(milliseconds: 0)

    mutating func add(_ moment: Instant?) {
        guard let moment else {
            latest = nil
            return
        }
        earliest = min(earliest ?? moment, moment)
        latest = latest.map { max($0, moment) }
    }
}

extension [SegmentIndex.BatchPlace] {
    fileprivate func place(of position: Position, end: Int) -> Range<Int>? {
        let low = partitioningIndex { $0.first > position }
        guard low > 0 else { return nil }
        let start = Int(self[low - 1].page) * pageBytes
        let stop = low < count ? Int(self[low].page) * pageBytes : end
        return start < stop ? start..<stop : nil
    }
}

/// Walks the postings of one queue: each is written as differences to the one before.
private struct PostingCursor {
    private var delivery: UInt64 = 0
    private var position: UInt64

    init(_ first: Position) { position = first.number }

    mutating func next(_ reader: inout ByteReader) throws(DecodingError) -> Posting {
        delivery &+= try reader.integer()
        position &+= try reader.integer()
        let sizeAndQoS = try reader.integer()
        guard let qos = QoS(rawValue: UInt8(sizeAndQoS & 3)), let bytes = UInt32(exactly: sizeAndQoS >> 2),
            delivery < countableLimit, position < countableLimit
        else { throw .invalidField }
        return Posting(delivery: Delivery(delivery), position: Position(position), qos: qos, bytes: bytes)
    }

    mutating func append(_ posting: Posting, to bytes: inout [UInt8]) {
        bytes.append(integer: posting.delivery.number &- delivery)
        bytes.append(integer: posting.position.number &- position)
        bytes.append(integer: UInt64(posting.bytes) << 2 | UInt64(posting.qos.rawValue))
        delivery = posting.delivery.number
        position = posting.position.number
    }
}

/// Collects the index of a segment, batch by batch, as they become durable or are read.
struct IndexBuilder {
    let segment: UInt64
    private let first: Position
    private var last: Position
    private var end = pageBytes
    private var batches: [SegmentIndex.BatchPlace] = []
    private var queues: [Queue] = []
    private var placeOfQueue: [SessionID: Int] = [:]
    /// Of the queue that was added to last: in a busy log mostly the next message's, too.
    private var lastPlace = 0
    private var expiry = ExpirySpan()
    private var listBytes = 0
    /// Some batch was not added.
    var isPartial = false

    private struct Queue {
        let session: SessionID
        var bytes: [UInt8] = []
        var cursor: PostingCursor
        var count = 0
        var messageBytes = 0
        /// A message does not say which number it has in the queue: the index is of no use then.
        var lacksNumbers = false

        /// Returns the bytes it takes.
        mutating func add(_ target: MessageRecord.Target, at position: Position, size: Int) -> Int {
            guard let delivery = target.delivery else {
                lacksNumbers = true
                return 0
            }
            let before = bytes.count
            cursor.append(
                Posting(
                    delivery: delivery, position: position, qos: target.qos, bytes: UInt32(clamping: size)),
                to: &bytes)
            count += 1
            messageBytes += size
            return bytes.count - before
        }
    }

    init(segment: UInt64, first: Position) {
        self.segment = segment
        self.first = first
        last = Position(first.number - 1)
    }

    /// Notes a batch behind all others.
    mutating func add(_ header: BatchHeader, at offset: Int) {
        end = offset + header.totalLength
        guard header.recordCount > 0 else { return }
        last = max(last, header.last)
        batches.append(.init(first: header.first, page: UInt32(clamping: offset / pageBytes)))
    }

    /// Notes the Records of the batch that was added last; they are lent, and stay.
    mutating func add(_ slots: inout [PendingRecords.Slot]) {
        for i in slots.indices {
            slots[i].lend { record, position in add(record, at: position) }
        }
    }

    /// Notes a Record of the batch that was added last.
    ///
    /// - Complexity: O(targets)
    mutating func add(_ record: Record, at position: Position) {
        if case .message(let message) = record { add(message, at: position) }
    }

    private mutating func add(_ message: MessageRecord, at position: Position) {
        guard !message.targets.isEmpty else { return }
        expiry.add(message.expiresAt)
        let size = message.message.bytes.count
        message.targets.withUnsafeBufferPointer { targets in
            for i in targets.indices where !targets[i].session.isVolatile {
                listBytes += queues[place(of: targets[i].session)].add(targets[i], at: position, size: size)
            }
        }
    }

    private mutating func place(of session: SessionID) -> Int {
        if lastPlace < queues.count, queues[lastPlace].session == session { return lastPlace }
        lastPlace = placeOfQueue[session] ?? queues.count
        if lastPlace == queues.count {
            placeOfQueue[session] = lastPlace
            queues.append(Queue(session: session, cursor: PostingCursor(first)))
        }
        return lastPlace
    }

    /// What the footer will take, about, in whole pages.
    var footerBytes: Int {
        wholePages(Footer.headSize + listBytes + 8 * batches.count + 16 * queues.count)
    }

    /// The bytes of the batch that holds `position`, if any does.
    ///
    /// - Complexity: O(log batches)
    func place(of position: Position) -> Range<Int>? {
        position <= last ? batches.place(of: position, end: end) : nil
    }

    /// - Complexity: O(index + queues · log queues)
    var index: SegmentIndex {
        var lists: [UInt8] = []
        lists.reserveCapacity(listBytes)
        var found: [SegmentIndex.QueueList] = []
        for queue in queues.sorted(by: { $0.session.number < $1.session.number })
        where !queue.lacksNumbers {
            let start = lists.count
            lists.append(contentsOf: queue.bytes)
            found.append(
                .init(
                    session: queue.session, count: queue.count, messageBytes: queue.messageBytes,
                    bytes: start..<lists.count))
        }
        return SegmentIndex(
            segment: segment, stretch: Stretch(first: first, last: last), end: end, batches: batches,
            queues: found, lists: lists, expiry: expiry,
            isPartial: isPartial || queues.contains { $0.lacksNumbers })
    }
}
