import GatewayCore
import Glibc

/// The gateway's clock: goes on from where the journal says it stopped, and advances by the time that
/// CLOCK_BOOTTIME proves to have passed, suspended or not. The wall clock has no say in it (promise P9).
struct LogicalClock {
    private let start: Instant
    private let bootAtStart: UInt64

    init(start: Instant) {
        self.start = start
        bootAtStart = Self.bootMilliseconds()
    }

    var now: Instant { start.advanced(byMilliseconds: Self.bootMilliseconds() - bootAtStart) }

    private static func bootMilliseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
    }
}
