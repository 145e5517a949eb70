/// Chance, the same in each process and at each optimisation level.
package struct Dice: Sendable {
    private var state: UInt64

    package init(_ seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// 0 up to, and without, `limit`.
    package mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    package mutating func coin() -> Bool { next() & 1 == 0 }

    /// Dice of their own for one concern, so that a draw more in one place shifts none elsewhere.
    package mutating func fork() -> Dice { Dice(next()) }
}
