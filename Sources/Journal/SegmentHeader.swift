import GatewayCore

/// Where the valid part of a segment ends: what its successor's header names, so that whatever a power cut
/// left behind it is never taken for Records.
package struct SegmentEnd: Hashable, Sendable {
    /// 0 when there was no segment before.
    package var segment: UInt64
    /// First byte after the last valid batch, in bytes from the start of the file.
    package var offset: UInt64
    /// The last valid Record of the log up to there.
    package var last: Position

    package init(segment: UInt64, offset: UInt64, last: Position) {
        self.segment = segment
        self.offset = offset
        self.last = last
    }
}

/// The first page of a segment.
package struct SegmentHeader: Hashable, Sendable {
    package var store: StoreID
    package var segment: UInt64
    package var predecessor: SegmentEnd
    package var clock: Instant
    package var boot: UInt32
    /// At `clock`; nil where it was not known.
    package var uptime: Uptime?
    /// The file held another segment before: what stands behind the last batch means nothing.
    package var isRecycled: Bool

    package init(
        store: StoreID, segment: UInt64, predecessor: SegmentEnd, clock: Instant, boot: UInt32,
        uptime: Uptime? = nil, isRecycled: Bool = false
    ) {
        self.store = store
        self.segment = segment
        self.predecessor = predecessor
        self.clock = clock
        self.boot = boot
        self.uptime = uptime?.at(clock)
        self.isRecycled = isRecycled
    }

    /// nil in a segment that was written as the log went on.
    package var merged: Merged?

    /// Where a merged file ends, which no successor says: `predecessor` only names the Record before its first.
    package struct Merged: Hashable, Sendable {
        /// It stands for every segment that begins at or before this.
        package var last: Position
        /// First byte after the last batch.
        package var end: UInt64
    }

    private static let magic: UInt32 = 0x4745_5354  // "TSEG"
    private static let recycledFlag: UInt32 = 1
    private static let mergedFlag: UInt32 = 2

    /// One page. Its checksum is seeded with the segment's number alone, so that the store's id can be
    /// recovered from here when `FORMAT` is damaged.
    package var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(pageBytes)
        bytes.append(fixed: Self.magic)
        bytes.append(fixed: UInt32(0))
        bytes.append(fixed: StoreFormat.currentMajor)
        bytes.append(fixed: StoreFormat.currentMinor)
        bytes.append(fixed: UInt32(0))
        bytes.append(contentsOf: store.bytes)
        bytes.append(fixed: segment)
        bytes.append(fixed: predecessor.segment)
        bytes.append(fixed: predecessor.offset)
        bytes.append(fixed: predecessor.last.number)
        bytes.append(fixed: clock.milliseconds)
        bytes.append(fixed: boot)
        Uptime.append(uptime, at: clock, to: &bytes)
        bytes.append(
            fixed: (isRecycled ? Self.recycledFlag : 0) | (merged == nil ? 0 : Self.mergedFlag))
        bytes.append(fixed: merged?.last.number ?? 0)
        bytes.append(fixed: merged?.end ?? 0)
        bytes.pad(to: pageBytes)
        bytes.put(Checksum.of(bytes, 8..<pageBytes, seed: Self.seed(segment)), at: 4)
        return bytes
    }

    /// - Parameter segment: the number in the file's name; a header of another segment does not verify.
    package init(decoding bytes: [UInt8], segment: UInt64) throws(DecodingError) {
        guard bytes.count >= pageBytes else { throw .truncated }
        var reader = ByteReader(bytes, 0..<pageBytes)
        guard try reader.fixed(UInt32.self) == Self.magic else { throw .wrongMagic }
        guard try reader.fixed(UInt32.self) == Checksum.of(bytes, 8..<pageBytes, seed: Self.seed(segment))
        else {
            throw .wrongChecksum
        }
        let major = try reader.fixed(UInt16.self)
        _ = try reader.fixed(UInt16.self)
        let incompatible = try reader.fixed(UInt32.self)
        guard major == StoreFormat.currentMajor else { throw .unknownFeatures(UInt32(major) << 16) }
        guard incompatible & ~StoreFormat.knownIncompatible == 0 else { throw .unknownFeatures(incompatible) }
        guard let store = StoreID(try reader.take(16)) else { throw .truncated }
        self.store = store
        self.segment = try reader.fixed(UInt64.self)
        predecessor = SegmentEnd(
            segment: try reader.fixed(UInt64.self), offset: try reader.fixed(UInt64.self),
            last: Position(try reader.fixed(UInt64.self)))
        clock = Instant(milliseconds: try reader.fixed(UInt64.self))
        boot = try reader.fixed(UInt32.self)
        uptime = try Uptime.read(at: clock, &reader)
        let flags = try reader.fixed(UInt32.self)
        isRecycled = flags & Self.recycledFlag != 0
        let place = Merged(
            last: Position(try reader.fixed(UInt64.self)), end: try reader.fixed(UInt64.self))
        merged = flags & Self.mergedFlag != 0 ? place : nil
        guard place.last.number < countableLimit, merged.map({ $0.last > predecessor.last }) ?? true else {
            throw .invalidField
        }
        // Numbers rise: what names the end of a segment that is yet to come would be believed once that is there.
        guard self.segment == segment, predecessor.segment < segment,
            predecessor.last.number < countableLimit, clock.milliseconds < countableLimit
        else { throw .invalidField }
    }

    private static func seed(_ segment: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: segment) ^ 0x7469_6465
    }
}
