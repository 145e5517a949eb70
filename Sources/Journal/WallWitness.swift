import GatewayCore

/// Hears the wall clock as a witness to how long the gateway was off, and believes it only when there is reason to
/// (promise P9): the kernel says that somebody keeps it right, it is not earlier than this software, and it has run
/// alongside CLOCK_BOOTTIME, without a step, for a minute.
///
/// While the gateway runs the logical clock knows better. So all that is ever learnt is how much more time has passed
/// since the wall clock was last believed than the logical clock has counted: time in which the gateway was off. It
/// belongs to the first start since then that nothing else explains: what came before that has certainly waited so
/// long, and what came later is kept rather too long.
package struct WallWitness {
    /// When the wall clock was last believed.
    private var anchor: WallAnchor?
    /// nil when the logical clock has counted everything since.
    private var unproven: UnprovenStart?
    /// The wall clock runs without a step since this moment.
    private var run: (offset: Int128, since: Instant)?
    /// What was said of it, once.
    private var objection: Finding?
    private var saidUnsynchronised = false
    /// Whether what it says now may be kept as an anchor.
    package private(set) var isBelieved = false

    /// In milliseconds since 1970: 2026-01-01T00:00Z. This software is not older, so that an earlier wall clock is wrong
    /// whatever the kernel says. A constant, because the date of a file may itself come from a wrong clock.
    package static let earliest: Int64 = 1_767_225_600_000
    package static let stableMilliseconds: UInt64 = 60_000
    /// Beyond it the wall clock has stepped; NTP slews by 30 ms in a minute, and a leap second is one.
    package static let stepMilliseconds: Int128 = 2_000
    /// Less than this is not worth a Record.
    package static let leastOffMilliseconds: Int128 = 1_000
    /// A wall clock that is this far from what has been counted, and cannot be explained by the gateway having been off,
    /// contradicts what was believed before.
    package static let agreementMilliseconds: Int128 = 60_000
    /// One that contradicts is believed after a day without a step, but never as to how long the gateway was off.
    package static let contradictionMilliseconds: UInt64 = 86_400_000
    /// A gateway that was off for longer than 400 days is not believed to have been.
    package static let offMillisecondsMax: Int128 = 400 * 86_400_000

    package enum Finding: Hashable, Sendable {
        /// The kernel does not say that the wall clock is right, and a time is unproven. Said once.
        case unsynchronised
        /// The kernel says it is right, but it is earlier than this software.
        case impossible
        case stepped(milliseconds: Int64)
        /// Nothing was to be learnt from it.
        case believed
        case wasOff(OffTime)
        /// Longer than is believed: nothing expires by it.
        case offForTooLong(milliseconds: Int64)
        /// Ahead by this much although the gateway was not off.
        case ahead(milliseconds: Int64)
        /// Less time has passed by it than was counted.
        case behind(milliseconds: Int64)
    }

    package init(anchor: WallAnchor?, unproven: UnprovenStart?) {
        self.anchor = anchor
        self.unproven = unproven
    }

    /// What was proven since then is not proven again.
    package var anchorClock: Instant? { anchor?.clock }

    /// What the wall clock says now; to be asked for once a second or so.
    ///
    /// - Parameters:
    ///   - now: of the logical clock at the same moment.
    ///   - counted: off time since `anchorClock` that has been proven, in milliseconds, beside the clock.
    /// - Returns: what is worth saying. `.wasOff` must be made durable before what the wall clock says is kept.
    package mutating func hear(_ reading: WallReading, at now: Instant, counted: UInt64) -> Finding? {
        guard reading.isTrusted, reading.milliseconds >= Self.earliest else { return distrust(reading) }
        let offset = Int128(reading.milliseconds) - Int128(now.milliseconds)
        guard let run, abs(offset - run.offset) <= Self.stepMilliseconds else {
            let step = self.run.map { offset - $0.offset }
            self.run = (offset, now)
            isBelieved = false
            objection = nil
            return step.map { .stepped(milliseconds: Int64(clamping: $0)) }
        }
        let steady = now.milliseconds(since: run.since)
        guard !isBelieved, steady >= Self.stableMilliseconds else { return nil }
        guard let finding = judge(reading, at: now, counted: counted) else {
            return believe(reading, at: now)
        }
        if case .wasOff = finding {
            _ = believe(reading, at: now)
            return finding
        }
        guard steady < Self.contradictionMilliseconds else { return believe(reading, at: now) }
        guard objection == nil else { return nil }
        objection = finding
        return finding
    }

    /// nil when it agrees with what is known.
    private func judge(_ reading: WallReading, at now: Instant, counted: UInt64) -> Finding? {
        guard let anchor else { return nil }
        let passed = Int128(reading.milliseconds) - Int128(anchor.wallMilliseconds)
        let off = passed - (Int128(now.milliseconds) - Int128(anchor.clock.milliseconds)) - Int128(counted)
        let rounded = Int64(clamping: off)
        if off < -Self.agreementMilliseconds { return .behind(milliseconds: -max(rounded, -Int64.max)) }
        if off < Self.leastOffMilliseconds { return nil }
        guard let unproven else {
            return off <= Self.agreementMilliseconds ? nil : .ahead(milliseconds: rounded)
        }
        guard off <= Self.offMillisecondsMax else { return .offForTooLong(milliseconds: rounded) }
        return .wasOff(OffTime(after: unproven.after, since: unproven.since, milliseconds: UInt64(off)))
    }

    private mutating func believe(_ reading: WallReading, at now: Instant) -> Finding {
        isBelieved = true
        anchor = WallAnchor(clock: now, wallMilliseconds: reading.milliseconds)
        unproven = nil
        return .believed
    }

    private mutating func distrust(_ reading: WallReading) -> Finding? {
        run = nil
        isBelieved = false
        let finding: Finding = reading.isTrusted ? .impossible : .unsynchronised
        guard objection != finding, finding == .impossible || (unproven != nil && !saidUnsynchronised) else {
            return nil
        }
        if finding == .unsynchronised { saidUnsynchronised = true }
        objection = finding
        return finding
    }
}
