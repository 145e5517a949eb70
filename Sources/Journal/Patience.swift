import GatewayCore

/// How long a read is asked for again that the disk refused.
///
/// What is given up counts as damaged, and is gone for good (promise P2), though it may stand on the flash unharmed: a
/// card that is being reset refuses for seconds, and so does a system without a descriptor or a page of memory to
/// spare. So the disk is asked for a minute, ever less often, and only a refusal that says something of the medium, by
/// a disk that can be written, counts against the message.
struct Patience: Hashable {
    /// Since it last had a success.
    private var asked: UInt64 = 0
    /// What counts, of everything it was asked about.
    private var counted = 0

    /// With the pauses between them they take a minute.
    private static let countedMax = 7
    private static let shortestMilliseconds: UInt64 = 1_000
    private static let longestMilliseconds: UInt64 = 32_000

    /// - Parameter isWritable: the log can be written at present.
    /// - Returns: in how many milliseconds to ask again; nil to give up, and then for whatever else it is asked about.
    mutating func refused(_ refusal: ReadRefusal, isWritable: Bool) -> UInt64? {
        switch refusal {
        case .isGone: return nil
        case .ofTheSystem: break
        case .ofTheMedium:
            if isWritable { counted = min(counted + 1, Self.countedMax) }
            if counted == Self.countedMax { return nil }
        }
        defer { asked += 1 }
        return min(Self.shortestMilliseconds << min(asked, 16), Self.longestMilliseconds)
    }

    /// The disk gave what it was asked for.
    mutating func succeeded() { asked = 0 }
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
