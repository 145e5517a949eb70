import GatewayCore

/// Knows when room runs out, before it does (promise P4): against the log's own limit and against what the
/// file system has left.
struct SpaceWatch {
    private let plan: JournalPlan
    /// By segments and checkpoints, in bytes.
    var usedBytes: Int
    /// In files that are kept for segments: the file system calls them taken.
    var reusableBytes = 0
    /// Of the newest checkpoint: the next has to have as much beside it.
    var checkpointBytes = 0
    /// The disk refused for want of room, or there is no reserve and no room for one: pressure, whatever else the file
    /// system says.
    var isInDebt = false
    private var fileSystem: FileSystemSpace?
    private(set) var isPressing = false
    private var measuredAt: Instant?

    init(plan: JournalPlan, usedBytes: Int) {
        self.plan = plan
        self.usedBytes = usedBytes
    }

    mutating func measured(_ space: FileSystemSpace, at now: Instant) {
        fileSystem = space
        measuredAt = now
    }

    var freeBytes: Int? { fileSystem.map { Int(clamping: $0.free) } }

    /// Pressure begins at a limit and ends a tenth on the good side of it, so that it does not flutter.
    mutating func update() {
        let limit = plan.sizeLimitBytes
        if isInDebt || usedBytes >= limit || isShort(ofTenths: 10) {
            isPressing = true
        } else if usedBytes < limit / 10 * 9 && !isShort(ofTenths: 11) {
            isPressing = false
        }
    }

    private func isShort(ofTenths tenths: UInt64) -> Bool {
        guard let fileSystem else { return false }
        return available(in: fileSystem) < kept(in: fileSystem) / 10 * tenths
    }

    private func available(in fileSystem: FileSystemSpace) -> UInt64 {
        fileSystem.free + UInt64(reusableBytes)
    }

    private func kept(in fileSystem: FileSystemSpace) -> UInt64 {
        plan.freeBytesMin(total: fileSystem.total) + UInt64(checkpointBytes)
    }

    /// Whether the file system has room for so many bytes and for everything else that must stay free.
    func hasRoom(for bytes: Int) -> Bool {
        guard let fileSystem else { return true }
        return available(in: fileSystem) >= kept(in: fileSystem) + UInt64(bytes)
    }

    /// By how much the log may grow under pressure between two checkpoints: what is kept free has room for that, twice,
    /// until the second lets the first segment go.
    var growthUnderPressure: Int {
        let most = fileSystem.map { Int(clamping: plan.freeBytesMin(total: $0.total) / 4) } ?? .max
        return min(max(plan.segmentBytes / 2, checkpointBytes), most)
    }

    /// Others may give space back without our doing anything, so it is measured while it is short.
    var nextMeasurement: Instant? {
        guard isPressing else { return nil }
        return (measuredAt ?? Instant(milliseconds: 0)).advanced(
            byMilliseconds: plan.pressureCheckMilliseconds)
    }

    /// Says whether a measurement is due, and counts it as made.
    mutating func isMeasurementDue(at now: Instant) -> Bool {
        guard let next = nextMeasurement, next <= now else { return false }
        measuredAt = now
        return true
    }
}
