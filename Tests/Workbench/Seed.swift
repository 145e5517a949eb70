import Foundation

/// What the random choices of a run depend on.
///
/// A test takes it as an argument, so that whatever fails tells it. It repeats where and when a line is cut,
/// but not how the machine shares its time among processes.
package enum Seed {
    /// The number in the environment as TIDEGATE_SEED, or a new one for every process.
    package static let ofThisRun: UInt64 = {
        guard let text = ProcessInfo.processInfo.environment["TIDEGATE_SEED"] else {
            return .random(in: 1...999_999)
        }
        guard let seed = UInt64(text) else { fatalError("TIDEGATE_SEED must be a number, not \(text)") }
        return seed
    }()
}

/// A small generator of numbers that depend on nothing but its seed.
package struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
