import GatewayCore

/// A moment at which the wall clock was trusted, on both clocks.
package struct WallAnchor: Hashable, Sendable {
    package var clock: Instant
    package var wallMilliseconds: Int64

    package init(clock: Instant, wallMilliseconds: Int64) {
        self.clock = clock
        self.wallMilliseconds = wallMilliseconds
    }
}

/// What a checkpoint says besides its Records.
package struct CheckpointHeader: Hashable, Sendable {
    /// It stands for every Record up to here.
    package var position: Position
    package var clock: Instant
    package var boot: UInt32
    /// No segment has had this number or a higher one.
    package var nextSegment: UInt64
    package var anchor: WallAnchor?
    /// Every segment that was complete then: none of them need be looked into to start, and where one ends its
    /// successor, which also says so, may be deleted.
    package var segments: [SegmentRow]
    /// At `clock`; nil where it was not known.
    package var uptime: Uptime?
    package var unproven: UnprovenStart?
    /// In a chunk of its own, which older versions pass over.
    package var wear = Wear()

    package init(
        position: Position, clock: Instant, boot: UInt32, nextSegment: UInt64, anchor: WallAnchor?,
        segments: [SegmentRow], uptime: Uptime? = nil, unproven: UnprovenStart? = nil,
        wear: Wear = Wear()
    ) {
        self.position = position
        self.clock = clock
        self.boot = boot
        self.nextSegment = nextSegment
        self.anchor = anchor
        self.segments = segments
        self.uptime = uptime?.at(clock)
        self.unproven = unproven
        self.wear = wear
    }
}

/// What a checkpoint says of a complete segment.
package struct SegmentRow: Hashable, Sendable {
    package var segment: UInt64
    /// nil where the checkpoint does not say: the segment itself does.
    package var first: Position?
    package var last: Position
    /// First byte after its last batch.
    package var end: UInt64
    /// What the file may have grown to, in bytes.
    package var capacity: UInt64

    package init(segment: UInt64, first: Position?, last: Position, end: UInt64, capacity: UInt64) {
        self.segment = segment
        self.first = first
        self.last = last
        self.end = end
        self.capacity = capacity
    }

    init(_ segment: Segment) {
        self.init(
            segment: segment.id, first: segment.first, last: segment.last, end: UInt64(segment.end),
            capacity: UInt64(segment.capacity))
    }
}

/// A checkpoint's file is a run of chunks, each with two checksums: one for its own head, so that its length
/// can be believed, and one for what it holds.
enum CheckpointChunk {
    enum Kind: UInt16 {
        case header = 1
        case records = 2
        /// What the journal has cost the flash; may be passed over.
        case wear = 0x8001
        /// Last of all, with the number of Records: without it the file is not whole.
        case end = 3
    }

    struct Head {
        var length: Int
        var checksum: UInt32
        var kind: UInt16
        var index: UInt32
    }

    /// Chunks of an unknown kind with this bit may be passed over.
    static let ignorableBit: UInt16 = 0x8000
    static let headSize = 24
    /// Records are gathered until a chunk has this many bytes.
    static let sizeGoal = 64 << 10
    private static let magic: UInt32 = 0x4B43_4754  // "TGCK"

    /// Never that of a segment: numbers of segments and positions are far from the top. A chunk's place is its index.
    static func seed(_ store: StoreID, _ position: Position) -> UInt32 {
        Checksum.seed(store, ~position.number, offset: 0)
    }

    static func append(_ kind: Kind, _ payload: [UInt8], index: UInt32, seed: UInt32, to file: inout [UInt8])
    {
        let start = file.count
        file.append(fixed: magic)
        file.append(fixed: UInt32(0))
        file.append(fixed: UInt32(payload.count))
        file.append(fixed: Checksum.of(payload, 0..<payload.count, seed: seed))
        file.append(fixed: kind.rawValue)
        file.append(fixed: UInt16(0))
        file.append(fixed: index)
        file.put(Checksum.of(file, start + 8..<start + headSize, seed: seed), at: start + 4)
        file.append(contentsOf: payload)
    }

    static func head(_ bytes: [UInt8], seed: UInt32) throws(DecodingError) -> Head {
        guard bytes.count >= headSize else { throw .truncated }
        var reader = ByteReader(bytes, 0..<headSize)
        guard try reader.fixed(UInt32.self) == magic else { throw .wrongMagic }
        guard try reader.fixed(UInt32.self) == Checksum.of(bytes, 8..<headSize, seed: seed) else {
            throw .wrongChecksum
        }
        let length = try reader.fixed(UInt32.self)
        let checksum = try reader.fixed(UInt32.self)
        let kind = try reader.fixed(UInt16.self)
        _ = try reader.fixed(UInt16.self)
        return Head(length: Int(length), checksum: checksum, kind: kind, index: try reader.fixed(UInt32.self))
    }
}

