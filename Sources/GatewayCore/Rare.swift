/// A value that is mostly absent, kept elsewhere when it is there: what has it stays small, which counts where it is moved
/// about for every message.
struct Rare<Value: Hashable & Sendable>: Hashable, Sendable {
    /// One, or nil, which costs less to copy than an empty list.
    private let values: [Value]?

    init(_ value: Value?) { values = value.map { [$0] } }

    var value: Value? { values?.first }
}

/// Makes a large struct that has one stay where it is. Whatever could be moved in registers the compiler copies to the
/// stack before it lends it to a function, and a kilobyte seven times a message is a twentieth of all time spent; what
/// has a weak reference, be it to nobody, must keep its address.
struct StaysInPlace: Sendable {
    private final class Nobody: Sendable {}
    private weak var nobody: Nobody?
}
