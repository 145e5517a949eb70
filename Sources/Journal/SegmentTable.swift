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

/// A segment that exists, and where its batches begin.
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
    /// What the file has at least, in bytes.
    private(set) var fileBytes: Int
    private var batches: [BatchPlace] = []

    /// Eight bytes a batch: a million batches, some 4 GiB of log, cost 8 MB.
    private struct BatchPlace: Hashable, Sendable {
        /// Distance of its first Record from the segment's first.
        var distance: UInt32
        var page: UInt32
    }

    init(id: UInt64, first: Position, capacity: Int, fileBytes: Int = pageBytes) {
        self.id = id
        self.first = first
        self.last = Position(first.number - 1)
        self.end = pageBytes
        self.capacity = capacity
        self.fileBytes = fileBytes
    }

    /// Notes a batch behind all others.
    mutating func add(_ header: BatchHeader, at offset: Int) {
        last = max(last, header.last)
        end = offset + header.totalLength
        fileBytes = max(fileBytes, end)
        guard header.recordCount > 0 else { return }
        batches.append(
            BatchPlace(
                distance: UInt32(truncatingIfNeeded: header.first.number - first.number),
                page: UInt32(offset / pageBytes)))
    }

    /// The bytes of the batch that holds `position`, if any does; damage may have made them too many.
    ///
    /// - Complexity: O(log batches)
    func place(of position: Position) -> Range<Int>? {
        guard position >= first, position <= last else { return nil }
        let distance = position.number - first.number
        var low = 0
        var high = batches.count
        while low < high {
            let middle = (low + high) / 2
            if UInt64(batches[middle].distance) <= distance { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let start = Int(batches[low - 1].page) * pageBytes
        let stop = low < batches.count ? Int(batches[low].page) * pageBytes : end
        return start..<stop
    }

    /// Whether a Record this far along can be noted.
    func canHold(_ header: BatchHeader) -> Bool {
        header.first >= first && header.first.number - first.number <= UInt64(UInt32.max)
    }
}
