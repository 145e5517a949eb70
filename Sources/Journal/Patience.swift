import GatewayCore

/// How long a read is asked for again that the disk refused.
///
/// What is given up counts as damaged, and is gone for good (promise P2), though it may stand on the flash unharmed: a
/// card that is being reset refuses for seconds, and so does a system without a descriptor or a page of memory to
/// spare. So the disk is asked for a minute, ever less often, and only the time counts in which it refuses because of
/// the medium although the log can be written.
struct Patience: Hashable {
    /// Since it last gave something.
    private var refusals: UInt64 = 0
    /// When that was last, where it counts.
    private var countsFrom: Instant?
    /// What counts, in milliseconds.
    private var waited: UInt64 = 0
    private let waitedMax: UInt64

    private static let shortestMilliseconds: UInt64 = 1_000
    private static let longestMilliseconds: UInt64 = 32_000

    private init(waitedMax: UInt64) { self.waitedMax = waitedMax }

    static let whole = Patience(waitedMax: 60_000)
    /// Of what stands beside something that had a whole one in vain.
    static let short = Patience(waitedMax: 3_000)

    /// - Parameter isWritable: the log can be written at present.
    /// - Returns: in how many milliseconds to ask again; nil to give up.
    mutating func refused(_ refusal: ReadRefusal, isWritable: Bool, at now: Instant) -> UInt64? {
        let counts = refusal == .ofTheMedium && isWritable
        if counts, let countsFrom {
            waited += min(now.milliseconds(since: countsFrom), Self.longestMilliseconds)
        }
        countsFrom = counts ? now : nil
        guard refusal != .isGone, !counts || waited < waitedMax else { return nil }
        let pause = min(Self.shortestMilliseconds << min(refusals, 16), Self.longestMilliseconds)
        refusals += 1
        return pause
    }

    /// The disk gave what it was asked for.
    mutating func succeeded() {
        refusals = 0
        countsFrom = nil
    }
}

/// Why the disk refused a read. The numbers are Linux's, the same on every machine this runs on.
enum ReadRefusal: Hashable {
    /// EIO and everything that is not one of the others.
    case ofTheMedium
    /// EPERM, EAGAIN, ENOMEM, EACCES, ENFILE or EMFILE.
    case ofTheSystem
    /// ENOENT.
    case isGone

    init(errorNumber: Int32) {
        switch errorNumber {
        case 1, 11, 12, 13, 23, 24: self = .ofTheSystem
        case 2: self = .isGone
        default: self = .ofTheMedium
        }
    }
}

/// What the disk has refused, until it is asked again.
struct Postponed<Item> {
    private(set) var items: [(at: Instant, item: Item)] = []

    mutating func add(_ item: Item, at moment: Instant) { items.append((moment, item)) }

    mutating func removeAll(where isUnwanted: (Item) -> Bool) { items.removeAll { isUnwanted($0.item) } }

    /// When one is due; nil without any.
    ///
    /// - Complexity: O(items)
    var next: Instant? { items.min { $0.at < $1.at }?.at }

    /// Takes out those that are due.
    ///
    /// - Complexity: O(items)
    mutating func takeDue(at now: Instant) -> [Item] {
        let due = items.filter { $0.at <= now }.map(\.item)
        if !due.isEmpty { items.removeAll { $0.at <= now } }
        return due
    }
}
