import GatewayCore

/// A file that holds nothing any more and may become a segment.
package struct FreeSegment: Hashable, Sendable {
    /// Of the segment it was.
    package var id: UInt64
    /// What the file has, in bytes: it neither grows nor shrinks.
    package var bytes: Int

    package init(id: UInt64, bytes: Int) {
        self.id = id
        self.bytes = bytes
    }
}

/// A segment that exists. Where its batches begin is in its index: in memory while it is written to, on disk from
/// then on.
package struct Segment: Hashable, Sendable {
    package let id: UInt64
    /// The first Record it holds or would hold.
    package let first: Position
    /// The last durable Record in it; the one before `first` while it is empty.
    package internal(set) var last: Position
    /// First byte after the last durable batch.
    package internal(set) var end: Int
    /// What the file may grow to, or has when it was another segment before.
    var capacity: Int
    /// It holds what was still owed of several.
    var isMerged = false
    /// What the file has at least, in bytes.
    private(set) var fileBytes: Int

    init(id: UInt64, first: Position, capacity: Int, fileBytes: Int = pageBytes) {
        self.id = id
        self.first = first
        self.last = Position(first.number - 1)
        self.end = pageBytes
        self.capacity = capacity
        self.fileBytes = fileBytes
    }

    /// As a checkpoint says, of a file that has `size` bytes: what is not there takes no space.
    init(_ row: SegmentRow, first: Position, size: Int) {
        self.init(id: row.segment, first: first, capacity: size, fileBytes: size)
        last = row.last
        end = Swift.max(Swift.min(Int(clamping: row.end), size), pageBytes)
    }

    /// Notes a batch behind all others.
    mutating func add(_ header: BatchHeader, at offset: Int) {
        last = max(last, header.last)
        end = offset + header.totalLength
        fileBytes = max(fileBytes, end)
    }

    /// Up to where a batch of `length` bytes at the end is written: where the file must grow for it, by zeros to the next
    /// multiple of `step`, unless the batch is large enough to be worth what growing costs.
    func reach(ofBatch length: Int, growingBy step: Int) -> Int {
        let reach = end + length
        guard reach > fileBytes, length <= step / 8 else { return reach }
        return Swift.max(reach, Swift.min((reach + step - 1) / step * step, capacity))
    }

    /// Notes that the file has so many bytes.
    mutating func grew(to bytes: Int) { fileBytes = Swift.max(fileBytes, bytes) }

    var file: StoreFile { isMerged ? .merged(id) : .segment(id) }

    /// Nothing is appended to it any more; nil when it holds no Record.
    package var stretch: Stretch? { first <= last ? Stretch(first: first, last: last) : nil }
}
