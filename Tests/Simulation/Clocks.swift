import Journal

/// The clocks of the machine, as they run beside the world's true time: one that counts since the machine was switched
/// on, a little too fast or too slow, and a wall clock that is wrong until somebody sets it.
struct Clocks {
    /// In true time, microseconds.
    private var bootedAt: UInt64 = 0
    private var boots: UInt64 = 0
    /// In millionths.
    let drift: Int64
    /// From this true time on the wall clock is right, and the kernel says so.
    private var trustedAt: UInt64 = 0
    /// What it says when the machine is switched on, in milliseconds since 1970.
    private var wallAtBoot: Int64 = 0
    /// Until then somebody has set it wrongly, by so much.
    private var wrong: (until: UInt64, by: Int64)?

    /// Of true time 0, in milliseconds since 1970: 2026-03-01.
    static let epoch: Int64 = 1_772_323_200_000

    init(drift: Int64) { self.drift = drift }

    /// - Parameters:
    ///   - wall: what the clock on the board says; without one it is 1970.
    ///   - trustedAfter: until the time is known from elsewhere.
    mutating func boot(at now: UInt64, wall: Int64, trustedAfter: UInt64) {
        bootedAt = now
        boots += 1
        wallAtBoot = wall
        trustedAt = now + trustedAfter
        wrong = nil
    }

    var machineBoot: MachineBoot? {
        let digits = String(boots, radix: 16)
        return MachineBoot(text: (String(repeating: "a", count: 32 - digits.count) + digits).utf8)
    }

    /// CLOCK_BOOTTIME.
    func uptimeMilliseconds(at now: UInt64) -> UInt64 {
        let passed = now - min(bootedAt, now)
        let strayed = Int64(passed) / 1_000_000 * drift
        return UInt64(max(0, Int64(passed) + strayed)) / 1000
    }

    /// True time until so many milliseconds have passed by CLOCK_BOOTTIME, or a little more.
    func trueMicroseconds(for milliseconds: UInt64) -> UInt64 {
        milliseconds * 1000 + milliseconds / 1000 * UInt64(abs(drift)) + 1000
    }

    func wall(at now: UInt64) -> WallReading {
        guard now >= trustedAt else {
            return WallReading(
                milliseconds: wallAtBoot + Int64((now - min(bootedAt, now)) / 1000), isTrusted: false)
        }
        let right = Self.epoch + Int64(now / 1000)
        if let wrong, now < wrong.until {
            return WallReading(milliseconds: right + wrong.by, isTrusted: true)
        }
        return WallReading(milliseconds: right, isTrusted: true)
    }

    mutating func setWrongly(by milliseconds: Int64, until: UInt64) { wrong = (until, milliseconds) }
}
