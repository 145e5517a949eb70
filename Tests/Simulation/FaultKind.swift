/// What can happen to the gateway and those around it. Each has dice of its own, so that leaving one out changes as
/// little as possible about the others.
package enum FaultKind: String, Hashable, Sendable, CaseIterable {
    /// The power fails at any moment.
    case powerCut = "power-cut"
    /// The power fails before some step of the disk.
    case stepCut = "step-cut"
    /// The power fails again while the gateway recovers.
    case recoveryCut = "recovery-cut"
    /// The process is killed; what it wrote is in the cache.
    case kill
    /// The process is asked to end, and does.
    case stop
    /// A connection is cut at any byte; both sides learn of it soon.
    case linkCut = "link-cut"
    /// A connection is cut, and one side does not learn of it for long.
    case halfOpen = "half-open"
    /// A connection carries nothing for a while.
    case blackHole = "black-hole"
    /// Everybody loses the connection at once.
    case storm
    /// The cloud is not to be reached for a while.
    case outage
    /// The disk does nothing for seconds.
    case stall
    /// Steps of the disk are refused: no room, or an error.
    case diskError = "disk-error"
    /// The disk has little room to begin with.
    case fullDisk = "full-disk"
    /// A bit turns round or a page is lost while the power is off.
    case rot
    /// A page beside one that was being written is lost in a power cut.
    case neighbour
    /// There is no clock that runs while the power is off, and nobody tells the time for long.
    case noClock = "no-clock"
    /// The wall clock is set wrongly for a while.
    case wrongClock = "wrong-clock"
    /// The machine sleeps for a while.
    case suspend

    /// Between two of them in a scenario that has them, on the average, in microseconds; nil for what has no moment of
    /// its own.
    var meanInterval: UInt64? {
        switch self {
        case .powerCut: 2_500_000
        case .stepCut, .recoveryCut, .fullDisk, .rot, .neighbour, .noClock: nil
        case .kill: 40_000_000
        case .stop: 60_000_000
        case .linkCut: 2_000_000
        case .halfOpen: 9_000_000
        case .blackHole: 12_000_000
        case .storm: 45_000_000
        case .outage: 40_000_000
        case .stall: 15_000_000
        case .diskError: 15_000_000
        case .wrongClock: 30_000_000
        case .suspend: 60_000_000
        }
    }
}
