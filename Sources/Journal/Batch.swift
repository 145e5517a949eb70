import GatewayCore

/// What the wall clock said, which is evidence and never a deadline.
package struct WallReading: Hashable, Sendable {
    /// Since 1970.
    package var milliseconds: Int64
    /// The kernel says that it is synchronised.
    package var isTrusted: Bool

    package init(milliseconds: Int64, isTrusted: Bool) {
        self.milliseconds = milliseconds
        self.isTrusted = isTrusted
    }
}

/// The first 64 bytes of a batch: what one `pwrite` and one `fdatasync` make durable together. It has a
/// checksum of its own, so that it can be believed when the payload cannot. Both hold only where it was written: a
/// page in the place of another verifies no more than one that rots.
package struct BatchHeader: Hashable, Sendable {
    package var segment: UInt64
    /// Where it stands in its file, in bytes. It is not written; the checksums tell.
    package let offset: Int
    package var first: Position
    /// The last Record written before this batch, which was durable by then. Positions between it and `first` were
    /// elided.
    package var durableBefore: Position
    package var clock: Instant
    package var boot: UInt32
    package var recordCount: UInt16
    package var isCleanShutdown: Bool
    package var wall: WallReading
    /// In bytes, without header and padding.
    package var payloadLength: UInt32
    package var payloadChecksum: UInt32

    package static let size = 64
    private static let magic: UInt32 = 0x5442_4754  // "TGBT"
    private static let trustedFlag: UInt16 = 1
    private static let cleanShutdownFlag: UInt16 = 2

    /// The last Record in it; the one before `first` when it holds none.
    package var last: Position { Position(first.number + UInt64(recordCount) - 1) }
    /// With header and padding, in bytes: where the next batch begins.
    package var totalLength: Int { wholePages(Self.size + Int(payloadLength)) }

    /// The header that stands at `offset` of the segment and at `start` of `bytes`.
    ///
    /// - Parameter bytes: at least `size` bytes from `start` on, or it is `.truncated`.
    package init(decoding bytes: [UInt8], at start: Int, offset: Int, store: StoreID, segment: UInt64)
        throws(DecodingError)
    {
        guard start >= 0, start <= bytes.count - Self.size else { throw .truncated }
        var reader = ByteReader(bytes, start..<start + Self.size)
        guard try reader.fixed(UInt32.self) == Self.magic else { throw .wrongMagic }
        let seed = Checksum.seed(store, segment, offset: offset)
        guard try reader.fixed(UInt32.self) == Checksum.of(bytes, start + 8..<start + Self.size, seed: seed)
        else {
            throw .wrongChecksum
        }
        self.offset = offset
        payloadLength = try reader.fixed(UInt32.self)
        payloadChecksum = try reader.fixed(UInt32.self)
        self.segment = try reader.fixed(UInt64.self)
        first = Position(try reader.fixed(UInt64.self))
        durableBefore = Position(try reader.fixed(UInt64.self))
        clock = Instant(milliseconds: try reader.fixed(UInt64.self))
        boot = try reader.fixed(UInt32.self)
        recordCount = try reader.fixed(UInt16.self)
        let flags = try reader.fixed(UInt16.self)
        isCleanShutdown = flags & Self.cleanShutdownFlag != 0
        wall = WallReading(
            milliseconds: try reader.fixed(Int64.self), isTrusted: flags & Self.trustedFlag != 0)
        // A checksum proves that we wrote it, but arithmetic on what comes from a disk is checked all the same.
        guard self.segment == segment, durableBefore < first, first.number < countableLimit,
            clock.milliseconds < countableLimit
        else { throw .invalidField }
    }

    fileprivate init(
        _ stamp: BatchStamp, recordCount: UInt16, payloadLength: UInt32, payloadChecksum: UInt32
    ) {
        segment = stamp.segment
        offset = stamp.offset
        first = stamp.first
        durableBefore = stamp.durableBefore
        clock = stamp.clock
        boot = stamp.boot
        self.recordCount = recordCount
        isCleanShutdown = stamp.isCleanShutdown
        wall = stamp.wall
        self.payloadLength = payloadLength
        self.payloadChecksum = payloadChecksum
    }

    fileprivate func encoded(seed: UInt32) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.size)
        bytes.append(fixed: Self.magic)
        bytes.append(fixed: UInt32(0))
        bytes.append(fixed: payloadLength)
        bytes.append(fixed: payloadChecksum)
        bytes.append(fixed: segment)
        bytes.append(fixed: first.number)
        bytes.append(fixed: durableBefore.number)
        bytes.append(fixed: clock.milliseconds)
        bytes.append(fixed: boot)
        bytes.append(fixed: recordCount)
        bytes.append(
            fixed: (wall.isTrusted ? Self.trustedFlag : 0) | (isCleanShutdown ? Self.cleanShutdownFlag : 0))
        bytes.append(fixed: wall.milliseconds)
        bytes.put(Checksum.of(bytes, 8..<Self.size, seed: seed), at: 4)
        return bytes
    }
}

