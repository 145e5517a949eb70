/// A moment on the gateway's logical clock, in milliseconds.
///
/// The clock is persisted and advances only by proven elapsed time, so a wrong wall clock expires nothing.
/// The core has no clock: every input brings its moment along.
package struct Instant: Hashable, Comparable, Sendable {
    package let milliseconds: UInt64

    package init(milliseconds: UInt64) { self.milliseconds = milliseconds }

    package static func < (a: Self, b: Self) -> Bool { a.milliseconds < b.milliseconds }

    /// The moment `seconds` later; stops at the end of time instead of wrapping.
    package func advanced(bySeconds seconds: UInt32) -> Instant {
        advanced(byMilliseconds: UInt64(seconds) * 1000)
    }

    /// The moment `milliseconds` later; stops at the end of time instead of wrapping.
    package func advanced(byMilliseconds delta: UInt64) -> Instant {
        let (sum, overflow) = milliseconds.addingReportingOverflow(delta)
        return Instant(milliseconds: overflow ? .max : sum)
    }

    /// The moment `milliseconds` before; stops at the beginning of time.
    package func earlier(byMilliseconds delta: UInt64) -> Instant {
        Instant(milliseconds: milliseconds > delta ? milliseconds - delta : 0)
    }

    /// Whole milliseconds from `earlier` to this moment; 0 when `earlier` is later.
    package func milliseconds(since earlier: Instant) -> UInt64 {
        milliseconds > earlier.milliseconds ? milliseconds - earlier.milliseconds : 0
    }

    package static let distantFuture = Instant(milliseconds: .max)
}

/// The place of a Record in the journal: the first is 1, and each Record takes the next number.
///
/// 0 stands before the first Record, so that "durable up to 0" means nothing is durable yet.
package struct Position: Hashable, Comparable, Sendable {
    package let number: UInt64

    package init(_ number: UInt64) { self.number = number }

    package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
    package var next: Position { Position(number + 1) }
    package static let zero = Position(0)
}

/// One Network Connection, for as long as it lasts. The transport gives each a number never used before in
/// this process.
package struct ConnectionID: Hashable, Sendable {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
}

/// Whoever holds Session State and is owed messages: a client's Session or an uplink.
///
/// Sessions that are written to the journal count up from 1; those that end with their connection and leave
/// no trace have `volatileBit` set, so that what the journal knows replays to the same numbers.
package struct SessionID: Hashable, Comparable, Sendable {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }

    package static let volatileBit: UInt64 = 1 << 63
    /// Whether no Record ever names this Session.
    package var isVolatile: Bool { number & Self.volatileBit != 0 }

    package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}

/// An uplink by its place in the configured list.
package struct UplinkIndex: Hashable, Comparable, Sendable {
    package let number: Int
    package init(_ number: Int) { self.number = number }
    package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}
