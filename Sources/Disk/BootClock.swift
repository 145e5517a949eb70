import CLinux
import Glibc
import Journal

/// The clocks of the machine.
package enum BootClock {
    /// Milliseconds since the machine booted, with the time it slept; never goes back while it is up.
    package static func milliseconds() -> UInt64 {
        let (seconds, nanoseconds) = read(CLOCK_BOOTTIME)
        return UInt64(max(seconds, 0)) * 1000 + UInt64(nanoseconds / 1_000_000)
    }

    /// Which boot of the machine this is; nil where the kernel does not say.
    package static func machineBoot() -> MachineBoot? {
        do {
            return MachineBoot(text: try Directory.readAll("/proc/sys/kernel/random/boot_id"))
        } catch {
            return nil
        }
    }

    /// The wall clock, and whether the kernel says that somebody keeps it right.
    package static func wall() -> WallReading {
        let (seconds, nanoseconds) = read(CLOCK_REALTIME)
        return WallReading(
            milliseconds: Int64(seconds) * 1000 + Int64(nanoseconds / 1_000_000),
            isTrusted: tidegate_clock_is_synchronised() != 0)
    }

    private static func read(_ clock: clockid_t) -> (seconds: Int, nanoseconds: Int) {
        var moment = timespec()
        let result = clock_gettime(clock, &moment)
        precondition(result == 0, "every Linux that runs this has both clocks")
        return (moment.tv_sec, moment.tv_nsec)
    }
}
