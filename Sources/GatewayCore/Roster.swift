/// A table which is walked in a stated order: values live in slots, and a walk goes by slot number, never by
/// hash, so that the same inputs give the same outputs in every process.
struct Roster<Key: Hashable, Value> {
    private var slotOfKey: [Key: Int] = [:]
    private var slots: [(key: Key, value: Value)?] = []
    private var free: [Int] = []

    var count: Int { slotOfKey.count }
    var isEmpty: Bool { slotOfKey.isEmpty }

    func contains(_ key: Key) -> Bool { slotOfKey[key] != nil }

    /// Reads, inserts, replaces, changes in place, or with nil removes.
    subscript(key: Key) -> Value? {
        get {
            guard let slot = slotOfKey[key] else { return nil }
            return slots[slot]?.value
        }
        set {
            switch (slotOfKey[key], newValue) {
            case (let slot?, let value?):
                slots[slot] = (key, value)
            case (let slot?, nil):
                slots[slot] = nil
                slotOfKey[key] = nil
                free.append(slot)
            case (nil, let value?):
                let slot = free.popLast() ?? slots.count
                if slot == slots.count { slots.append((key, value)) } else { slots[slot] = (key, value) }
                slotOfKey[key] = slot
            case (nil, nil):
                break
            }
        }
    }

    /// Changes the value of `key` in its slot, without a copy; nil when there is none.
    mutating func update<Result>(_ key: Key, _ body: (inout Value) -> Result) -> Result? {
        guard let slot = slotOfKey[key] else { return nil }
        return body(&slots[slot]!.value)  // `slotOfKey` names only filled slots
    }

    /// The keys by slot: the order of insertion, holes refilled by later ones.
    ///
    /// - Complexity: O(slots)
    var keys: [Key] { slots.compactMap { $0?.key } }

    /// The values by slot.
    ///
    /// - Complexity: O(slots)
    var values: [Value] { slots.compactMap { $0?.value } }
}
