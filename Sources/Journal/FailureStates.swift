import GatewayCore

/// Grows from a second to a minute while something keeps failing, so that a broken disk is neither hammered nor
/// forgotten.
struct BackOff {
    private(set) var next: Instant?
    private var delayMilliseconds: UInt64 = 1_000
    private let longestMilliseconds: UInt64

    init(longestMilliseconds: UInt64 = 60_000) { self.longestMilliseconds = longestMilliseconds }

    mutating func failed(at now: Instant) {
        next = now.advanced(byMilliseconds: delayMilliseconds)
        delayMilliseconds = min(delayMilliseconds * 2, longestMilliseconds)
    }

    mutating func succeeded() { self = BackOff(longestMilliseconds: longestMilliseconds) }

    func allows(_ now: Instant) -> Bool { next.map { $0 <= now } ?? true }
}

/// Why the disk refused, as far as what to do next depends on it. The numbers are Linux's, the same on every
/// machine this runs on.
enum Refusal: Equatable {
    /// ENOSPC, EDQUOT or EFBIG: there may be room again.
    case noRoom
    /// EROFS: no file can be written.
    case readOnly
    /// EIO and everything else.
    case broken

    init(errorNumber: Int32) {
        switch errorNumber {
        case 28, 122, 27: self = .noRoom
        case 30: self = .readOnly
        default: self = .broken
        }
    }
}

/// What failed writes of the log have come to, and when the next is tried.
///
/// After an error nothing is written to that file again, and it is never synced again: the kernel may have
/// dropped its pages and call the next sync a success. The Records, which are still in memory, go to a new
/// segment at once. Where that fails too, the disk has failed: nothing more is promised, but attempts go on,
/// ever less often, and the first batch that succeeds ends the state. Want of room is not a failure of the disk,
/// only waited for in the same way.
struct FailureStates {
    private var failuresInARow = 0
    private var backOff = BackOff()
    /// Nothing can be made durable.
    private(set) var hasFailed = false
    /// The last attempt found no room.
    private(set) var lacksRoom = false

    /// What is in the buffer is to be written to a new segment whether anybody waits for it or not: it may be
    /// empty, then an empty batch finds out whether the disk works again.
    var isTroubled: Bool { failuresInARow > 0 }

    /// Not even what was given up for it made room enough.
    var isStuck: Bool { lacksRoom && failuresInARow > 1 }

    func allowsAttempt(at now: Instant) -> Bool { backOff.allows(now) }
    /// nil while there is no trouble, and when the next attempt is due at once.
    var nextAttempt: Instant? { backOff.next }

    /// A segment could not be created or a batch not be written.
    ///
    /// - Parameter isLast: there will be no later attempt, because the log is being closed.
    /// - Returns: whether this makes the disk a failed one, which is told once.
    mutating func attemptFailed(_ refusal: Refusal, isLast: Bool, at now: Instant) -> Bool {
        failuresInARow += 1
        lacksRoom = refusal == .noRoom
        // The first is tried again at once, elsewhere; with a read-only file system there is no elsewhere.
        if failuresInARow == 1, refusal != .readOnly { return false }
        backOff.failed(at: now)
        guard !hasFailed, refusal != .noRoom || isLast else { return false }
        hasFailed = true
        return true
    }

    /// A batch is durable.
    ///
    /// - Returns: whether this ends the state of a failed disk, which is told.
    mutating func attemptSucceeded() -> Bool {
        defer { self = FailureStates() }
        return hasFailed
    }
}