/// What a batch says besides its Records, and where it is to stand.
package struct BatchStamp: Hashable, Sendable {
    package var store: StoreID
    package var segment: UInt64
    /// In the segment's file, in bytes: it verifies nowhere else.
    package var offset: Int
    package var first: Position
    package var durableBefore: Position
    package var clock: Instant
    package var boot: UInt32
    package var wall: WallReading
    package var isCleanShutdown: Bool

    package init(
        store: StoreID, segment: UInt64, offset: Int, first: Position, durableBefore: Position,
        clock: Instant, boot: UInt32, wall: WallReading, isCleanShutdown: Bool = false
    ) {
        self.store = store
        self.segment = segment
        self.offset = offset
        self.first = first
        self.durableBefore = durableBefore
        self.clock = clock
        self.boot = boot
        self.wall = wall
        self.isCleanShutdown = isCleanShutdown
    }
}

/// Collects Records until they fill a batch.
package struct BatchBuilder {
    /// Header's place, then the framed Records.
    private var bytes: [UInt8]
    package private(set) var recordCount = 0
    /// Of them, and the bytes of their payloads.
    private(set) var messageCount = 0
    private(set) var payloadBytes = 0
    /// Where the last Record of a topic stands that does nothing but set the retained message.
    private var replaceable: [[UInt8]: Range<Int>] = [:]
    /// Records that one behind them makes void, and the bytes that leaving them out saves.
    private var superseded: [Range<Int>] = []
    private var savedBytes = 0

    /// - Parameter expected: about so many bytes will come.
    package init(expecting expected: Int = 0) {
        bytes = []
        bytes.reserveCapacity(wholePages(BatchHeader.size + expected))
        bytes.append(contentsOf: repeatElement(0, count: BatchHeader.size))
    }

    /// With header and padding, in bytes.
    package var totalLength: Int { wholePages(bytes.count - savedBytes) }

    /// Adds `record` when the batch then has at most `limit` bytes, padding included; says whether it did.
    ///
    /// - Parameter elided: so many positions before it have no Record.
    /// - Complexity: O(bytes of the Record + elided)
    package mutating func add(_ record: Record, behind elided: Int = 0, limit: Int) -> Bool {
        guard recordCount < Int(UInt16.max) - elided else { return false }
        let before = bytes.count
        for _ in 0..<elided { bytes.append(contentsOf: RecordCodec.emptyFrame) }
        let framed = bytes.count
        RecordCodec.frame(record, into: &bytes)
        guard totalLength <= limit else {
            bytes.removeLast(bytes.count - before)
            return false
        }
        recordCount += elided + 1
        if case .message(let message) = record {
            messageCount += 1
            payloadBytes += message.message.payload.count
            if message.retained != .none { supersede(message, framed..<bytes.count) }
        }
        return true
    }

    /// Of the values that a retained message has within one batch nobody ever sees any but the last: a batch counts
    /// as a whole or not at all.
    private mutating func supersede(_ message: MessageRecord, _ place: Range<Int>) {
        let topic = Array(message.message.topic)
        if let old = replaceable[topic], old.count > RecordCodec.emptyFrame.count {
            superseded.append(old)
            savedBytes += old.count - RecordCodec.emptyFrame.count
        }
        let isOnlyRetained =
            message.targets.isEmpty && message.inboundID == nil && message.willOf == nil
        replaceable[topic] = isOnlyRetained ? place : nil
    }

    /// Writes an empty Record in the place of each that is superseded.
    private mutating func leaveOutSuperseded() {
        guard !superseded.isEmpty else { return }
        var kept: [UInt8] = []
        kept.reserveCapacity(bytes.count)
        var place = 0
        for range in superseded.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            kept.append(contentsOf: bytes[place..<range.lowerBound])
            kept.append(contentsOf: RecordCodec.emptyFrame)
            place = range.upperBound
        }
        kept.append(contentsOf: bytes[place...])
        bytes = kept
    }

    /// The batch as it is written, whole pages.
    package consuming func sealed(_ stamp: BatchStamp) -> (header: BatchHeader, bytes: [UInt8]) {
        leaveOutSuperseded()
        let seed = Checksum.seed(stamp.store, stamp.segment, offset: stamp.offset)
        let end = bytes.count
        precondition(end - BatchHeader.size <= Int(UInt32.max), "a batch has less than 4 GiB")
        let header = BatchHeader(
            stamp, recordCount: UInt16(recordCount), payloadLength: UInt32(end - BatchHeader.size),
            payloadChecksum: Checksum.of(bytes, BatchHeader.size..<end, seed: seed))
        bytes.replaceSubrange(0..<BatchHeader.size, with: header.encoded(seed: seed))
        bytes.pad(to: pageBytes)
        return (header, bytes)
    }
}

