import Workbench

/// What a disk was told from a moment on, in order.
struct Recording {
    enum Event {
        case write(offset: Int, bytes: [UInt8])
        /// Answered after everything written before it was taken to be safe.
        case flush
    }

    /// What the disk held before the first event.
    let before: Image
    var events: [Event] = []

    init(before: Image) { self.before = before }

    var writes: Int { events.count { if case .write = $0 { true } else { false } } }
    var flushes: Int { events.count - writes }

    /// What of the writes that no flush covers is there after the cut.
    enum Fate: String, CaseIterable {
        /// All of it: the disk was quick.
        case kept
        /// Nothing of it.
        case dropped
        /// The first writes, and the first sectors of the next.
        case torn
        /// Some of the writes, and not in their order.
        case reordered
        /// Some sectors of each.
        case shredded
    }

    static let sectorBytes = 512
    /// ext4 writes its superblock in place, and counts on its two sectors to hold together.
    fileprivate static let superblock = 1024..<2048

    /// What the disk may hold when the power fails after the first `boundary` events: all that was flushed until then, and
    /// of the writes after the last flush what `fate` says.
    func cut(at boundary: Int, _ fate: Fate, _ random: inout SplitMix64) -> Image {
        let lastFlush = events[..<boundary].lastIndex { if case .flush = $0 { true } else { false } }
        let pendingFrom = lastFlush.map { $0 + 1 } ?? 0
        var image = before
        for event in events[..<pendingFrom] { image.apply(event) }
        let pending = events[pendingFrom..<boundary]
        switch fate {
        case .kept:
            for event in pending { image.apply(event) }
        case .dropped:
            break
        case .torn:
            let whole = Int.random(in: 0...pending.count, using: &random)
            for event in pending.prefix(whole) { image.apply(event) }
            if let next = pending.dropFirst(whole).first {
                let sectors = next.sectors
                let count = Int.random(in: 0...sectors.count, using: &random)
                for sector in sectors.prefix(count) { image.apply(sector, of: next) }
            }
        case .reordered:
            for event in pending.shuffled(using: &random) where Bool.random(using: &random) {
                image.apply(event)
            }
        case .shredded:
            for event in pending {
                for sector in event.sectors where Bool.random(using: &random) {
                    image.apply(sector, of: event)
                }
            }
        }
        return image
    }

    /// What a disk holds that says that it flushed and has not: the last writes before the cut are missing, `eventsMax`
    /// events at most.
    func cutOfLyingDisk(at boundary: Int, eventsMax: Int, _ random: inout SplitMix64) -> Image {
        let missing = Int.random(in: 0...min(eventsMax, boundary), using: &random)
        var image = before
        for event in events[..<(boundary - missing)] { image.apply(event) }
        return image
    }
}

extension Recording.Event {
    /// The pieces of a write that are there or not, as ranges of its bytes: sectors of the disk, and the superblock.
    var sectors: [Range<Int>] {
        guard case .write(let offset, let bytes) = self else { return [] }
        var pieces: [Range<Int>] = []
        var start = 0
        while start < bytes.count {
            let place = offset + start
            let isSuperblock = Recording.superblock.contains(place)
            let end =
                isSuperblock
                ? Recording.superblock.upperBound
                : (place / Recording.sectorBytes + 1) * Recording.sectorBytes
            pieces.append(start..<min(bytes.count, end - offset))
            start = pieces[pieces.count - 1].upperBound
        }
        return pieces
    }
}

extension Image {
    fileprivate mutating func apply(_ event: Recording.Event) {
        if case .write(let offset, let bytes) = event { write(bytes[...], at: offset) }
    }

    fileprivate mutating func apply(_ piece: Range<Int>, of event: Recording.Event) {
        if case .write(let offset, let bytes) = event {
            write(bytes[piece], at: offset + piece.lowerBound)
        }
    }
}
