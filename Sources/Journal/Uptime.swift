import GatewayCore

/// One boot of the machine, by the random number that Linux gives it (`/proc/sys/kernel/random/boot_id`).
package struct MachineBoot: Hashable, Sendable {
    let high: UInt64
    let low: UInt64

    /// From the text of that file: 32 hexadecimal digits with dashes between. nil for anything else, and for zero,
    /// which stands for none on disk.
    package init?(text: some Sequence<UInt8>) {
        var number: UInt128 = 0
        var digits = 0
        for byte in text where byte != UInt8(ascii: "-") && byte != UInt8(ascii: "\n") {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { return nil }
            number = number << 4 | UInt128(digit)
            digits += 1
        }
        guard digits == 32 else { return nil }
        self.init(high: UInt64(number >> 64), low: UInt64(truncatingIfNeeded: number))
    }

    init?(high: UInt64, low: UInt64) {
        guard high != 0 || low != 0 else { return nil }
        self.high = high
        self.low = low
    }
}

/// What CLOCK_BOOTTIME said at a moment of the logical clock. Both advance alike for as long as a process lives, so that
/// one such pair in the journal holds for every later moment of that life.
package struct Uptime: Hashable, Sendable {
    package var boot: MachineBoot
    package var milliseconds: UInt64
    package var clock: Instant

    package init(boot: MachineBoot, milliseconds: UInt64, clock: Instant) {
        self.boot = boot
        self.milliseconds = milliseconds
        self.clock = clock
    }

    func at(_ moment: Instant) -> Uptime {
        let later = Instant(milliseconds: milliseconds)
            .advanced(byMilliseconds: moment.milliseconds(since: clock))
            .earlier(byMilliseconds: clock.milliseconds(since: moment))
        return Uptime(boot: boot, milliseconds: later.milliseconds, clock: moment)
    }

    static let size = 24

    /// `size` bytes: zeros for none. The moment is that of the header around it.
    static func append(_ uptime: Uptime?, at moment: Instant, to bytes: inout [UInt8]) {
        let uptime = uptime?.at(moment)
        bytes.append(fixed: uptime?.boot.high ?? 0)
        bytes.append(fixed: uptime?.boot.low ?? 0)
        bytes.append(fixed: uptime?.milliseconds ?? 0)
    }

    static func read(at moment: Instant, _ reader: inout ByteReader) throws(DecodingError) -> Uptime? {
        let high = try reader.fixed(UInt64.self)
        let low = try reader.fixed(UInt64.self)
        let milliseconds = try reader.fixed(UInt64.self)
        return MachineBoot(high: high, low: low).map {
            Uptime(boot: $0, milliseconds: milliseconds, clock: moment)
        }
    }
}

/// A start of the gateway before which it was off for a time that nothing has proven yet.
package struct UnprovenStart: Hashable, Sendable {
    /// The last Record before it.
    package var after: Position
    /// The clock's last moment before it.
    package var since: Instant

    package init(after: Position, since: Instant) {
        self.after = after
        self.since = since
    }
}

/// How the logical clock goes on after a start.
package struct Resumption: Hashable, Sendable {
    /// Where the clock begins: later than every moment of the time before.
    package var clock: Instant
    /// How long the gateway was off, where that is known: this boot of the machine saw it stop, and CLOCK_BOOTTIME has
    /// counted ever since. It is in `clock`.
    package var offMilliseconds: UInt64?
    package var uptime: Uptime?
    /// The first start since the wall clock was last believed before which the gateway was off for an unknown time;
    /// this one, if no earlier.
    package var unproven: UnprovenStart?
}

extension RecoveredLog {
    /// - Parameters:
    ///   - boot: of the machine, now.
    ///   - uptimeMilliseconds: CLOCK_BOOTTIME, now.
    package func resume(on boot: MachineBoot?, uptimeMilliseconds: UInt64) -> Resumption {
        var off: UInt64?
        if let boot, let stopped = uptime?.at(clock), stopped.boot == boot {
            off = Instant(milliseconds: uptimeMilliseconds)
                .milliseconds(since: Instant(milliseconds: stopped.milliseconds))
        }
        let start = clock.advanced(byMilliseconds: off ?? 0).advanced(byMilliseconds: 1)
        let isFirst = self.boot == 0
        return Resumption(
            clock: start, offMilliseconds: off,
            uptime: boot.map { Uptime(boot: $0, milliseconds: uptimeMilliseconds, clock: start) },
            unproven: unproven ?? (off != nil || isFirst ? nil : UnprovenStart(after: last, since: clock)))
    }
}
