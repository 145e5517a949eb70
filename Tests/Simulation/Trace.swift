/// What happened, as a number that is the same whenever the same happened, and if asked for as lines to read.
package struct Trace: Sendable {
    package private(set) var digest: UInt64 = 0xCBF2_9CE4_8422_2325
    package private(set) var lines: [String] = []
    /// Lines cost far more than the number.
    package let isReadable: Bool
    /// Of lines only so many of the last are kept; nil for all.
    private let linesMax: Int?

    package init(isReadable: Bool, linesMax: Int? = nil) {
        self.isReadable = isReadable
        self.linesMax = linesMax
    }

    mutating func note(_ number: UInt64) {
        digest = (digest ^ number) &* 0x9E37_79B9_7F4A_7C15
        digest ^= digest >> 29
    }

    /// - Complexity: O(bytes)
    mutating func note(_ bytes: [UInt8]) {
        note(UInt64(bytes.count))
        bytes.withUnsafeBytes { buffer in
            var at = 0
            while at + 8 <= buffer.count {
                note(UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: at, as: UInt64.self)))
                at += 8
            }
            var rest: UInt64 = 0
            while at < buffer.count {
                rest = rest << 8 | UInt64(buffer[at])
                at += 1
            }
            note(rest)
        }
    }

    mutating func say(_ line: @autoclosure () -> String, at now: UInt64) {
        guard isReadable else { return }
        let milliseconds = String(now / 1000)
        lines.append(
            String(repeating: " ", count: max(0, 8 - milliseconds.count)) + milliseconds + " ms  " + line())
        if let linesMax, lines.count > 2 * linesMax { lines.removeFirst(lines.count - linesMax) }
    }
}

/// The hash that tells two byte sequences apart where no trace is kept.
func digest(of bytes: [UInt8]) -> UInt64 {
    var trace = Trace(isReadable: false)
    trace.note(bytes)
    return trace.digest
}
