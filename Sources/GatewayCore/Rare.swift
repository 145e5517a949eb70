/// A value that is mostly absent, kept elsewhere when it is there: what has it stays small, which counts where it is moved
/// about for every message.
struct Rare<Value: Hashable & Sendable>: Hashable, Sendable {
    /// At most one. Empty, it is a pointer to what all empty arrays share.
    private let values: [Value]

    init(_ value: Value?) { values = value.map { [$0] } ?? [] }

    var value: Value? { values.first }
}