/// Builds the bytes of a checkpoint's file.
package struct CheckpointBuilder {
    private let seed: UInt32
    private var file: [UInt8] = []
    private var chunk: [UInt8] = []
    private var index: UInt32 = 0
    private var recordCount: UInt64 = 0

    package init(_ header: CheckpointHeader, store: StoreID) {
        seed = CheckpointChunk.seed(store, header.position)
        flush(.header, header.encoded)
        if header.wear != Wear() { flush(.wear, header.wear.encoded) }
    }

    /// - Complexity: O(bytes of the Record)
    package mutating func add(_ record: Record) {
        RecordCodec.frame(record, into: &chunk)
        recordCount += 1
        if chunk.count >= CheckpointChunk.sizeGoal {
            flush(.records, chunk)
            chunk.removeAll(keepingCapacity: true)
        }
    }

    package consuming func sealed() -> [UInt8] {
        if !chunk.isEmpty { flush(.records, chunk) }
        var count: [UInt8] = []
        count.append(fixed: recordCount)
        flush(.end, count)
        return file
    }

    private mutating func flush(_ kind: CheckpointChunk.Kind, _ payload: [UInt8]) {
        CheckpointChunk.append(kind, payload, index: index, seed: seed, to: &file)
        index += 1
    }
}

extension CheckpointHeader {
    fileprivate var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(fixed: position.number)
        bytes.append(fixed: clock.milliseconds)
        bytes.append(fixed: boot)
        bytes.append(fixed: nextSegment)
        bytes.append(anchor == nil ? 0 : 1)
        bytes.append(fixed: anchor?.clock.milliseconds ?? 0)
        bytes.append(fixed: anchor?.wallMilliseconds ?? 0)
        bytes.append(fixed: UInt32(segments.count))
        for row in segments {
            bytes.append(fixed: row.segment)
            bytes.append(fixed: row.end)
            bytes.append(fixed: row.last.number)
        }
        Uptime.append(uptime, at: clock, to: &bytes)
        bytes.append(unproven == nil ? 0 : 1)
        bytes.append(fixed: unproven?.after.number ?? 0)
        bytes.append(fixed: unproven?.since.milliseconds ?? 0)
        for row in segments {
            bytes.append(fixed: row.first?.number ?? 0)
            bytes.append(fixed: row.capacity)
        }
        return bytes
    }

    init(decoding bytes: [UInt8]) throws(DecodingError) {
        var reader = ByteReader(bytes)
        position = Position(try reader.fixed(UInt64.self))
        clock = Instant(milliseconds: try reader.fixed(UInt64.self))
        boot = try reader.fixed(UInt32.self)
        nextSegment = try reader.fixed(UInt64.self)
        let hasAnchor = try reader.byte() != 0
        let anchorClock = Instant(milliseconds: try reader.fixed(UInt64.self))
        let anchorWall = try reader.fixed(Int64.self)
        anchor = hasAnchor ? WallAnchor(clock: anchorClock, wallMilliseconds: anchorWall) : nil
        let count = Int(try reader.fixed(UInt32.self))
        guard count <= reader.remaining / 24 else { throw .truncated }
        segments = []
        for _ in 0..<count {
            let segment = try reader.fixed(UInt64.self)
            let end = try reader.fixed(UInt64.self)
            segments.append(
                SegmentRow(
                    segment: segment, first: nil, last: Position(try reader.fixed(UInt64.self)), end: end,
                    capacity: end))
        }
        // It stands for all that its segments hold, and none of them may be the next start's new one.
        guard position.number < countableLimit, nextSegment < countableLimit,
            clock.milliseconds < countableLimit,
            segments.allSatisfy({ $0.last <= position && $0.segment > 0 && $0.segment < nextSegment })
        else { throw .invalidField }
        // It may end here, or behind the uptime.
        if !reader.isAtEnd { try decodeTime(&reader) }
        if !reader.isAtEnd { try decodePlaces(&reader) }
    }

    private mutating func decodeTime(_ reader: inout ByteReader) throws(DecodingError) {
        uptime = try Uptime.read(at: clock, &reader)
        let isUnproven = try reader.byte() != 0
        let start = UnprovenStart(
            after: Position(try reader.fixed(UInt64.self)),
            since: Instant(milliseconds: try reader.fixed(UInt64.self)))
        unproven = isUnproven ? start : nil
        guard start.after.number < countableLimit else { throw .invalidField }
    }

    private mutating func decodePlaces(_ reader: inout ByteReader) throws(DecodingError) {
        for index in segments.indices {
            let first = try reader.fixed(UInt64.self)
            segments[index].capacity = try reader.fixed(UInt64.self)
            guard first <= segments[index].last.number + 1 else { throw .invalidField }
            segments[index].first = first == 0 ? nil : Position(first)
        }
    }
}

extension QueueRecord {
    /// Whether it names a Record behind `position`.
    ///
    /// - Complexity: O(entries + pages)
    func names(beyond position: Position) -> Bool {
        func isBeyond(_ entry: Entry) -> Bool { entry.position.map { $0 > position } ?? false }
        return entries.contains(where: isBeyond) || tail.contains(where: isBeyond)
            || strays.contains { isBeyond($0.entry) } || pages.contains { $0.stretch.last > position }
    }
}