extension BatchHeader {
    /// Whether the payload behind this header, which stands at `start` of `bytes`, is there and intact.
    ///
    /// - Complexity: O(bytes)
    package func verifiesPayload(in bytes: [UInt8], at start: Int, store: StoreID) -> Bool {
        let start = start + Self.size
        guard start <= bytes.count, Int(payloadLength) <= bytes.count - start else { return false }
        let seed = Checksum.seed(store, segment, offset: offset)
        return Checksum.of(bytes, start..<start + Int(payloadLength), seed: seed) == payloadChecksum
    }

    /// Gives `body` the Records of a payload that has been verified, each with its position. Those of an
    /// unknown but ignorable type leave their position empty.
    ///
    /// - Complexity: O(bytes)
    package func records(
        in bytes: [UInt8], at start: Int, _ body: (Record, Position) -> Void
    ) throws(DecodingError) {
        let start = start + Self.size
        guard start <= bytes.count, Int(payloadLength) <= bytes.count - start else { throw .truncated }
        var reader = ByteReader(bytes, start..<start + Int(payloadLength))
        for index in 0..<UInt64(recordCount) {
            if let record = try RecordCodec.nextRecord(in: bytes, &reader) {
                body(record, Position(first.number + index))
            }
        }
        guard reader.isAtEnd else { throw .trailingBytes }
    }

    /// The one Record at `position`; nil when the batch does not hold it.
    ///
    /// - Complexity: O(records before it + its bytes)
    package func record(
        at position: Position, in bytes: [UInt8], at start: Int
    ) throws(DecodingError) -> Record? {
        guard position >= first, position <= last else { return nil }
        let start = start + Self.size
        guard start <= bytes.count, Int(payloadLength) <= bytes.count - start else { throw .truncated }
        var reader = ByteReader(bytes, start..<start + Int(payloadLength))
        for _ in first.number..<position.number { _ = try reader.lengthPrefixed() }
        return try RecordCodec.nextRecord(in: bytes, &reader)
    }
}
