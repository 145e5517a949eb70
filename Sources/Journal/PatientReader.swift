/// Asks a reader again for what it refuses, with pauses of half a minute altogether, before recovery takes a refusal for
/// damage: a card that is being reset while the gateway starts would give nothing, and what it does not give is put aside
/// as lost, however whole it is (promise P2).
///
/// What is no file, not there, or not allowed is refused at once. So is everything once the pauses are used up: a store
/// that is damaged in many places is not waited for in each.
package struct PatientReader<Reader: StoreReader>: StoreReader {
    private var reader: Reader
    private let pause: (inout Reader, UInt32) -> Void
    private var pausesSeconds: ArraySlice<UInt32> = [1, 2, 4, 8, 16]

    /// - Parameter pause: waits for so many seconds; blocks.
    package init(_ reader: Reader, pause: @escaping (inout Reader, UInt32) -> Void) {
        self.reader = reader
        self.pause = pause
    }

    package mutating func names() throws(StoreReadFailure) -> [String] { try reader.names() }

    package mutating func size(of name: String) throws(StoreReadFailure) -> Int { try reader.size(of: name) }

    package mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8]
    {
        while true {
            do { return try reader.read(name, at: offset, count: count) } catch {
                guard error.mayPass, let seconds = pausesSeconds.popFirst() else { throw error }
                pause(&reader, seconds)
            }
        }
    }

    package mutating func makeDurable(_ name: String) throws(StoreReadFailure) {
        try reader.makeDurable(name)
    }

    package mutating func makeDirectoryDurable() throws(StoreReadFailure) {
        try reader.makeDirectoryDurable()
    }
}

extension StoreReadFailure {
    /// Whether the same may be read a little later: not after EPERM, ENOENT or EACCES.
    fileprivate var mayPass: Bool { !isDamage && ![1, 2, 13].contains(errorNumber) }
}
