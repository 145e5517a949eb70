/// Time in which the gateway was off, proven only after it had started again.
///
/// The clock itself does not jump when such a proof comes: what began since the start, from a Keep Alive to a message
/// that was just published, has not waited that long. What came before the start has, and for that, and nothing else,
/// this is added to the time that passed.
package struct OffTime: Hashable, Sendable {
    /// The last Record before the start. What it and those before it brought was there.
    package var after: Position
    /// The clock's last moment before the start. What had happened by then lies before it.
    package var since: Instant
    package var milliseconds: UInt64

    package init(after: Position, since: Instant, milliseconds: UInt64) {
        self.after = after
        self.since = since
        self.milliseconds = milliseconds
    }
}

/// Every `OffTime`, so that each deadline in the journal can be held against the time that really passed without being
/// written anew.
package struct OffTimes {
    /// In rising order, one for each start.
    private(set) var all: [OffTime] = []

    /// Beyond it the two oldest become one, which counts only for what came before both: what lies between waits
    /// longer than it should, and nothing shorter.
    private static let countMax = 64

    /// - Complexity: O(count), which is bounded
    mutating func add(_ off: OffTime) {
        let place = all.firstIndex { $0.after >= off.after } ?? all.count
        if place < all.count, all[place].after == off.after {
            all[place].milliseconds = Self.sum(all[place].milliseconds, off.milliseconds)
            return
        }
        all.insert(off, at: place)
        guard all.count > Self.countMax else { return }
        all[0].milliseconds = Self.sum(all[0].milliseconds, all[1].milliseconds)
        all.remove(at: 1)
    }

    /// How much longer than the clock says a Record of the journal has been there. One that is not written has the
    /// position zero, and came after the start.
    func milliseconds(since position: Position) -> UInt64 {
        guard position != .zero else { return 0 }
        return total { $0.after >= position }
    }

    /// How much longer than the clock says it is since `moment`.
    func milliseconds(since moment: Instant) -> UInt64 { total { $0.since >= moment } }

    /// When the clock reaches a deadline that the Record at `position` set.
    func deadline(_ deadline: Instant?, of position: Position) -> Instant? {
        guard !all.isEmpty else { return deadline }
        return deadline?.earlier(byMilliseconds: milliseconds(since: position))
    }

    private func total(_ counts: (OffTime) -> Bool) -> UInt64 {
        var sum: UInt64 = 0
        for off in all where counts(off) { sum = Self.sum(sum, off.milliseconds) }
        return sum
    }

    /// What a disk says is added without trapping.
    private static func sum(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let (sum, overflow) = a.addingReportingOverflow(b)
        return overflow ? .max : sum
    }
}
