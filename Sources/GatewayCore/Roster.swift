/// A table which is walked in a stated order: by place, never by hash, so that the same inputs give the same
/// outputs in every process. A new key takes the last place; when one is removed, the last moves into its place.
struct Roster<Key: Hashable, Value> {
    private var placeOfKey: [Key: Int] = [:]
    private(set) var keys: [Key] = []
    private(set) var values: [Value] = []

    var count: Int { keys.count }
    var isEmpty: Bool { keys.isEmpty }

    func contains(_ key: Key) -> Bool { placeOfKey[key] != nil }

    /// Reads a copy, inserts, replaces, or with nil removes.
    subscript(key: Key) -> Value? {
        get { placeOfKey[key].map { values[$0] } }
        set {
            switch (placeOfKey[key], newValue) {
            case (let place?, let value?):
                values[place] = value
            case (let place?, nil):
                placeOfKey[key] = nil
                keys.swapAt(place, keys.count - 1)
                values.swapAt(place, values.count - 1)
                keys.removeLast()
                values.removeLast()
                if place < keys.count { placeOfKey[keys[place]] = place }
            case (nil, let value?):
                placeOfKey[key] = keys.count
                keys.append(key)
                values.append(value)
            case (nil, nil):
                break
            }
        }
    }

    /// Looks at the value of `key` without copying it; nil when there is none.
    func read<Result>(_ key: Key, _ body: (borrowing Value) -> Result) -> Result? {
        placeOfKey[key].map { body(values[$0]) }
    }

    /// Changes the value of `key` in its place, without a copy; nil when there is none.
    mutating func update<Result>(_ key: Key, _ body: (inout Value) -> Result) -> Result? {
        guard let place = placeOfKey[key] else { return nil }
        return body(&values[place])
    }
}
