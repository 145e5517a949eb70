/// The Records that wait, in one stretch of memory: they are moved in and out, and looked at where they lie. A Deque
/// copies what is appended to it and what is looked at in it, and a Record is made of many references.
///
/// - Complexity: everything O(1) a slot, amortized, but `putBack`, which is O(count).
struct SlotQueue: RandomAccessCollection, MutableCollection {
    typealias Slot = PendingRecords.Slot

    /// Those before `head` were taken out and hold nothing any more.
    private var slots: [Slot] = []
    private var head = 0

    var startIndex: Int { 0 }
    var endIndex: Int { slots.count - head }

    subscript(index: Int) -> Slot {
        get { slots[head + index] }
        _modify { yield &slots[head + index] }
    }

    /// Lends each slot before `end` in its place, until one is refused.
    mutating func lend(before end: Int, _ body: (Int, inout Slot) -> Bool) {
        slots.withUnsafeMutableBufferPointer { slots in
            for index in 0..<end {
                guard body(index, &slots[head + index]) else { return }
            }
        }
    }

    mutating func append(_ slot: consuming Slot) { slots.append(slot) }

    /// Takes out the first `count`.
    mutating func take(_ count: Int) -> [Slot] {
        var taken: [Slot] = []
        if count == self.count {
            // All of them, as mostly: their memory goes with them.
            slots.removeFirst(head)
            head = 0
            swap(&taken, &slots)
            // What comes next is about as much.
            slots.reserveCapacity(count)
            return taken
        }
        taken.reserveCapacity(count)
        for index in head..<head + count {
            taken.append(slots[index])
            slots[index].forget()
        }
        head += count
        closeUp()
        return taken
    }

    mutating func removeFirst() {
        slots[head].forget()
        head += 1
        closeUp()
    }

    mutating func removeLast() { slots.removeLast() }

    mutating func removeAll(where isSuperfluous: (Slot) -> Bool) {
        slots.removeFirst(head)
        head = 0
        slots.removeAll(where: isSuperfluous)
    }

    /// Puts slots before all others.
    mutating func putBack(_ taken: [Slot]) {
        slots.replaceSubrange(..<head, with: taken)
        head = 0
    }

    /// Lets go of the memory before `head` once that is more than what is behind it.
    private mutating func closeUp() {
        guard head > slots.count / 2 else { return }
        slots.removeFirst(head)
        head = 0
    }
}
