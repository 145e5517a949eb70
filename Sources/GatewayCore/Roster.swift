import MQTT

/// A table which is walked in a stated order: by place, never by hash, so that the same inputs give the same
/// outputs in every process. A new key takes the last place; when one is removed, the last moves into its place.
///
/// Places are found by open addressing with linear probing. The standard library's Dictionary hashes every key
/// so that no attacker can choose colliding ones; a message looks up its connection and its Sessions a dozen
/// times, by numbers the gateway has given them itself, and that hash was a tenth of all time spent.
struct Roster<Key: RosterKey, Value> {
    private(set) var keys: [Key] = []
    private(set) var values: [Value] = []
    /// One more than a place; 0 is free. A power of two of them, at most half of them taken.
    private var slots: [UInt32] = []

    var count: Int { keys.count }
    var isEmpty: Bool { keys.isEmpty }

    func contains(_ key: Key) -> Bool { place(of: key) != nil }

    /// Reads a copy, inserts, replaces, or with nil removes.
    subscript(key: Key) -> Value? {
        get { place(of: key).map { values[$0] } }
        set {
            switch (place(of: key), newValue) {
            case (let place?, let value?): values[place] = value
            case (let place?, nil): remove(at: place)
            case (nil, let value?): append(key, value)
            case (nil, nil): break
            }
        }
    }

    /// Looks at the value of `key` without copying it; nil when there is none.
    func read<Result>(_ key: Key, _ body: (borrowing Value) -> Result) -> Result? {
        guard let place = place(of: key) else { return nil }
        // By its address: the subscript of an Array copies the value first.
        return values.withUnsafeBufferPointer { body($0[place]) }
    }

    /// Changes the value of `key` in its place, without a copy; nil when there is none.
    mutating func update<Result>(_ key: Key, _ body: (inout Value) -> Result) -> Result? {
        guard let place = place(of: key) else { return nil }
        return body(&values[place])
    }

    // MARK: Places

    private func place(of key: Key) -> Int? {
        guard !slots.isEmpty else { return nil }
        var slot = home(of: key)
        while slots[slot] != 0 {
            let place = Int(slots[slot]) - 1
            if keys[place] == key { return place }
            slot = following(slot)
        }
        return nil
    }

    private mutating func append(_ key: Key, _ value: Value) {
        keys.append(key)
        values.append(value)
        if 2 * keys.count > slots.count {
            slots = Array(repeating: 0, count: max(8, 2 * slots.count))
            for place in keys.indices { enter(place) }
        } else {
            enter(keys.count - 1)
        }
    }

    private mutating func remove(at place: Int) {
        leave(place)
        let last = keys.count - 1
        if place < last {
            leave(last)
            keys.swapAt(place, last)
            values.swapAt(place, last)
            enter(place)
        }
        keys.removeLast()
        values.removeLast()
    }

    private mutating func enter(_ place: Int) {
        var slot = home(of: keys[place])
        while slots[slot] != 0 { slot = following(slot) }
        slots[slot] = UInt32(place + 1)
    }

    /// Frees the slot of a place, and closes the gap for those that were pushed past it.
    private mutating func leave(_ place: Int) {
        var gap = home(of: keys[place])
        while slots[gap] != UInt32(place + 1) { gap = following(gap) }
        var slot = following(gap)
        while slots[slot] != 0 {
            let home = home(of: keys[Int(slots[slot]) - 1])
            if distance(from: home, to: slot) >= distance(from: gap, to: slot) {
                slots[gap] = slots[slot]
                gap = slot
            }
            slot = following(slot)
        }
        slots[gap] = 0
    }

    /// Multiplied by 2^64 divided by the golden ratio, numbers that follow each other come to lie far apart.
    private func home(of key: Key) -> Int {
        Int(truncatingIfNeeded: (key.rosterHash &* 0x9E37_79B9_7F4A_7C15) >> 32) & (slots.count - 1)
    }

    private func following(_ slot: Int) -> Int { (slot + 1) & (slots.count - 1) }
    private func distance(from a: Int, to b: Int) -> Int { (b &- a) & (slots.count - 1) }
}

/// What a `Roster` finds by.
protocol RosterKey: Equatable {
    /// Different for most keys; how they are spread is the table's affair.
    var rosterHash: UInt64 { get }
}

extension SessionID: RosterKey {
    var rosterHash: UInt64 { number }
}

extension ConnectionID: RosterKey {
    var rosterHash: UInt64 { number }
}

extension Peer: RosterKey {
    var rosterHash: UInt64 {
        switch self {
        case .client(let id): id.rosterHash
        case .uplink(let index, let epoch): ~(UInt64(index.number) << 48 ^ epoch)
        }
    }
}

extension TopicFilter: RosterKey {
    var rosterHash: UInt64 { tableHash }
}
