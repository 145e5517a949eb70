import GatewayCore

/// What the journal has cost the flash, by its own count of the bytes it handed to the disk. Checkpoints carry it; after
/// a power cut what was not in one is counted again from the batches that are left.
package struct Wear: Hashable, Sendable {
    /// Of the logical clock, when counting began; nil before anything was written.
    package private(set) var since: Instant?
    package private(set) var batchBytes: UInt64 = 0
    /// Headers and footers of segments, and the reserve.
    package private(set) var segmentBytes: UInt64 = 0
    package private(set) var checkpointBytes: UInt64 = 0
    package private(set) var commits: UInt64 = 0
    /// Written, with their payloads' bytes.
    package private(set) var messages: UInt64 = 0
    package private(set) var payloadBytes: UInt64 = 0
    /// The day of the logical clock that `bytesToday` is of.
    private var day: UInt64 = 0
    private var bytesToday: UInt64 = 0

    static let dayMilliseconds: UInt64 = 86_400_000

    package init() {}

    package var bytes: UInt64 { batchBytes &+ segmentBytes &+ checkpointBytes }

    /// Handed to the disk in the day that `now` is in.
    package func bytesToday(at now: Instant) -> UInt64 {
        now.milliseconds / Self.dayMilliseconds == day ? bytesToday : 0
    }

    // MARK: Counting

    mutating func note(_ action: DiskOperation.Action, at now: Instant) {
        switch action {
        case .write(_, _, let bytes): commit(bytes.count, at: now)
        case .createSegment(_, let page), .reuseSegment(_, _, let page):
            segmentBytes &+= UInt64(page.count)
            spend(page.count, at: now)
        case .writeFooter(_, _, let bytes), .writePart(_, _, let bytes):
            segmentBytes &+= UInt64(bytes.count)
            spend(bytes.count, at: now)
        case .makeReserve(_, let bytes):
            segmentBytes &+= UInt64(bytes)
            spend(bytes, at: now)
        case .writeCheckpoint(_, let bytes):
            checkpointBytes &+= UInt64(bytes.count)
            spend(bytes.count, at: now)
        case .read, .publish, .delete, .retire, .measureSpace: break
        }
    }

    /// A batch of so many bytes.
    mutating func commit(_ bytes: Int, at now: Instant) {
        commits &+= 1
        batchBytes &+= UInt64(bytes)
        spend(bytes, at: now)
    }

    /// A Record in a batch.
    mutating func note(_ record: Record) {
        guard case .message(let message) = record else { return }
        note(messages: 1, payloadBytes: message.message.payload.count)
    }

    /// Messages in a batch.
    mutating func note(messages count: Int, payloadBytes bytes: Int) {
        messages &+= UInt64(count)
        payloadBytes &+= UInt64(bytes)
    }

    private mutating func spend(_ bytes: Int, at now: Instant) {
        if since == nil { since = now }
        let today = now.milliseconds / Self.dayMilliseconds
        if today != day {
            day = today
            bytesToday = 0
        }
        bytesToday &+= UInt64(bytes)
    }

    // MARK: As bytes

    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(fixed: since?.milliseconds ?? .max)
        for field in [
            batchBytes, segmentBytes, checkpointBytes, commits, messages, payloadBytes, day, bytesToday,
        ] {
            bytes.append(fixed: field)
        }
        return bytes
    }

    /// What a later version adds behind is passed over.
    init(decoding bytes: [UInt8]) throws(DecodingError) {
        var reader = ByteReader(bytes)
        let since = try reader.fixed(UInt64.self)
        self.since = since == .max ? nil : Instant(milliseconds: since)
        batchBytes = try reader.fixed(UInt64.self)
        segmentBytes = try reader.fixed(UInt64.self)
        checkpointBytes = try reader.fixed(UInt64.self)
        commits = try reader.fixed(UInt64.self)
        messages = try reader.fixed(UInt64.self)
        payloadBytes = try reader.fixed(UInt64.self)
        day = try reader.fixed(UInt64.self)
        bytesToday = try reader.fixed(UInt64.self)
    }
}

/// What the flash may be given in a day of the logical clock. It never holds anything back: as it nears its end,
/// commit windows widen, so that more shares each of them.
package struct FlashBudget: Hashable, Sendable {
    package let bytesPerDay: UInt64
    /// No window is wider than this many times what is configured.
    package static let wideningMax = 8

    package init(bytesPerDay: UInt64) { self.bytesPerDay = max(1, bytesPerDay) }

    /// How many times as wide the windows are when this much is spent: as they are up to half the day's bytes,
    /// then in proportion, and at their widest when all is spent.
    package func widening(spent: UInt64) -> Int {
        let half = bytesPerDay / 2
        guard spent > half else { return 1 }
        guard spent < bytesPerDay else { return Self.wideningMax }
        let share = Double(spent - half) / Double(bytesPerDay - half)
        return 1 + Int(share * Double(Self.wideningMax - 1))
    }

    package func isExceeded(spent: UInt64) -> Bool { spent > bytesPerDay }
}
