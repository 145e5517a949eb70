/// Which of an uplink's addresses is tried next: in order of preference, each once, and then all over again
/// after a pause that grows with every round in vain. Pure.
struct AddressOrder {
    private let count: Int
    /// The address of the present connection or attempt, or of the next one.
    private(set) var current = 0
    /// Rounds in a row without a connection that lasted.
    private var roundsInVain = 0

    /// When the next attempt may begin.
    enum Next: Equatable {
        case atOnce
        /// After a pause that has doubled so often.
        case afterPause(doublings: Int)
    }

    init(count: Int) {
        precondition(count > 0, "an uplink leads somewhere")
        self.count = count
    }

    /// The attempt gave nothing, or a connection that did not last.
    mutating func failed() -> Next {
        current = (current + 1) % count
        return current == 0 ? pause() : .atOnce
    }

    /// The attempt gave nothing, but there is another way to try the same address.
    mutating func failedForNow() -> Next { pause() }

    /// A connection that lasted is over: the first address may be there again.
    mutating func ended() -> Next {
        roundsInVain = 0
        current = 0
        return pause()
    }

    /// The first address has answered beside a connection to another.
    mutating func returned() { current = 0 }

    private mutating func pause() -> Next {
        defer { roundsInVain += 1 }
        return .afterPause(doublings: min(roundsInVain, 20))
    }
}
