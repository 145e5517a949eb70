/// A value that is mostly absent, kept elsewhere when it is there: what has it stays small, which counts where it is moved
/// about for every message.
struct Rare<Value: Hashable & Sendable>: Hashable, Sendable {
    private final class Box: Sendable {
        let value: Value
        init(_ value: Value) { self.value = value }
    }

    private let box: Box?

    init(_ value: Value?) { box = value.map { Box($0) } }

    var value: Value? { box?.value }

    static func == (a: Self, b: Self) -> Bool { a.value == b.value }

    func hash(into hasher: inout Hasher) { hasher.combine(value) }
}
