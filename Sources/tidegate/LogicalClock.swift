import Disk
import GatewayCore
import Journal

/// The gateway's clock: goes on from where the journal says it stopped, and advances by the time that
/// CLOCK_BOOTTIME proves to have passed, suspended or not. The wall clock has no say in it (promise P9).
struct LogicalClock {
    /// How it goes on from the time before.
    let resumed: Resumption
    private let uptimeAtStart: UInt64

    init(after recovered: RecoveredLog) {
        uptimeAtStart = BootClock.milliseconds()
        resumed = recovered.resume(on: BootClock.machineBoot(), uptimeMilliseconds: uptimeAtStart)
    }

    var now: Instant {
        resumed.clock.advanced(byMilliseconds: BootClock.milliseconds() - uptimeAtStart)
    }
}
