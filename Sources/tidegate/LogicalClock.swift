import Disk
import GatewayCore

/// The gateway's clock: goes on from where the journal says it stopped, and advances by the time that
/// CLOCK_BOOTTIME proves to have passed, suspended or not. The wall clock has no say in it (promise P9).
struct LogicalClock {
    private let start: Instant
    private let bootAtStart = BootClock.milliseconds()

    init(start: Instant) { self.start = start }

    var now: Instant { start.advanced(byMilliseconds: BootClock.milliseconds() - bootAtStart) }
}
